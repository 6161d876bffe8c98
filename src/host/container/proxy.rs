//! The proxy: the process that gives the engine a PID between create and start, and how `create` starts it.
//!
//! A socket pair ties the proxy to `create`. The proxy reports over it when it is ready, and exits if `create` ends,
//! in whatever way, without having sent "complete". Until then the proxy also shares the container's lock, so a process
//! that gets the lock knows that no such proxy is left.

#![expect(unsafe_code, reason = "signal(2) and sigtimedwait(3) have no safe wrappers")]

use crate::host::container::sandbox;
use crate::host::os::descriptor;
use crate::host::os::process::{self, Process, Waited};
use crate::host::os::reaper;
use crate::host::os::spawn::{Pid, Program, spawn as spawn_program};
use crate::model::container::exit::Exit;
use crate::model::container::proxy::{Identity, PROGRAM, RefusedStep, Step};
use crate::model::extension::hook::PATH;
use crate::model::text::system_call::why;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::Duration;

/// The numbers of the proxy's end of the socket pair and of the lock.
const CONTROL: RawFd = 3;
const LOCK: RawFd = 4;
const READY: u8 = b'r';
const COMPLETE: u8 = b'c';
/// A proxy is usually ready within a millisecond, but a machine that swaps may take long.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// The longest time that a killed process may take to exit.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait until a killed proxy is reaped. Engines refuse to delete the container before that.
const REAP_LIMIT: Duration = Duration::from_millis(200);

const SIGKILL: i32 = 9;
/// The same number on every supported machine.
const SIGSYS: i32 = 31;

/// Why a proxy could not be started, watched or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start the proxy process")]
    Spawn { source: io::Error },
    #[error("the proxy process exited before create was complete")]
    NotReady,
    #[error("the proxy process {}", ended_in_words(exit.as_ref()))]
    Ended { exit: Option<Exit> },
    #[error("the proxy process could not {}", refusal_in_words(*step, *errno))]
    Refused { step: Step, errno: i32 },
    #[error("the proxy process was not ready within {} s", READY_LIMIT.as_secs())]
    Slow,
    #[error("cannot watch the proxy process")]
    Watch { source: io::Error },
    #[error("cannot kill the proxy process {pid}")]
    Kill { pid: i32, source: io::Error },
    #[error("the proxy process {pid} still exists {} s after SIGKILL", END_LIMIT.as_secs())]
    Immortal { pid: i32 },
}

/// A proxy whose `create` is not complete yet.
pub(crate) struct Spawned {
    /// The identity to record.
    pub(crate) identity: Identity,
    pub(crate) process: Process,
    control: OwnedFd,
}

