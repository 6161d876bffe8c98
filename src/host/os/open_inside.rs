//! Opens a path that must not lead out of a directory.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an open is repeated. Of two tries the second is rarely disturbed as well, even by a process that does
/// nothing but rename.
const LIMIT: Duration = Duration::from_secs(2);

/// openat2(2), repeated while it is disturbed: the kernel cannot resolve a `..` safely while anything on the machine
/// is renamed or mounted, and reports EAGAIN.
///
/// # Errors
/// Those of openat2(2). EAGAIN: the path was disturbed for two seconds.
pub(crate) fn open_inside(
    base: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    inside: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut first_failure = None;
    loop {
        match rustix::fs::openat2(&base, path.as_ref(), flags, Mode::empty(), inside) {
            Err(Errno::AGAIN)
                if first_failure.get_or_insert_with(Instant::now).elapsed() < LIMIT => {}
            result => return result,
        }
    }
}
