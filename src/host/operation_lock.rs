//! The operation lock: of all that changes extensions outside the engine, one thing happens at a time.

use crate::host::host_root::HostRoot;
use crate::host::stop::Stop;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
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
        let failed = |source| Error::Open { path: path.clone(), source };
        let folder = host.open(FOLDER, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, NAME, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| failed(error.into()))?;
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

impl AsFd for OperationLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
