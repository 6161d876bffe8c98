//! The guard: a process between the runtime and a hook. It ends the hook with everything that the hook
//! has started, when the limit is over, when the hook fails, and when the runtime itself has died;
//! nobody else could do the last, and only the parent or subreaper of a process can do it without
//! ever meeting a recycled pid.
//!
//! It also holds the container's lock, so whoever gets the lock knows that no such hook is left.

use crate::host::process::{self, Waited};
use crate::host::spawn::{Program, spawn};
use crate::host::{descriptor, reaper};
use crate::model::hook_failure::Exit;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::net::SendFlags;
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The word that makes the program a guard.
pub(crate) const COMMAND: &str = "hook-guard";
/// Where the guard finds its end of the socket pair, and the lock.
pub(crate) const CONTROL: RawFd = 3;
pub(crate) const LOCK: RawFd = 4;

/// What the guard tells the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Ended(Exit),
    /// execve(2) failed with this errno.
    NotStarted(i32),
    /// The working directory could not be entered.
    NoFolder(i32),
}

impl Report {
    fn to_text(self) -> String {
        match self {
            Self::Ended(Exit::Status(status)) => format!("status {status}"),
            Self::Ended(Exit::Signal(signal)) => format!("signal {signal}"),
            Self::Ended(Exit::OverLimit(limit)) => format!("limit {}", limit.as_millis()),
            Self::NotStarted(errno) => format!("exec {errno}"),
            Self::NoFolder(errno) => format!("chdir {errno}"),
        }
    }

    /// Reads what a guard has sent.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (word, number) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        let number: i32 = number.parse().ok()?;
        Some(match word {
            "status" => Self::Ended(Exit::Status(number)),
            "signal" => Self::Ended(Exit::Signal(number)),
            "limit" => {
                let millis = u64::try_from(number).ok()?;
                Self::Ended(Exit::OverLimit(Duration::from_millis(millis)))
            }
            "exec" => Self::NotStarted(number),
            "chdir" => Self::NoFolder(number),
            _ => return None,
        })
    }
}

/// The guard process itself. `words`: the limit in milliseconds, the working directory, the program,
/// and its whole argument vector. The environment is the hook's.
pub(crate) fn main(words: &[OsString]) -> ExitCode {
    match guard(words) {
        Ok(()) => ExitCode::SUCCESS,
        // The runtime sees that the guard has ended without a report.
        Err(_) => ExitCode::FAILURE,
    }
}

fn guard(words: &[OsString]) -> io::Result<()> {
    let control = descriptor::take(CONTROL)?;
    let lock = descriptor::take(LOCK)?;
    rustix::io::fcntl_setfd(&control, FdFlags::CLOEXEC)?;
    rustix::io::fcntl_setfd(&lock, FdFlags::CLOEXEC)?;
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let [limit, folder, program, arguments @ ..] = words.as_slice() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let limit = limit.parse().map(Duration::from_millis).map_err(io::Error::other)?;
    let report = match rustix::process::chdir(*folder) {
        Err(error) => Report::NoFolder(error.raw_os_error()),
        Ok(()) => run(&control, limit, program, arguments)?,
    };
    rustix::net::send(&control, report.to_text().as_bytes(), SendFlags::NOSIGNAL)?;
    drop(lock);
    Ok(())
}

fn run(
    control: &OwnedFd,
    limit: Duration,
    program: &str,
    arguments: &[&str],
) -> io::Result<Report> {
    // Orphans of the hook become children of this process, where they can be found.
    reaper::adopt_orphans()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    process::give_up_oom_protection()?;
    let deadline = Instant::now() + limit;
    let hook = spawn(&Program {
        path: program,
        arguments,
        environment: &environment()?,
        descriptors: &[],
        blocked: SigSet::empty(),
    });
    let hook = match hook {
        Ok(hook) => hook,
        Err(error) => return Ok(Report::NotStarted(error.raw_os_error().unwrap_or_default())),
    };
    let report = attend(control, hook, deadline);
    if report.is_err() {
        end_everything(hook);
    }
    match report? {
        Some(exit) => Ok(Report::Ended(exit)),
        None => {
            end_everything(hook);
            Ok(Report::Ended(Exit::OverLimit(limit)))
        }
    }
}

/// Waits for the hook; `None` when the limit is over.
fn attend(control: &OwnedFd, hook: Pid, deadline: Instant) -> io::Result<Option<Exit>> {
    let Some(process) = process::open(hook.as_raw_nonzero().get())? else {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    };
    loop {
        let mut descriptors =
            [PollFd::new(&process, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        let left = deadline.saturating_duration_since(Instant::now());
        process::poll(&mut descriptors, left)?;
        let [_, runtime] = &descriptors;
        if !runtime.revents().is_empty() {
            // The runtime has died: nobody waits for a report.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        // Looked at by itself: the hook may have ended in the very moment the limit was over.
        if process.wait_end(Duration::ZERO)? == Waited::Ended {
            return ended(hook).map(Some);
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// The environment as it was handed over, byte for byte: std would drop what has no `=`.
fn environment() -> io::Result<Vec<String>> {
    let bytes = std::fs::read("/proc/self/environ")?;
    let strings = bytes.split(|&byte| byte == 0).filter(|string| !string.is_empty());
    Ok(strings.map(|string| String::from_utf8_lossy(string).into_owned()).collect())
}

/// Reads the exit status of a hook that has ended. Of one that has failed nothing stays; what a
/// successful one has started in the background is its own affair.
fn ended(hook: Pid) -> io::Result<Exit> {
    let peek = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    let status = rustix::process::waitid(rustix::process::WaitId::Pid(hook), peek)?
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let exit = match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Exit::Status(status),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => return Err(io::Error::from(io::ErrorKind::InvalidData)),
    };
    // While its zombie is there, no other process group can have its number.
    if !exit.is_success() {
        end_everything(hook);
    }
    Ok(exit)
}

/// Kills the hook's process group and every descendant, those that left the group included, and
/// waits until none is left.
fn end_everything(hook: Pid) {
    let _ = rustix::process::kill_process_group(hook, Signal::KILL);
    reaper::end_children(&[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_sent() {
        for report in [
            Report::Ended(Exit::Status(3)),
            Report::Ended(Exit::Signal(9)),
            Report::Ended(Exit::OverLimit(Duration::from_millis(1500))),
            Report::NotStarted(8),
            Report::NoFolder(2),
        ] {
            assert_eq!(Report::parse(report.to_text().as_bytes()), Some(report));
        }
        for text in ["", "status", "status x", "frob 1", "limit -1"] {
            assert_eq!(Report::parse(text.as_bytes()), None, "{text}");
        }
    }
}
