//! Filesystems and files, as far as a look at them tells whether they serve.

use rustix::fs::{Access, StatVfsMountFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Free bytes for whoever is not root, and all bytes, of the filesystem that has `path`.
///
/// # Errors
/// statvfs(3)'s.
pub(crate) fn space(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    // A filesystem in user space may say anything.
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)))
}

/// Whether things can be made in a folder; nothing is made.
///
/// # Errors
/// Why not.
pub(crate) fn can_write(folder: &Path) -> io::Result<()> {
    if rustix::fs::statvfs(folder)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
    }
    Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// The path of the file `name` in the directory of this program.
///
/// # Errors
/// `/proc` does not show where this program is.
pub(crate) fn beside_this_program(name: &str) -> io::Result<PathBuf> {
    std::fs::read_link("/proc/self/exe").map(|own| own.with_file_name(name))
}

/// Whether two paths lead to one file, or to two with the same content.
///
/// # Errors
/// The second one is missing, or one cannot be read.
pub(crate) fn is_same_file(known: &Path, other: &Path) -> io::Result<bool> {
    let (known_is, other_is) = (std::fs::metadata(known)?, std::fs::metadata(other)?);
    if (known_is.dev(), known_is.ino()) == (other_is.dev(), other_is.ino()) {
        return Ok(true);
    }
    if known_is.len() != other_is.len() || !other_is.is_file() {
        return Ok(false);
    }
    let (mut known, mut other) = (File::open(known)?, File::open(other)?);
    let (mut one, mut two) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let len = known.read(&mut one)?;
        if len == 0 {
            return Ok(true);
        }
        let part = two.get_mut(..len).unwrap_or_default();
        other.read_exact(part)?;
        if one.get(..len) != Some(&*part) {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn links_and_copies_are_the_same_file_and_other_content_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, byte: u8| {
            File::create(path(name)).unwrap().write_all(&vec![byte; 40_000]).unwrap();
        };
        write("one", 1);
        write("copy", 1);
        write("other", 2);
        std::fs::hard_link(path("one"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("one"), path("symlink")).unwrap();
        for (name, expected) in
            [("link", true), ("symlink", true), ("copy", true), ("other", false)]
        {
            assert_eq!(is_same_file(&path("one"), &path(name)).unwrap(), expected, "{name}");
        }
        assert!(is_same_file(&path("one"), &path("missing")).is_err());
    }

    #[test]
    fn a_folder_can_be_written_and_a_missing_one_cannot() {
        let folder = tempfile::tempdir().unwrap();
        assert!(can_write(folder.path()).is_ok());
        assert!(can_write(&folder.path().join("missing")).is_err());
        let (free, all) = space(folder.path()).unwrap();
        assert!(free <= all && all > 0);
    }
}
