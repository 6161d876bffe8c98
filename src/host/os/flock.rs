//! flock(2) without blocking for ever.

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(10));

/// Tries to lock `file`; false if another process has the lock. `operation` is one of the non-blocking ones.
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

/// Tries until `deadline`, at least once; whether the lock was taken.
pub(crate) fn lock_until(
    file: impl AsFd,
    operation: FlockOperation,
    deadline: Instant,
) -> io::Result<bool> {
    let (mut pause, longest) = PAUSES;
    loop {
        if try_lock(&file, operation)? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}
