//! A boot loader's file, under the lock that its writers respect.

use crate::host::os::flock;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::block::MAX_LEN;
use rustix::fs::{FlockOperation, OFlags};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a writer may hold the lock: it writes the file at once. A program that holds it longer only
/// holds it, for which permission to read the file is enough.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How long the file must stay the same to be accepted without the lock.
const UNCHANGED_FOR: Duration = Duration::from_millis(50);

/// Why a file of a boot loader cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the boot environment {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "the boot environment {path:?} is locked by another program, and its content is changing"
    )]
    Locked { path: PathBuf },
    #[error("cannot open the boot environment {path:?} to change it")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot change the boot environment {path:?}: it is locked by another program")]
    Busy { path: PathBuf },
}

/// Reads a file, up to one byte more than it may have. `None` if it is missing.
///
/// # Errors
/// The file may exist, and its content is unknown.
pub(super) fn read(host: &HostRoot, path: &str) -> Result<Option<Vec<u8>>, Error> {
    let shown = host.display_path(path);
    match open(host, path, OFlags::RDONLY) {
        Ok(file) => read_open(&file, &shown).map(Some),
        Err(error) if is_absence(&error) => Ok(None),
        Err(source) => Err(Error::Read { path: shown, source }),
    }
}

/// Opens a file to change it, and locks it until it is dropped.
pub(super) fn lock(host: &HostRoot, path: &str) -> Result<File, Error> {
    let shown = host.display_path(path);
    let failed = |source| Error::Open { path: shown.clone(), source };
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        let file = open(host, path, OFlags::RDWR).map_err(failed)?;
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        if !flock::lock_until(&file, exclusive, deadline).map_err(failed)? {
            return Err(Error::Busy { path: shown });
        }
        // A program that replaces the file, as `sed -i` does, leaves us the lock of one that has no name any more.
        let named = open(host, path, OFlags::RDONLY).map_err(failed)?;
        if identity(&named).map_err(failed)? == identity(&file).map_err(failed)? {
            return Ok(file);
        }
        if Instant::now() >= deadline {
            return Err(Error::Busy { path: shown });
        }
    }
}

/// Reads a locked file, up to one byte more than it may have.
pub(super) fn read_locked(file: &File, path: &Path) -> Result<Vec<u8>, Error> {
    read_once(file).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn open(host: &HostRoot, path: &str, access: OFlags) -> io::Result<File> {
    let file = File::from(host.open(path, access | OFlags::NONBLOCK | OFlags::NOCTTY)?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Reads the file under the lock. If another program keeps the lock, reads it twice without: a file that is
/// being written changes.
fn read_open(file: &File, path: &Path) -> Result<Vec<u8>, Error> {
    let once = || read_once(file);
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let deadline = Instant::now() + LOCK_LIMIT;
    let lock = flock::lock_until(file, FlockOperation::NonBlockingLockShared, deadline);
    if lock.map_err(failed)? {
        return once().map_err(failed);
    }
    let first = once().map_err(failed)?;
    std::thread::sleep(UNCHANGED_FOR);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn host_with(text: &str) -> (tempfile::TempDir, HostRoot) {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        File::create(host.display_path("/bootenv")).unwrap().write_all(text.as_bytes()).unwrap();
        (folder, host)
    }

    #[test]
    fn only_a_regular_file_is_read_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        File::create(host.display_path("/file")).unwrap().write_all(b"text").unwrap();
        std::fs::create_dir(host.display_path("/folder")).unwrap();
        nix::unistd::mkfifo(&host.display_path("/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read(&host, "/file").unwrap().unwrap(), b"text");
        for path in ["/missing", "/file/below"] {
            assert!(read(&host, path).unwrap().is_none(), "{path}");
        }
        for path in ["/folder", "/fifo"] {
            assert!(matches!(read(&host, path), Err(Error::Read { .. })), "{path}");
        }
    }

    #[test]
    fn a_program_that_only_holds_the_lock_does_not_keep_others_from_reading() {
        let (_folder, root) = host_with("text");
        let holder = File::open(root.display_path("/bootenv")).unwrap();
        rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
        let begun = Instant::now();
        assert_eq!(read(&root, "/bootenv").unwrap().unwrap(), b"text");
        assert!(begun.elapsed() >= LOCK_LIMIT && begun.elapsed() < 3 * LOCK_LIMIT);
    }

    #[test]
    fn a_block_that_is_written_under_the_lock_is_not_accepted() {
        let block = |value: u32| format!("# GRUB Environment Block\nx={value}\n###");
        let (_folder, root) = host_with(&block(1_000_000));
        let writer = File::options().write(true).open(root.display_path("/bootenv")).unwrap();
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
        let loaded = read(&root, "/bootenv");
        drop(done);
        writing.join().unwrap();
        assert!(matches!(loaded, Err(Error::Locked { .. })), "{loaded:?}");
    }

    #[test]
    fn the_lock_is_of_the_file_that_has_the_name() {
        let (_folder, root) = host_with("old");
        let (path, new) = (root.display_path("/bootenv"), root.display_path("/new"));
        let old = File::open(&path).unwrap();
        rustix::fs::flock(&old, FlockOperation::LockExclusive).unwrap();
        File::create(&new).unwrap().write_all(b"new").unwrap();
        let replaced = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            std::fs::rename(new, path).unwrap();
            drop(old);
        });
        let file = lock(&root, "/bootenv").unwrap();
        replaced.join().unwrap();
        assert_eq!(read_locked(&file, Path::new("")).unwrap(), b"new");
        let begun = Instant::now();
        assert!(matches!(lock(&root, "/bootenv"), Err(Error::Busy { .. })));
        assert!(begun.elapsed() >= LOCK_LIMIT);
        drop(file);
        std::fs::remove_file(root.display_path("/bootenv")).unwrap();
        assert!(matches!(lock(&root, "/bootenv"), Err(Error::Open { .. })));
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Read { path, source }, Locked { path }, Open { path, source }, Busy { path },
    }
}