/// The proxy's standard input, output and error.
#[derive(Clone, Copy)]
pub(crate) enum Stdio<'a> {
    /// Those of `create`, which are the container's.
    Inherited,
    /// The slave of the container's pty.
    Pty(BorrowedFd<'a>),
    /// The standard input of `create`; standard output and error are this descriptor of `/dev/null`.
    Silent(BorrowedFd<'a>),
}

/// Starts the proxy of container `id`. After an error no process is left.
pub(crate) fn spawn(id: &str, stdio: Stdio<'_>, lock: BorrowedFd<'_>) -> Result<Spawned, Error> {
    // Without /proc this program cannot start itself, and cannot watch the proxy.
    process::check_proc().map_err(|source| Error::Spawn { source })?;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (control, theirs) = pair.map_err(|error| Error::Spawn { source: error.into() })?;
    let mut descriptors = vec![(theirs.as_fd(), CONTROL), (lock, LOCK)];
    match stdio {
        Stdio::Inherited => {}
        Stdio::Pty(slave) => descriptors.extend([(slave, 0), (slave, 1), (slave, 2)]),
        Stdio::Silent(null) => descriptors.extend([(null, 1), (null, 2)]),
    }
    let pid = spawn_program(&Program {
        path: "/proc/self/exe",
        arguments: &[PROGRAM, "proxy", "--id", id],
        environment: &[PATH.to_owned()],
        descriptors: &descriptors,
        // Inherited over execve(2), so that a signal that comes early stays pending.
        blocked: signals(),
    })
    .map_err(|source| Error::Spawn { source })?;
    // A child keeps its pid until it is reaped, so none of the following can reach another process.
    let watch = |source| Error::Watch { source };
    let ended = || Error::Ended { exit: exit_of(pid) };
    let number = pid.as_raw_nonzero().get();
    let process = process::open(number).map_err(watch)?.ok_or_else(ended)?;
    let stat = process.stat().map_err(watch)?.ok_or_else(ended)?;
    let pid = number;
    Ok(Spawned { identity: Identity { pid, start_time: stat.start_time }, process, control })
}

impl Spawned {
    fn wait_ready(&self) -> Result<(), Error> {
        let mut descriptors = [PollFd::new(&self.control, PollFlags::IN)];
        let ready = process::poll(&mut descriptors, READY_LIMIT)
            .map_err(|source| Error::Watch { source })?;
        if ready == 0 {
            return Err(Error::Slow);
        }
        let mut word = [0; RefusedStep::LEN];
        match rustix::io::read(&self.control, &mut word) {
            Ok(1) if word.starts_with(&[READY]) => Ok(()),
            Ok(len) => Err(refused(word.get(..len)).unwrap_or_else(|| self.ended())),
            Err(_) => Err(self.ended()),
        }
    }

    /// The error for a proxy that has closed its end of the socket pair: how it ended.
    fn ended(&self) -> Error {
        let Some(pid) = Pid::from_raw(self.identity.pid) else {
            return Error::NotReady;
        };
        match self.process.wait_end(END_LIMIT) {
            Ok(Waited::Ended) => Error::Ended { exit: exit_of(pid) },
            Ok(Waited::StillThere) | Err(_) => Error::NotReady,
        }
    }

    /// The step that the kernel refused the proxy, if it has exited because of that. It is the cause of any other
    /// failure with the proxy.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let (mut word, flags) = ([0; RefusedStep::LEN], RecvFlags::DONTWAIT);
        let (len, _) = rustix::net::recv(&self.control, &mut word[..], flags).ok()?;
        refused(word.get(..len))
    }

    /// Waits until the proxy is ready, and sends "complete", so that it survives the end of `create`.
    pub(crate) fn complete(&self) -> Result<(), Error> {
        self.wait_ready()?;
        match rustix::net::send(&self.control, &[COMPLETE], rustix::net::SendFlags::NOSIGNAL) {
            Ok(1) => Ok(()),
            Ok(_) | Err(_) => Err(Error::NotReady),
        }
    }

    /// Kills the proxy, which is a child of this process, and waits until it has exited.
    pub(crate) fn kill(self) -> Result<(), Error> {
        let pid = self.identity.pid;
        end(&self.process)?;
        // Reaped, because a caller like `run` continues and would keep a zombie.
        let _ = Pid::from_raw(pid).map(|pid| reaper::wait(pid, Duration::ZERO));
        Ok(())
    }
}

/// Explains an early exit. The child's exit status is the only evidence.
fn ended_in_words(exit: Option<&Exit>) -> String {
    let how = exit.map_or_else(|| "ended".to_owned(), ToString::to_string);
    let why = match exit {
        Some(Exit::Signal(SIGKILL)) => {
            ": another process killed it, or the kernel ran out of memory (see `dmesg`)"
        }
        Some(Exit::Signal(SIGSYS)) => {
            ": a seccomp profile around the engine kills it for a system call that it needs"
        }
        Some(Exit::Status(_) | Exit::Signal(_) | Exit::OverLimit(_)) | None => "",
    };
    format!("{how} before it was ready{why}")
}

/// How a proxy that has ended did so, if that can be determined.
fn exit_of(pid: Pid) -> Option<Exit> {
    reaper::wait(pid, END_LIMIT).ok().flatten()
}

fn refusal_in_words(step: Step, errno: i32) -> String {
    let (call, words) = step.call_and_words();
    format!("{words}: {}", why(call, errno))
}

fn refused(word: Option<&[u8]>) -> Option<Error> {
    let RefusedStep { step, errno } = RefusedStep::parse(word?)?;
    Some(Error::Refused { step, errno })
}

/// Kills a proxy that was found by its identity. Waits until it has exited and, for a short time, until it is reaped.
pub(crate) fn kill(process: &Process) -> Result<(), Error> {
    end(process)?;
    process.wait_reaped(REAP_LIMIT);
    Ok(())
}

fn end(process: &Process) -> Result<(), Error> {
    let pid = process.pid();
    process.kill().map_err(|source| Error::Kill { pid, source })?;
    match process.wait_end(END_LIMIT).map_err(|source| Error::Watch { source })? {
        Waited::Ended => Ok(()),
        Waited::StillThere => Err(Error::Immortal { pid }),
    }
}

