//! The processes of a view (`host/os/root_view.rs`): this program starts itself as process 1 of a PID namespace, which
//! makes the view, runs a command in it, and adopts its orphans. When process 1 ends, the kernel ends all the others.
//!
//! Process 1 ends with this program, however that ends. It is no session of its own, so that the terminal's keys reach
//! the command; process 1 itself gets no signal that it has no handler for, except from here.

use crate::host::os::descriptor::take;
use crate::host::os::log::Log;
use crate::host::os::process;
use crate::host::os::reaper;
use crate::host::os::root_view::{self, HiddenMount, ViewChanges, ViewError, ViewLayer};
use crate::host::os::stdio;
use crate::model::container::exit::Exit;
use crate::model::text::cause::{chain, in_words};
use crate::model::text::log::{Format, Level};
use crate::model::text::system_call::RefusedCall;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal as RawSignal, WaitOptions};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// The word that makes the program process 1 of a view.
pub(crate) const COMMAND: &str = "view-process";
/// The exit statuses if the command was not run, as those of `docker run`: the view cannot be made, the command cannot be
/// executed, and there is no such command.
pub(crate) const NOT_MADE: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NO_COMMAND: u8 = 127;
/// Added to the number of the signal that has killed the command.
const KILLED: u8 = 128;
/// No message through a socket is longer, with the kernel's own limit.
const REQUEST_MAX: usize = 256 * 1024;

/// What process 1 does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ViewRequest {
    /// The topmost first.
    pub(crate) layers: Vec<ViewLayer>,
    pub(crate) changes: ViewChanges,
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
    pub(crate) shows_warnings: bool,
}

/// Why process 1 of a view was not started, or how it ended is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewProcessError {
    #[error("{call}")]
    Refused { call: RefusedCall },
    #[error("cannot describe the view to the process that makes it")]
    Describe { source: io::Error },
    #[error("cannot start the process that makes the view")]
    Start { source: io::Error },
    #[error("cannot wait for the process that makes the view")]
    Wait { source: io::Error },
}

/// Runs the command of `request` in a view, to its end. `program` is the name of this program for `ps`. Returns the exit
/// status.
///
/// # Errors
/// No process of the view is left.
pub(crate) fn run(request: &ViewRequest, program: &str) -> Result<u8, ViewProcessError> {
    let describe = |source| ViewProcessError::Describe { source };
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| describe(error.into()))?;
    let bytes = serde_json::to_vec(request).map_err(|error| describe(error.into()))?;
    rustix::net::send(&here, &bytes, SendFlags::NOSIGNAL)
        .map_err(|error| describe(error.into()))?;
    rustix::io::fcntl_setfd(&there, FdFlags::empty()).map_err(|error| describe(error.into()))?;
    // The keys of the terminal are for the command, which gets them as well.
    let starting = |source| ViewProcessError::Start { source };
    keys().thread_block().map_err(|error| starting(error.into()))?;
    // For the children of this process, not for itself.
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).map_err(|error| {
        let purpose = "make a PID namespace for the view";
        ViewProcessError::Refused { call: RefusedCall::new("unshare", purpose, &error.into()) }
    })?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(program)
        .arg(COMMAND)
        .arg(there.as_raw_fd().to_string())
        .spawn()
        .map_err(starting)?;
    drop(there);
    let status = child.wait().map_err(|source| ViewProcessError::Wait { source })?;
    drop(here);
    let status = reaper::exit(status.code(), status.signal());
    status.map(exit_code).map_err(|source| ViewProcessError::Wait { source })
}

/// SIGINT and SIGQUIT.
fn keys() -> SigSet {
    [Signal::SIGINT, Signal::SIGQUIT].into_iter().collect()
}

fn exit_code(exit: Exit) -> u8 {
    match exit {
        Exit::Status(status) => u8::try_from(status).unwrap_or(u8::MAX),
        Exit::Signal(signal) => KILLED.saturating_add(u8::try_from(signal).unwrap_or_default()),
        Exit::OverLimit(_) => NOT_MADE,
    }
}

/// Process 1 of a view. `words`: the number of the socket.
pub(crate) fn main(words: &[OsString]) -> ExitCode {
    let status = match be_process_one(words) {
        Ok(status) => status,
        Err(failure) => {
            stdio::complain(&chain(&failure));
            failure.status()
        }
    };
    ExitCode::from(status)
}

