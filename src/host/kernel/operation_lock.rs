//! The operation lock: of all that changes extensions outside the engine, one thing happens at a time.

use crate::host::os::host_root::HostRoot;
use crate::host::os::process;
use crate::host::os::signals::Stop;
use crate::host::os::trusted;
use crate::model::container::ownership::Distrust;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The lock's file. It is never unlinked: two programs could each have one then.
const NAME: &str = "balena-extension-manager.lock";
const FOLDER: &str = "/run";
const PAUSE: Duration = Duration::from_millis(50);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct OperationLock(OwnedFd);

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("open the lock {path:?} (are you root?)")]
    Open { path: PathBuf, source: io::Error },
    #[error("the lock {path:?} {why}; remove it")]
    Distrusted { path: PathBuf, why: Distrust },
    #[error("the lock {path:?} is not a regular file; remove it")]
    NotAFile { path: PathBuf },
    #[error("another balena-extension-manager is at work (it holds {path:?})")]
    Busy { path: PathBuf },
    #[error(
        "given up waiting for another balena-extension-manager, because this one was told to end"
    )]
    Stopped,
}

impl OperationLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// It was not had before `deadline`, or the program is to end.
    pub(crate) fn acquire(host: &HostRoot, deadline: Instant, stop: &Stop) -> Result<Self, Error> {
        let path = host.shown(FOLDER).join(NAME);
        let folder = host
            .open(FOLDER, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|source| Error::Open { path: path.clone(), source })?;
        let file = open(folder.as_fd(), &path)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => {
                    return Err(Error::Busy { path });
                }
                Err(Errno::WOULDBLOCK) => {
                    if stop.pause(PAUSE) {
                        return Err(Error::Stopped);
                    }
                }
                Err(error) => return Err(Error::Open { path, source: error.into() }),
            }
        }
    }
}

/// Whoever may write to the file may hold the lock for ever, so it has to be this user's.
fn open(folder: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Error> {
    let failed = |error: Errno| Error::Open { path: path.to_owned(), source: error.into() };
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, NAME, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => file,
        Err(Errno::LOOP | Errno::NXIO) => return Err(Error::NotAFile { path: path.to_owned() }),
        Err(error) => return Err(failed(error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let own = trusted::ownership(&stat).is_of(process::effective_user());
    own.map_err(|why| Error::Distrusted { path: path.to_owned(), why })?;
    Ok(file)
}

impl AsFd for OperationLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Open { path, source }, Distrusted { path, why = Distrust::Names }, NotAFile { path },
        Busy { path }, Stopped,
    }
}