/// The signals that the proxy waits for, each with the resulting exit status.
const ANSWERS: [(Signal, u8); 4] =
    [(Signal::SIGUSR1, 0), (Signal::SIGUSR2, 1), (Signal::SIGTERM, 0), (Signal::SIGINT, 0)];

fn signals() -> SigSet {
    ANSWERS.iter().map(|(signal, _)| *signal).collect()
}

/// The main of the proxy process.
pub(crate) fn main() -> ExitCode {
    match wait_for_signal() {
        Ok(status) => ExitCode::from(status),
        Err(_) => ExitCode::FAILURE,
    }
}

fn wait_for_signal() -> io::Result<u8> {
    let control = descriptor::take(CONTROL)?;
    let lock = descriptor::take(LOCK)?;
    // Executed through `/proc/self/exe`, its name would be "exe".
    let _ = rustix::thread::set_name(c"balena-extensio");
    let waiter = match prepare() {
        Ok(waiter) => waiter,
        Err((step, error)) => {
            let refusal = RefusedStep { step, errno: error.raw_os_error().unwrap_or_default() };
            let flags = rustix::net::SendFlags::NOSIGNAL;
            // `create` may have ended already.
            let _ = rustix::net::send(&control, &refusal.to_bytes(), flags);
            return Err(error);
        }
    };
    rustix::io::write(&control, &[READY])?;
    let mut word = [0];
    loop {
        match rustix::io::read(&control, &mut word) {
            Ok(1) if word == [COMPLETE] => break,
            // `create` has ended before it was complete: no command would ever stop this process.
            Ok(_) => return Ok(1),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    drop(lock);
    drop(control);
    let signal = waiter.wait()?;
    let answer = ANSWERS.iter().find(|(known, _)| Signal::try_from(signal) == Ok(*known));
    answer.map(|(_, status)| *status).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// How the proxy waits for its signals, which are blocked.
enum Waiter {
    /// By rt_sigtimedwait(2); no signal is pending yet.
    Call,
    /// This signal was pending already, so there is nothing to wait for.
    Came(i32),
    /// By a signalfd(2), where rt_sigtimedwait is refused, mostly by a seccomp profile around the engine.
    Descriptor(SignalFd),
}

impl Waiter {
    /// Tries the call without waiting, because a proxy that cannot wait must not become ready.
    fn try_out() -> io::Result<Self> {
        let now = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
        match wait_call(Some(&now)) {
            Ok(signal) => Ok(Self::Came(signal)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Self::Call),
            Err(_) => {
                Ok(Self::Descriptor(SignalFd::with_flags(&signals(), SfdFlags::SFD_CLOEXEC)?))
            }
        }
    }

    /// Waits for a signal, and returns its number.
    fn wait(&self) -> io::Result<i32> {
        match self {
            Self::Call => wait_call(None),
            Self::Came(signal) => Ok(*signal),
            Self::Descriptor(descriptor) => loop {
                match descriptor.read_signal() {
                    Ok(Some(signal)) => {
                        return i32::try_from(signal.ssi_signo).map_err(io::Error::other);
                    }
                    Ok(None) | Err(nix::Error::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            },
        }
    }
}

/// sigtimedwait(3) for the signals of the proxy, without a limit if there is none.
fn wait_call(limit: Option<&nix::libc::timespec>) -> io::Result<i32> {
    let (signals, limit) = (signals(), limit.map_or(std::ptr::null(), std::ptr::from_ref));
    loop {
        // SAFETY: both pointers are valid for the call or null, which it accepts; nothing is written.
        let signal =
            unsafe { nix::libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), limit) };
        if signal > 0 {
            return Ok(signal);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn prepare() -> Result<Waiter, (Step, io::Error)> {
    sandbox::forbid_inspection().map_err(|error| (Step::Inspection, error))?;
    // SAFETY: no handler is set. Rust's start-up code ignores the signal.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }
        .map_err(|error| (Step::Signals, error.into()))?;
    rustix::process::chdir("/").map_err(|error| (Step::Directory, error.into()))?;
    let waiter = Waiter::try_out().map_err(|error| (Step::Waiting, error))?;
    sandbox::enter()?;
    Ok(waiter)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Spawn { source }, NotReady, Ended { exit = Some(Exit::Status(7)) },
        Refused { step = Step::Waiting, errno }, Slow, Watch { source }, Kill { pid, source },
        Immortal { pid },
    }
}
