//! The guard: a process between the runtime and a hook. It kills the hook and everything that the hook started
//! when the time limit has passed, when the hook fails, and when the runtime itself has died. No other process
//! could do the last, and only the parent or subreaper of a process never meets a recycled pid.
//!
//! It also holds the container's lock, so a process that gets the lock knows that no such hook is left.

use crate::host::container::attached::{self, Luggage};
use crate::host::os::descriptor::take;
use crate::host::os::process::{self, Process, Waited};
use crate::host::os::reaper;
use crate::host::os::spawn::{Program, spawn};
use crate::model::container::exit::{Exit, Unrunnable};
use crate::model::text::system_call::RefusedCall;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The word that makes the program a guard.
pub(crate) const COMMAND: &str = "hook-guard";
/// Where the guard finds its end of the socket pair, and the lock.
pub(crate) const CONTROL: RawFd = 3;
pub(crate) const LOCK: RawFd = 4;
/// Where it finds the rootfs and its mount namespace, if [`Entering`] says so.
pub(crate) const ROOTFS: RawFd = 5;
pub(crate) const HOME: RawFd = 6;
/// Where it finds the hook's program, if that is [`BY_DESCRIPTOR`].
pub(crate) const PROGRAM: RawFd = 7;
pub(crate) const BY_DESCRIPTOR: &str = "/proc/self/fd/7";
/// The longest report is shorter: it quotes a path or a few words of a file.
pub(crate) const REPORT_MAX: usize = 16 * 1024;

/// Whether a guard enters the mount namespace of process 1, and with what: one word of its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entering {
    /// The hook runs in the namespace in which the guard was started.
    No,
    /// Process 1 has the rootfs at the same path.
    Alone,
    WithRootfs,
    /// The rootfs is in a third namespace.
    WithRootfsFromHome,
}

impl Entering {
    const ALL: [Self; 4] = [Self::No, Self::Alone, Self::WithRootfs, Self::WithRootfsFromHome];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::No => "stay",
            Self::Alone => "enter",
            Self::WithRootfs => "bring",
            Self::WithRootfsFromHome => "fetch",
        }
    }
}

/// What the guard reports to the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    Ended(Exit),
    /// execve(2) failed. The reason is found in the file itself, where the hook would have run.
    NotStarted(String),
    /// A system call failed before the hook began.
    Refused(RefusedCall),
    /// The hook was killed, since a system call failed that the guard needs to watch it.
    Unwatched(RefusedCall),
}

