//! Descriptors that are inherited, or passed to a child: the few places that need raw numbers.
#![expect(
    unsafe_code,
    reason = "inherited descriptors are numbers, and close_range(2) has no safe wrapper"
)]

use crate::host::os::directory;
use rustix::fs::FileType;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// The first descriptor after standard input, output and error.
const FIRST: u32 = 3;
/// CLOSE_RANGE_CLOEXEC of close_range(2).
const CLOEXEC: u32 = 1 << 2;

/// Closes every descriptor except the standard ones in the programs that this one will execute. Engines leak
/// theirs: a process that inherits the shim's listening socket keeps containerd waiting for a dead shim.
pub(crate) fn keep_from_children() -> io::Result<()> {
    // SAFETY: sets a flag on descriptors, closes none, and touches no memory.
    let result =
        unsafe { nix::libc::syscall(nix::libc::SYS_close_range, FIRST, u32::MAX, CLOEXEC) };
    if result == 0 { Ok(()) } else { keep_listed_from_children() }
}

/// Linux before 5.11 has no CLOSE_RANGE_CLOEXEC.
fn keep_listed_from_children() -> io::Result<()> {
    let listed = directory::numbers("/proc/self/fd")?;
    let is_ours = |number: &RawFd| u32::try_from(*number).is_ok_and(|number| number >= FIRST);
    for number in listed.into_iter().filter(is_ours) {
        // SAFETY: sets a flag; a number that has been closed since is an error that changes nothing.
        unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Whether standard output and standard error are the same pipe, as with `2>&1 |` and in most test harnesses. Its
/// reader waits until every process has closed it. Engines pass two pipes.
pub(crate) fn output_is_one_pipe() -> bool {
    let (out, err) = (rustix::stdio::stdout(), rustix::stdio::stderr());
    let (Ok(out), Ok(err)) = (rustix::fs::fstat(out), rustix::fs::fstat(err)) else { return false };
    let is_pipe = FileType::from_raw_mode(out.st_mode) == FileType::Fifo;
    is_pipe && (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)
}

/// Takes ownership of the descriptor that the parent has left open as `number`, and keeps it from children.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: sets a flag of a number, which may be no descriptor.
    if unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and called once a number at the start of a child, before anything else
    // could own it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