/// Why process 1 does not run the command.
#[derive(Debug, thiserror::Error)]
enum ViewFailure {
    #[error("cannot read the description of the view")]
    Request { source: io::Error },
    #[error("cannot make the process of the view end with the manager")]
    Parent { source: io::Error },
    #[error("the manager has ended before the view was made")]
    Orphan,
    #[error("cannot make the view")]
    View { source: ViewError },
    #[error("cannot run {command:?} in the view: {why}")]
    Command { command: String, why: String, status: u8 },
    #[error("cannot wait for the command")]
    Wait { source: io::Error },
}

impl ViewFailure {
    fn status(&self) -> u8 {
        match self {
            Self::Command { status, .. } => *status,
            Self::Request { .. }
            | Self::Parent { .. }
            | Self::Orphan
            | Self::View { .. }
            | Self::Wait { .. } => NOT_MADE,
        }
    }
}

fn be_process_one(words: &[OsString]) -> Result<u8, ViewFailure> {
    let end_with_parent = rustix::process::set_parent_process_death_signal(Some(RawSignal::KILL));
    end_with_parent.map_err(|error| ViewFailure::Parent { source: error.into() })?;
    let (manager, request) = receive(words).map_err(|source| ViewFailure::Request { source })?;
    // The parent of process 1 is in another PID namespace, so its number shows nothing.
    let mut ends = [PollFd::new(&manager, PollFlags::IN)];
    let ended = process::poll(&mut ends, Duration::ZERO);
    if ended.map_err(|source| ViewFailure::Parent { source })? > 0 {
        return Err(ViewFailure::Orphan);
    }
    let hidden = root_view::enter(&request.layers, request.changes);
    let hidden = hidden.map_err(|source| ViewFailure::View { source })?;
    if request.shows_warnings {
        let log = Log::to_stderr(Format::Text, Level::Warn);
        for HiddenMount { point, why } in hidden {
            log.warn(&format!("the mount of {point:?} is not in the view: {why}"));
        }
    }
    run_command(&request.command)
}

fn receive(words: &[OsString]) -> io::Result<(OwnedFd, ViewRequest)> {
    let number = words.first().and_then(|word| word.to_str()).and_then(|word| word.parse().ok());
    let socket = take(number.ok_or(io::ErrorKind::InvalidInput)?)?;
    let mut bytes = vec![0; REQUEST_MAX];
    let (_, len) = rustix::net::recv(&socket, bytes.as_mut_slice(), RecvFlags::TRUNC)?;
    let bytes = bytes.get(..len).ok_or(io::ErrorKind::FileTooLarge)?;
    Ok((socket, serde_json::from_slice(bytes)?))
}

/// Runs the command to its end. Its environment, its standard streams and its terminal are those of the manager's caller.
fn run_command(words: &[OsString]) -> Result<u8, ViewFailure> {
    keys().thread_unblock().map_err(|error| ViewFailure::Wait { source: error.into() })?;
    let Some((program, arguments)) = words.split_first() else {
        return Err(ViewFailure::Request { source: io::ErrorKind::InvalidInput.into() });
    };
    let started = Command::new(program).args(arguments).spawn();
    let child = started.map_err(|error| ViewFailure::Command {
        command: program.to_string_lossy().into_owned(),
        why: in_words(&error),
        status: match error.kind() == io::ErrorKind::NotFound {
            true => NO_COMMAND,
            false => NOT_EXECUTABLE,
        },
    })?;
    loop {
        let ended = rustix::process::wait(WaitOptions::empty());
        let (pid, status) = match ended {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(Errno::INTR) => continue,
            Err(error) => return Err(ViewFailure::Wait { source: error.into() }),
        };
        if u32::try_from(pid.as_raw_nonzero().get()) == Ok(child.id()) {
            let exit = reaper::exit(status.exit_status(), status.terminating_signal());
            return exit.map(exit_code).map_err(|source| ViewFailure::Wait { source });
        }
    }
}

#[cfg(test)]
fn a_call() -> RefusedCall {
    RefusedCall::new("unshare", "PURPOSE", &io::Error::from_raw_os_error(1))
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum ViewProcessError {
        Refused { call = a_call() }, Describe { source }, Start { source }, Wait { source },
    }
    enum ViewFailure {
        Request { source }, Parent { source }, Orphan, View { source = ViewError::NoRoot },
        Command { command, why, status = NO_COMMAND }, Wait { source },
    }
}
