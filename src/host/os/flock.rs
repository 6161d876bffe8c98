//! flock(2) without blocking. A loop around it decides how long to wait, and for what else.

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// Tries to lock `file`; whether the lock was taken. `operation` is one of the non-blocking ones.
///
/// # Errors
/// flock(2)'s, except that another process has the lock.
pub(crate) fn try_lock(file: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
