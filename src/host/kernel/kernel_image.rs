//! The kernel in an image: its file in `/boot`, and the release that its modules are for. Everything is opened as if
//! the rootfs were `/`, and kernels themselves are never links.

use crate::host::os::directory::{self, open_if_there, open_in_root};
use crate::model::kernel::abi::Abi;
use crate::model::text::hex::hex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The directories of modules, in the order in which they are searched.
pub(crate) const MODULES: [&str; 2] = ["usr/lib/modules", "lib/modules"];
/// The file of a kernel build that lists its exported symbols.
pub(crate) const SYMBOLS: &str = "Module.symvers";
/// How much is read at once. Larger pieces are not faster.
const PIECE: usize = 64 * 1024;

/// The search for a kernel.
#[derive(Debug, Default)]
pub(crate) struct KernelSearch {
    /// The name of the file with the ABI.
    pub(crate) found: Option<String>,
    /// The files that could not be read, and why.
    pub(crate) unread: Vec<(String, io::Error)>,
}

/// Opens the `/boot` of a rootfs; `None` if it is missing.
///
/// # Errors
/// It cannot be read, or is not a directory.
pub(crate) fn open_boot(rootfs: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    open_if_there(rootfs, "boot")
}

/// Searches a directory for the first regular file, in the order of their names, that hashes to `abi`. Links and empty
/// files do not count, and neither do names that are not UTF-8.
pub(crate) fn find(folder: impl AsFd, abi: &Abi) -> io::Result<KernelSearch> {
    let folder = folder.as_fd();
    let mut names = directory::names(folder)?;
    names.sort();
    let mut search = KernelSearch::default();
    for name in names {
        let Ok(shown) = name.to_str() else { continue };
        match hash_of(folder, shown) {
            Ok(Some(hash)) if hash == abi.as_str() => {
                search.found = Some(shown.to_owned());
                break;
            }
            Ok(_) => {}
            Err(error) => search.unread.push((shown.to_owned(), error)),
        }
    }
    Ok(search)
}

/// The hash of the regular file `name` in `folder`, in hex digits. `None` if it is missing, empty or another kind of
/// file.
pub(crate) fn hash_of(folder: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    // Nothing else is opened: a FIFO or a device may do anything then.
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_file(&stat) => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    // Looked at again, for only now is it certain which file that is.
    if is_file(&rustix::fs::fstat(&file)?) { hash(file.as_fd()) } else { Ok(None) }
}

fn is_file(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// `None` if the file is empty.
fn hash(file: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let (mut hash, mut is_empty, mut piece) = (Sha256::new(), true, vec![0; PIECE]);
    loop {
        match rustix::io::read(file, &mut piece) {
            Ok(0) => break,
            Ok(len) => hash.update(piece.get(..len).unwrap_or_default()),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        is_empty = false;
    }
    let digest = hex(&hash.finalize());
    Ok((!is_empty).then_some(digest))
}

/// The release of the image's modules: the first directory of modules with the symbols of its kernel.
pub(crate) fn release(rootfs: BorrowedFd<'_>) -> io::Result<Option<String>> {
    for modules in MODULES {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let Some(folder) = if_there(open_in_root(rootfs, modules, flags))? else { continue };
        let mut names = directory::names(&folder)?;
        names.sort();
        for name in names {
            let Ok(release) = name.to_str() else { continue };
            let path = format!("{modules}/{release}/{SYMBOLS}");
            let file = open_in_root(rootfs, path, OFlags::PATH | OFlags::NOFOLLOW);
            let Some(file) = if_there(file)? else { continue };
            if is_file(&rustix::fs::fstat(file)?) {
                return Ok(Some(release.to_owned()));
            }
        }
    }
    Ok(None)
}

/// A link that leads nowhere inside the rootfs is a defect of the image, as a missing file is.
fn if_there(opened: rustix::io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    struct Image(tempfile::TempDir);

    impl Image {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn link(&self, name: &str, target: &str) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        fn rootfs(&self) -> File {
            File::open(self.0.path()).unwrap()
        }

        fn find(&self, abi: &str) -> Option<String> {
            let boot = open_boot(self.rootfs().as_fd()).unwrap().unwrap();
            find(boot, &Abi::parse(abi).unwrap()).unwrap().found
        }

        fn release(&self) -> Option<String> {
            release(self.rootfs().as_fd()).unwrap()
        }
    }

    /// Of "abc", from FIPS 180-2, and of nothing.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_first_file_with_the_hash_is_the_kernel() {
        let image = Image::new();
        image.write("boot/config", "x");
        image.write("boot/vmlinuz-2", "abc");
        assert_eq!(image.find(ABC).as_deref(), Some("vmlinuz-2"));
        image.write("boot/vmlinuz-1", "abc");
        assert_eq!(image.find(ABC).as_deref(), Some("vmlinuz-1"));
        image.write("boot/vmlinuz-1", "another");
        assert_eq!(image.find(ABC).as_deref(), Some("vmlinuz-2"));
        image.write("boot/vmlinuz-2", &"abc".repeat(50_000));
        assert_eq!(image.find(ABC), None);
    }

    #[test]
    fn only_a_regular_file_at_the_top_that_has_content_is_a_kernel() {
        let image = Image::new();
        image.write("boot/deep/vmlinuz", "abc");
        image.write("vmlinuz", "abc");
        image.link("boot/vmlinuz", "../vmlinuz");
        image.write("boot/empty", "");
        let fifo = image.0.path().join("boot/a-fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(image.find(ABC), None);
        assert_eq!(image.find(NOTHING), None);
    }

    #[test]
    fn boot_is_a_directory_inside_the_rootfs_or_missing() {
        let image = Image::new();
        assert!(open_boot(image.rootfs().as_fd()).unwrap().is_none());
        image.link("boot", "/usr/boot");
        let why = open_boot(image.rootfs().as_fd()).unwrap_err();
        assert!(why.to_string().contains("dangling"), "{why}");
        image.write("usr/boot/vmlinuz", "abc");
        assert_eq!(image.find(ABC).as_deref(), Some("vmlinuz"));
        let image = Image::new();
        image.write("boot", "abc");
        assert!(open_boot(image.rootfs().as_fd()).is_err());
    }

    #[test]
    fn the_release_is_that_of_the_first_directory_with_symbols() {
        let image = Image::new();
        assert_eq!(image.release(), None);
        image.write("lib/modules/5.1.0/modules.dep", "");
        assert_eq!(image.release(), None);
        image.write("lib/modules/6.1.0/Module.symvers", "");
        assert_eq!(image.release().as_deref(), Some("6.1.0"));
        image.write("usr/lib/modules/6.2.0/x", "");
        assert_eq!(image.release().as_deref(), Some("6.1.0"));
        image.link("usr/lib/modules/6.3.0", "/lib/modules/6.1.0");
        assert_eq!(image.release().as_deref(), Some("6.3.0"));
    }

    #[test]
    fn a_link_is_no_symbol_file_and_one_that_leads_nowhere_is_no_error() {
        let image = Image::new();
        image.write("symvers", "");
        image.link("lib/modules/6.1.0/Module.symvers", "/symvers");
        image.link("usr/lib", "/nowhere");
        assert_eq!(image.release(), None);
    }
}
