//! The boot environment block on the boot partition; `model/grubenv.rs` reads its bytes. It is only
//! read here, under the shared lock that its writers respect.

use crate::host::host_root::HostRoot;
use crate::model::grubenv::{self, Block, Invalid, MAX_LEN};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the boot partition is mounted.
const BOOT: &str = "/mnt/boot";
/// The block in it.
const NAME: &str = "bootenv";
/// How long a writer may hold the block: it writes it at once. Longer, and it is somebody who only holds the
/// lock, for which permission to read is enough.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the block must stay the same to be taken without the lock.
const APART: Duration = Duration::from_millis(50);

/// Why the block cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the boot partition is not mounted at {folder:?}, so the boot environment is out of reach"
    )]
    NotMounted { folder: PathBuf },
    #[error("read the boot environment {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the boot environment {path:?} is locked by another program, and is being written")]
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
    let bytes = read(&file, &path)?;
    Block::parse(&bytes).map(Some).map_err(|source| Error::Invalid { path, source })
}

/// Reads the block under the lock, or without it if somebody keeps the lock: then twice, since a block that
/// is being written changes.
fn read(file: &File, path: &Path) -> Result<Vec<u8>, Error> {
    let once = || read_once(file);
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if lock(file).map_err(failed)? {
        return once().map_err(failed);
    }
    let first = once().map_err(failed)?;
    std::thread::sleep(APART);
    match once().map_err(failed)? == first {
        true => Ok(first),
        false => Err(Error::Locked { path: path.to_owned() }),
    }
}

fn read_once(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_LEN).unwrap_or(u64::MAX).saturating_add(1);
    file.rewind()?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Waits for the shared lock; whether it was had.
fn lock(file: &File) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => return Ok(false),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
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
    fn whoever_only_holds_the_lock_keeps_nobody_from_reading() {
        let (_folder, root) =
            host(Some(b"# GRUB Environment Block\nupgrade_available=1\n###"), None);
        let path = root.path(BOOT).join(NAME);
        let holder = File::open(&path).unwrap();
        rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
        let begun = Instant::now();
        assert!(load(&root).unwrap().unwrap().can_roll_back());
        assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < 3 * PATIENCE);
    }

    #[test]
    fn a_block_that_somebody_writes_under_the_lock_is_not_believed() {
        let block = |value: u32| format!("# GRUB Environment Block\nx={value}\n###");
        let (_folder, root) = host(Some(block(1_000_000).as_bytes()), None);
        let path = root.path(BOOT).join(NAME);
        let writer = File::options().write(true).open(&path).unwrap();
        rustix::fs::flock(&writer, FlockOperation::LockExclusive).unwrap();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let writing = std::thread::spawn(move || {
            let pause = Duration::from_millis(5);
            for value in 1_000_001.. {
                if is_done.recv_timeout(pause) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
                let text = block(value);
                std::os::unix::fs::FileExt::write_all_at(&writer, text.as_bytes(), 0).unwrap();
            }
        });
        let loaded = load(&root);
        drop(done);
        writing.join().unwrap();
        assert!(matches!(loaded, Err(Error::Locked { .. })), "{loaded:?}");
    }
}