impl Report {
    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads what a guard has sent.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The guard process itself. `words`: the limit in milliseconds, the word of [`Entering`], the name of the
/// mount point, the working directory, the program, and its whole argument vector. The environment is the
/// hook's.
pub(crate) fn main(words: &[OsString]) -> ExitCode {
    match guard(words) {
        Ok(()) => ExitCode::SUCCESS,
        // The runtime sees that the guard has ended without a report.
        Err(_) => ExitCode::FAILURE,
    }
}

fn guard(words: &[OsString]) -> io::Result<()> {
    let control = take(CONTROL)?;
    let lock = take(LOCK)?;
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let [limit, entering, name, folder, program, arguments @ ..] = words.as_slice() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    // Closed when the hook is executed.
    let opened = if *program == BY_DESCRIPTOR { Some(take(PROGRAM)?) } else { None };
    let limit = limit.parse().map(Duration::from_millis).map_err(io::Error::other)?;
    let entering = Entering::ALL.into_iter().find(|known| known.word() == *entering);
    let entering = entering.ok_or(io::ErrorKind::InvalidInput)?;
    let luggage = Luggage {
        name,
        rootfs: match entering {
            Entering::No | Entering::Alone => None,
            Entering::WithRootfs | Entering::WithRootfsFromHome => Some(take(ROOTFS)?),
        },
        home: match entering {
            Entering::No | Entering::Alone | Entering::WithRootfs => None,
            Entering::WithRootfsFromHome => Some(take(HOME)?),
        },
        folder,
    };
    let report = match prepare(entering, luggage) {
        Err(refusal) => Some(Report::Refused(refusal)),
        Ok(ready) => {
            let report = run(&control, limit, program, arguments, &ready);
            // Before the report: when the verb goes on, nothing of its hook is mounted.
            drop((ready.attached, opened));
            report
        }
    };
    // Nobody waits for the report of a hook whose runtime has died.
    if let Some(report) = report {
        rustix::net::send(&control, &report.to_bytes()?, SendFlags::NOSIGNAL)?;
    }
    drop(lock);
    Ok(())
}

/// What the guard prepares before the hook begins.
struct Ready {
    environment: Vec<String>,
    attached: Option<attached::Attached>,
}

/// Tries every step that this process needs to supervise a hook, before there is one.
fn prepare(entering: Entering, luggage: Luggage<'_>) -> Result<Ready, RefusedCall> {
    let watching = |call| move |error| RefusedCall::new(call, "watch the hook", &error);
    // Orphans of the hook become children of this process, where they can be found.
    reaper::adopt_orphans().map_err(watching("prctl"))?;
    open_pidfd(rustix::process::getpid()).map_err(watching("pidfd_open"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    process::give_up_oom_protection().map_err(|error| {
        RefusedCall::new("write", "give up the engine's protection from the OOM killer", &error)
    })?;
    // Read while `/proc` is the one of this process's own namespace.
    let mut environment = environment()
        .map_err(|error| RefusedCall::new("open", "read /proc/self/environ", &error))?;
    let attached = match entering {
        Entering::No => {
            let entered = rustix::process::chdir(luggage.folder);
            let purpose = || format!("enter the working directory {:?}", luggage.folder);
            entered.map_err(|error| RefusedCall::new("chdir", &purpose(), &error.into()))?;
            None
        }
        Entering::Alone | Entering::WithRootfs | Entering::WithRootfsFromHome => {
            attached::enter(luggage, &mut environment)?
        }
    };
    Ok(Ready { environment, attached })
}

fn open_pidfd(pid: Pid) -> io::Result<Process> {
    let opened = process::open_pidfd(pid.as_raw_nonzero().get())?;
    opened.ok_or_else(|| Errno::SRCH.into())
}

/// Runs the hook; `None` if the runtime has died meanwhile.
fn run(
    control: &OwnedFd,
    limit: Duration,
    program: &str,
    arguments: &[&str],
    ready: &Ready,
) -> Option<Report> {
    let deadline = Instant::now() + limit;
    let hook = spawn(&Program {
        path: program,
        arguments,
        environment: &ready.environment,
        descriptors: &[],
        blocked: SigSet::empty(),
    });
    let hook = match hook {
        Ok(hook) => hook,
        Err(error) => return Some(not_started(program, &error)),
    };
    let report = match open_pidfd(hook) {
        Err(error) => Err(RefusedCall::new("pidfd_open", "watch the hook", &error)),
        Ok(process) => attend(control, hook, &process, deadline)
            .map_err(|error| RefusedCall::new("poll", "watch the hook", &error)),
    };
    match report {
        Ok(Seen::Ended(exit)) => Some(Report::Ended(exit)),
        Ok(Seen::OverLimit) => {
            end_everything(hook);
            Some(Report::Ended(Exit::OverLimit(limit)))
        }
        Ok(Seen::RuntimeDied) => {
            end_everything(hook);
            None
        }
        Err(refusal) => {
            end_everything(hook);
            Some(Report::Unwatched(refusal))
        }
    }
}

/// Why the hook was not started: posix_spawn(3) has the errors of fork(2) and of execve(2) alike.
fn not_started(program: &str, error: &io::Error) -> Report {
    let errno = error.raw_os_error().unwrap_or_default();
    if matches!(errno, EPERM | EAGAIN | ENOSYS) {
        return Report::Refused(RefusedCall::new("fork/execve", "start the hook", error));
    }
    Report::NotStarted(why_unrunnable(program, errno))
}

const EPERM: i32 = Errno::PERM.raw_os_error();
const EAGAIN: i32 = Errno::AGAIN.raw_os_error();
const ENOSYS: i32 = Errno::NOSYS.raw_os_error();

fn why_unrunnable(path: &str, errno: i32) -> String {
    let mut head = Vec::new();
    // A FIFO must not hang the call.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(path, flags, Mode::empty()).map(File::from) {
        // What cannot be read leaves the errno to speak alone.
        let _ = file.take(256).read_to_end(&mut head);
    }
    let machine = rustix::system::uname();
    let machine = machine.machine().to_string_lossy();
    Unrunnable { head: &head, errno, machine: &machine }.to_string()
}

/// What the guard saw of a hook.
enum Seen {
    Ended(Exit),
    OverLimit,
    RuntimeDied,
}

fn attend(control: &OwnedFd, hook: Pid, process: &Process, deadline: Instant) -> io::Result<Seen> {
    loop {
        let mut descriptors =
            [PollFd::new(process, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        let left = deadline.saturating_duration_since(Instant::now());
        process::poll(&mut descriptors, left)?;
        let [_, runtime] = &descriptors;
        if !runtime.revents().is_empty() {
            return Ok(Seen::RuntimeDied);
        }
        // Looked at by itself: the hook may have ended in the very moment the limit was over.
        if process.wait_end(Duration::ZERO)? == Waited::Ended {
            return ended(hook).map(Seen::Ended);
        }
        if Instant::now() >= deadline {
            return Ok(Seen::OverLimit);
        }
    }
}

/// The environment as it was handed over, byte for byte: std would drop what has no `=`.
fn environment() -> io::Result<Vec<String>> {
    let bytes = std::fs::read("/proc/self/environ")?;
    let strings = bytes.split(|&byte| byte == 0).filter(|string| !string.is_empty());
    Ok(strings.map(|string| String::from_utf8_lossy(string).into_owned()).collect())
}

/// Reads the exit status of a hook that has exited. If it failed, everything that it started is killed. Processes
/// that a successful hook started in the background are left alone.
fn ended(hook: Pid) -> io::Result<Exit> {
    let peek = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    let status = rustix::process::waitid(rustix::process::WaitId::Pid(hook), peek)?
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let exit = reaper::exit(status.exit_status(), status.terminating_signal())?;
    // While its zombie is there, no other process group can have its number.
    if !exit.is_success() {
        end_everything(hook);
    }
    Ok(exit)
}

/// Kills the hook's process group and every descendant, including those that left the group, and waits until none
/// is left.
fn end_everything(hook: Pid) {
    let _ = rustix::process::kill_process_group(hook, Signal::KILL);
    reaper::end(hook);
    // `/proc` was there when this process read its environment. Without it the others cannot be found.
    let _ = reaper::end_children(&[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_not_too_long_whatever_it_quotes() {
        for text in ["/", "/\u{1b}", "\"", "\\"] {
            let purpose = format!("open the volume {:?}", text.repeat(50_000));
            let refusal = RefusedCall::new("open", &purpose, &io::Error::from_raw_os_error(36));
            assert!(Report::Refused(refusal).to_bytes().unwrap().len() < REPORT_MAX, "{text}");
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_sent() {
        let refusal = RefusedCall {
            purpose: "enter the working directory \"/a b\"".to_owned(),
            call: "chdir".to_owned(),
            errno: 2,
        };
        for report in [
            Report::Ended(Exit::Status(3)),
            Report::Ended(Exit::Signal(9)),
            Report::Ended(Exit::OverLimit(Duration::from_millis(1500))),
            Report::NotStarted("its interpreter /x is not on this host".to_owned()),
            Report::Refused(refusal.clone()),
            Report::Unwatched(refusal),
        ] {
            assert_eq!(Report::parse(&report.to_bytes().unwrap()), Some(report));
        }
        for text in
            ["", "7", "{}", r#"{"Ended":{"Status":"x"}}"#, r#"{"Frob":1}"#, r#"{"Ended":{"St"#]
        {
            assert_eq!(Report::parse(text.as_bytes()), None, "{text}");
        }
    }
}
