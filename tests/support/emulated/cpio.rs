//! Writes an initramfs: a cpio archive in the format "newc" (Documentation/driver-api/early-userspace/buffer-format.rst
//! of the kernel).

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Writes the directory `root` to the file `archive`. Everything in it belongs to root. There are only directories,
/// regular files and symbolic links.
pub(crate) fn write(root: &Path, archive: &Path) -> io::Result<()> {
    let mut writer = Writer { out: BufWriter::new(File::create(archive)?), number: 0 };
    writer.directory(root, root)?;
    writer.entry("TRAILER!!!".as_bytes(), 0, &[])?;
    writer.out.flush()
}

struct Writer {
    out: BufWriter<File>,
    /// The number of entries, which are their inode numbers.
    number: u32,
}

impl Writer {
    fn directory(&mut self, root: &Path, directory: &Path) -> io::Result<()> {
        let mut paths = fs::read_dir(directory)?
            .map(|item| item.map(|item| item.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let metadata = path.symlink_metadata()?;
            let name = path.strip_prefix(root).map_err(io::Error::other)?.as_os_str().as_bytes();
            let content = if metadata.is_symlink() {
                fs::read_link(&path)?.as_os_str().as_bytes().to_vec()
            } else if metadata.is_dir() {
                Vec::new()
            } else {
                fs::read(&path)?
            };
            self.entry(name, metadata.mode(), &content)?;
            if metadata.is_dir() {
                self.directory(root, &path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], mode: u32, content: &[u8]) -> io::Result<()> {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
        self.number += 1;
        let (links, name_len) = (1, len(name)? + 1);
        // Inode, mode, uid, gid, links, time, size, device, device of the file, length of the name, checksum.
        let fields = [self.number, mode, 0, 0, links, 0, len(content)?, 0, 0, 0, 0, name_len, 0];
        let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.padded(&[b"070701", header.as_bytes(), name, b"\0"].concat())?;
        self.padded(content)
    }

    /// Header with name, and content, each end at a multiple of four bytes.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
    }
}
