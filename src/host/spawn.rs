//! Starting a program with posix_spawn(3): no fork of this process's memory, and nothing of the
//! caller reaches the child but what is named here.

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::Signal;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

pub(crate) use nix::sys::signal::SigSet;
pub(crate) use rustix::process::Pid;

/// POSIX_SPAWN_SETSID, which nix does not name (`<spawn.h>` of glibc and musl).
const SETSID: i32 = 0x80;
/// Above every number that a child is given descriptors under.
const ABOVE_TARGETS: RawFd = 10;

/// A program to start in a session of its own, all signals at their default.
pub(crate) struct Program<'a> {
    pub(crate) path: &'a str,
    /// The whole argument vector.
    pub(crate) arguments: &'a [&'a str],
    /// The whole environment.
    pub(crate) environment: &'a [String],
    /// Which descriptor the child has under which number; standard ones that are not named are
    /// inherited.
    pub(crate) descriptors: &'a [(BorrowedFd<'a>, RawFd)],
    /// The signals that start out blocked.
    pub(crate) blocked: SigSet,
}

/// Starts `program` and returns its pid. Returns once the program runs.
///
/// # Errors
/// Those of execve(2) included; then no process is left.
pub(crate) fn spawn(program: &Program<'_>) -> io::Result<Pid> {
    let arguments = c_strings(program.arguments.iter().map(OsStr::new))?;
    let environment = c_strings(program.environment.iter().map(OsStr::new))?;
    let mut actions = PosixSpawnFileActions::init()?;
    let mut lifted = Vec::new();
    for (source, target) in program.descriptors {
        // Out of the way, or one duplication would overwrite the source of the next.
        let source = rustix::io::fcntl_dupfd_cloexec(source, ABOVE_TARGETS)?;
        actions.add_dup2(source.as_raw_fd(), *target)?;
        lifted.push(source);
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::from_bits_retain(SETSID.into_flag()),
    )?;
    attributes.set_sigmask(&program.blocked)?;
    attributes.set_sigdefault(&every_signal_that_can_be_ignored())?;
    let pid = posix_spawn(program.path, &actions, &attributes, &arguments, &environment)?;
    Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::other("posix_spawn returned no pid"))
}

/// The type of the flags differs between glibc and musl.
trait IntoFlag<T> {
    fn into_flag(self) -> T;
}

impl IntoFlag<i16> for i32 {
    fn into_flag(self) -> i16 {
        i16::try_from(self).unwrap_or_default()
    }
}

impl IntoFlag<i32> for i32 {
    fn into_flag(self) -> i32 {
        self
    }
}

fn every_signal_that_can_be_ignored() -> SigSet {
    let mut set = SigSet::empty();
    Signal::iterator()
        .filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP))
        .for_each(|signal| set.add(signal));
    set
}

fn c_strings<'a>(texts: impl Iterator<Item = &'a OsStr>) -> io::Result<Vec<CString>> {
    texts
        .map(|text| CString::new(text.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| io::Error::other("a NUL byte in an argument or in the environment"))
}
