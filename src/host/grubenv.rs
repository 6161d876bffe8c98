//! The boot environment block on the boot partition; `model/grubenv.rs` reads its bytes. It is only
//! read here, under the shared lock that its writers respect.

use crate::host::host_root::HostRoot;
use crate::model::grubenv::{self, Block, Invalid, MAX_LEN};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the boot partition is mounted.
const BOOT: &str = "/mnt/boot";
/// The block in it.
const NAME: &str = "bootenv";
/// How long a writer may hold the block: it writes it at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the block cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the boot partition is not mounted at {folder:?}, so the boot environment is out of reach"
    )]
    NotMounted { folder: PathBuf },
    #[error("read the boot environment {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the boot environment {path:?} is locked by another program")]
    Locked { path: PathBuf },
    #[error("the boot environment {path:?} is damaged")]
    Invalid { path: PathBuf, source: Invalid },
}

/// Reads the block. `None` if the host boots in another way.
///
/// # Errors
/// The block may be there, and is not known.
pub(crate) fn load(host: &HostRoot) -> Result<Option<Block>, Error> {
    let folder = host.path(BOOT);
    let path = folder.join(NAME);
    let failed = |source| Error::Read { path: path.clone(), source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // Either there is none, or what it is on is not there.
        Err(Errno::NOENT | Errno::NOTDIR) if host.lacks_mount(BOOT) => {
            return Err(Error::NotMounted { folder });
        }
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(failed(error.into())),
    };
    lock(&file, &path)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_LEN).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Block::parse(&bytes).map(Some).map_err(|source| Error::Invalid { path, source })
}

fn lock(file: &File, path: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                return Err(Error::Locked { path: path.to_owned() });
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                let source = error.into();
                return Err(Error::Read { path: path.to_owned(), source });
            }
        }
    }
}

/// The name of the value that a kernel is armed by.
pub(crate) use grubenv::ARM;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn host(block: Option<&[u8]>, mounts: Option<&str>) -> (tempfile::TempDir, HostRoot) {
        let folder = tempfile::tempdir().unwrap();
        let root = HostRoot::new(folder.path().to_owned());
        let write = |path: &str, bytes: &[u8]| {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(bytes).unwrap();
        };
        if let Some(block) = block {
            write("/mnt/boot/bootenv", block);
        }
        if let Some(mounts) = mounts {
            write("/proc/mounts", mounts.as_bytes());
        }
        (folder, root)
    }

    #[test]
    fn a_block_is_read_and_a_damaged_one_is_an_error() {
        let (_folder, root) =
            host(Some(b"# GRUB Environment Block\nupgrade_available=1\n###"), None);
        assert!(load(&root).unwrap().unwrap().can_roll_back());
        let (_folder, root) = host(Some(b"nonsense"), None);
        assert!(matches!(load(&root), Err(Error::Invalid { .. })));
    }

    #[test]
    fn no_boot_partition_is_no_block_and_an_unmounted_one_is_an_error() {
        let (_folder, root) = host(None, None);
        assert!(load(&root).unwrap().is_none());
        std::fs::create_dir_all(root.path("/mnt/boot")).unwrap();
        assert!(matches!(load(&root), Err(Error::NotMounted { .. })));
        let (_folder, root) = host(None, Some("/dev/sda1 /mnt/boot vfat rw 0 0\n"));
        std::fs::create_dir_all(root.path("/mnt/boot")).unwrap();
        assert!(load(&root).unwrap().is_none());
    }

    #[test]
    fn a_writer_that_never_lets_go_is_told() {
        let (_folder, root) = host(Some(b"# GRUB Environment Block\n###"), None);
        let writer = File::open(root.path(BOOT).join(NAME)).unwrap();
        rustix::fs::flock(&writer, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(load(&root), Err(Error::Locked { .. })));
    }
}
