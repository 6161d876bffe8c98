//! Starts a program with posix_spawn(3), which does not copy this process's memory. The child inherits nothing
//! except what [`Program`] names.

use crate::host::os::process;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::Signal;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

pub(crate) use nix::sys::signal::SigSet;
pub(crate) use rustix::process::Pid;

/// POSIX_SPAWN_SETSID, which nix does not name (`<spawn.h>` of glibc and musl).
const SETSID: u8 = 0x80;
/// glibc reserves the two signals before it.
const FIRST_REAL_TIME: i32 = 34;
/// Above every number of a descriptor that a child gets.
const ABOVE_TARGETS: RawFd = 10;

/// A program to start in a session of its own, with default signal handling.
pub(crate) struct Program<'a> {
    pub(crate) path: &'a str,
    /// The whole argument vector.
    pub(crate) arguments: &'a [&'a str],
    /// The whole environment.
    pub(crate) environment: &'a [String],
    /// The child's descriptors, each with its number there. Standard ones that are not listed are inherited.
    pub(crate) descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// The signals that are blocked in the child.
    pub(crate) blocked: SigSet,
}

/// Starts `program` and returns its pid, after execve(2) has succeeded. After an error no process is left.
pub(crate) fn spawn(program: &Program<'_>) -> io::Result<Pid> {
    let arguments = c_strings(program.arguments.iter().map(OsStr::new))?;
    let environment = c_strings(program.environment.iter().map(OsStr::new))?;
    let mut actions = PosixSpawnFileActions::init()?;
    let mut lifted = Vec::new();
    for (source, target) in program.descriptors {
        // Moved up first: otherwise one dup2 could overwrite the source of the next.
        let source = rustix::io::fcntl_dupfd_cloexec(source, ABOVE_TARGETS)?;
        actions.add_dup2(source.as_raw_fd(), *target)?;
        lifted.push(source);
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::from_bits_retain(SETSID.into()),
    )?;
    attributes.set_sigmask(&program.blocked)?;
    // musl's child makes one system call for each signal in this set. glibc's makes one for each signal in it, and two
    // for each other signal.
    let ignored = if cfg!(target_env = "musl") { process::ignored_signals() } else { None };
    attributes.set_sigdefault(&to_reset(ignored))?;
    let pid = posix_spawn(program.path, &actions, &attributes, &arguments, &environment)?;
    Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::other("posix_spawn returned no pid"))
}

/// The signals to reset. execve(2) removes handlers, so only the `ignored` signals need it. All signals are reset if
/// those are not known, or contain a real-time signal, for which nix has no name.
fn to_reset(ignored: Option<u64>) -> SigSet {
    let is_ignored = |ignored: u64, number: i32| (ignored >> (number - 1)) & 1 == 1;
    match ignored.filter(|ignored| ignored >> (FIRST_REAL_TIME - 1) == 0) {
        Some(ignored) => (1..FIRST_REAL_TIME)
            .filter(|&number| is_ignored(ignored, number))
            .filter_map(|number| Signal::try_from(number).ok())
            .collect(),
        None => {
            let mut every = SigSet::all();
            every.remove(Signal::SIGKILL);
            every.remove(Signal::SIGSTOP);
            every
        }
    }
}

fn c_strings<'a>(texts: impl Iterator<Item = &'a OsStr>) -> io::Result<Vec<CString>> {
    texts
        .map(|text| CString::new(text.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| io::Error::other("a NUL byte in an argument or in the environment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_reset_and_what_nix_cannot_name_with_all_others() {
        let few = to_reset(Some(1 << 12 | 1 << 9 | 0b11 << 31));
        assert_eq!(few, [Signal::SIGPIPE, Signal::SIGUSR1].into_iter().collect());
        let all = to_reset(None);
        assert_eq!(to_reset(Some(1 << 35 | 1 << 12)), all);
        assert!(Signal::iterator().all(|signal| {
            all.contains(signal) != matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)
        }));
    }
}
