//! The operation lock: only one program at a time changes extensions without the engine.

use crate::host::os::flock;
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

/// The lock's file. It is never unlinked: otherwise two programs could each lock a file of this name.
const NAME: &str = "balena-extension-manager.lock";
const DIRECTORY: &str = "/run";
/// Pause between two attempts to take the lock.
const PAUSE: Duration = Duration::from_millis(50);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct OperationLock(OwnedFd);

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot open the lock {path:?} (are you root?)")]
    Open { path: PathBuf, source: io::Error },
    #[error("the lock {path:?} {why}; remove it")]
    Distrusted { path: PathBuf, why: Distrust },
    #[error("the lock {path:?} is not a regular file; remove it")]
    NotAFile { path: PathBuf },
    #[error("another balena-extension-manager is running (it holds {path:?})")]
    Busy { path: PathBuf },
    #[error("stopped by a signal while another balena-extension-manager held the lock")]
    Stopped,
}

impl OperationLock {
    /// Waits for the lock.
    pub(crate) fn acquire(host: &HostRoot, deadline: Instant, stop: &Stop) -> Result<Self, Error> {
        let path = host.display_path(DIRECTORY).join(NAME);
        let failed = |source| Error::Open { path: path.clone(), source };
        let directory = host.open(DIRECTORY, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        let file = open(directory.as_fd(), &path)?;
        while !flock::try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)? {
            if Instant::now() >= deadline {
                return Err(Error::Busy { path });
            }
            if stop.pause(PAUSE) {
                return Err(Error::Stopped);
            }
        }
        Ok(Self(file))
    }
}

/// Opens the lock's file. It must belong to this user: anybody who can write to it could hold the lock for ever.
fn open(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Error> {
    let failed = |error: Errno| Error::Open { path: path.to_owned(), source: error.into() };
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, NAME, flags, Mode::from_raw_mode(0o600)) {
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
