//! Looking after descendants: a process adopts those whose parent has died, waits for them, or ends
//! them. Children are the only processes whose pid cannot be recycled unseen.
#![expect(unsafe_code, reason = "signal(2) has no safe wrapper")]

use crate::host::os::listing;
use crate::host::os::process::{self, Process};
use crate::model::container::exit::Exit;
use crate::model::container::signal;
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal as RawSignal, WaitOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// How long killed processes may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long a single one may take.
const ONE_LIMIT: Duration = Duration::from_secs(2);
/// Longer than any verb takes.
const FOREVER: Duration = Duration::from_secs(86_400);

/// Makes orphaned descendants children of this process.
///
/// # Errors
/// prctl(2)'s.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Keeps the exit statuses of children for this process to read. A caller that ignores SIGCHLD bequeaths
/// that, and then the kernel throws them away (wait(2), NOTES).
///
/// # Errors
/// signal(2)'s.
pub(crate) fn keep_statuses() -> io::Result<()> {
    // SAFETY: no handler is set.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// What would interrupt this process, Ctrl-C and its like, held back for a child. Programs it starts are
/// not affected.
pub(crate) struct Interrupts {
    pending: SignalFd,
}

/// What came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    End,
    Interrupt,
}

impl Interrupts {
    /// Begins to hold.
    ///
    /// # Errors
    /// pthread_sigmask(3)'s or signalfd(2)'s.
    pub(crate) fn hold() -> io::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]
            .into_iter()
            .collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self { pending: SignalFd::with_flags(&signals, flags)? })
    }

    /// Waits for the child `pid`. An interrupt ends it with SIGTERM.
    ///
    /// # Errors
    /// The child cannot be watched; it has ended all the same.
    pub(crate) fn wait(&self, pid: Pid) -> io::Result<Exit> {
        let watched = self.watch(pid);
        if watched.is_err() {
            // Whoever cleans up now must not meet it at work.
            let _ = rustix::process::kill_process(pid, RawSignal::KILL);
        }
        let exit = wait(pid)?;
        watched.map(|()| exit)
    }

    /// Until the child `pid` has ended.
    fn watch(&self, pid: Pid) -> io::Result<()> {
        // It has not been waited for, so the pid is its own.
        if let Some(process) = process::open(pid.as_raw_nonzero().get())? {
            while self.wait_end(&process)? == First::Interrupt {
                process.signal(signal::DEFAULT)?;
            }
        }
        Ok(())
    }

    /// Waits until `process` has ended, however long that takes, or until an interrupt.
    ///
    /// # Errors
    /// poll(2)'s.
    pub(crate) fn wait_end(&self, process: &Process) -> io::Result<First> {
        loop {
            let mut descriptors = [
                PollFd::new(process, PollFlags::IN),
                PollFd::from_borrowed_fd(self.pending.as_fd(), PollFlags::IN),
            ];
            process::poll(&mut descriptors, FOREVER)?;
            let [ended, _] = &descriptors;
            if !ended.revents().is_empty() {
                return Ok(First::End);
            }
            if self.pending.read_signal()?.is_some() {
                return Ok(First::Interrupt);
            }
        }
    }
}

/// Waits for the child `pid`.
///
/// # Errors
/// waitpid(2)'s.
pub(crate) fn wait(pid: Pid) -> io::Result<Exit> {
    let waited =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()))?;
    let (_, status) = waited.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Ok(Exit::Status(status)),
        (None, Some(signal)) => Ok(Exit::Signal(signal)),
        (None, None) => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Takes an adopted child that has ended away. Whoever is no child is left alone.
pub(crate) fn reap(process: &Process) {
    if let Some(pid) = Pid::from_raw(process.pid()) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// The children of this process, whichever of its threads has started or adopted them.
///
/// # Errors
/// They cannot be listed.
pub(crate) fn children() -> io::Result<Vec<Pid>> {
    match listed_children() {
        Ok(children) => Ok(children),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(_) => process::find_children(),
    }
}

/// The children as the kernel lists them, one list for each thread (proc_pid_task(5)).
fn listed_children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for task in listing::numbers("/proc/self/task")? {
        let listed = std::fs::read_to_string(format!("/proc/self/task/{task}/children"))?;
        let pids = listed.split_ascii_whitespace().map(|pid| Pid::from_raw(pid.parse().ok()?));
        children.extend(pids.flatten());
    }
    Ok(children)
}

/// Kills every child but `spared`, and what becomes one as its parent ends, until none is left. A
/// process that the kernel will not let go of is given up after a while.
///
/// # Errors
/// The children cannot be found, so some may be left.
pub(crate) fn end_children(spared: &[Pid]) -> io::Result<()> {
    let deadline = Instant::now() + END_LIMIT;
    // A process whose parent ends while `/proc` is walked may be missed once.
    let mut quiet = 0;
    while quiet < 2 && Instant::now() < deadline {
        // Not by the kernel's lists: a child moves to another one when the thread that has it ends.
        let children = process::find_children()?;
        let doomed: Vec<Pid> =
            children.into_iter().filter(|child| !spared.contains(child)).collect();
        quiet = if doomed.is_empty() { quiet + 1 } else { 0 };
        for child in &doomed {
            let _ = rustix::process::kill_process(*child, RawSignal::KILL);
            let _ = rustix::process::waitpid(Some(*child), WaitOptions::NOHANG);
        }
        if !doomed.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Kills the child `pid` and waits until it has ended, or a while. Afterwards the pid may be another's.
pub(crate) fn end(pid: Pid) {
    let deadline = Instant::now() + ONE_LIMIT;
    let _ = rustix::process::kill_process(pid, RawSignal::KILL);
    while matches!(rustix::process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(None))
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}
