//! Supervises descendants: a process adopts those whose parent has died, waits for them, or kills them. Children are
//! the only processes whose pid cannot be reused unnoticed.
#![expect(unsafe_code, reason = "signal(2) has no safe wrapper")]

use crate::host::os::directory;
use crate::host::os::process;
use crate::model::container::exit::Exit;
use nix::sys::signal::{SigHandler, Signal};
use rustix::process::{Pid, Signal as RawSignal, WaitOptions};
use std::io;
use std::time::{Duration, Instant};

/// How long killed processes may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long a single process may take.
const ONE_LIMIT: Duration = Duration::from_secs(2);

/// Makes orphaned descendants children of this process.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Makes the kernel keep the exit statuses of children. If the caller ignores SIGCHLD, this process inherits that, and
/// the kernel discards them (wait(2), NOTES).
pub(crate) fn keep_statuses() -> io::Result<()> {
    // SAFETY: no handler is set.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// Waits for the child `pid`, at most for `limit`; `None` if it has not ended by then.
pub(crate) fn wait(pid: Pid, limit: Duration) -> io::Result<Option<Exit>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some((_, status)) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)? {
            return exit(status.exit_status(), status.terminating_signal()).map(Some);
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How a child has ended, by what wait(2) reports of it.
pub(crate) fn exit(status: Option<i32>, signal: Option<i32>) -> io::Result<Exit> {
    match (status, signal) {
        (Some(status), _) => Ok(Exit::Status(status)),
        (None, Some(signal)) => Ok(Exit::Signal(signal)),
        (None, None) => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Reaps the children that have exited.
pub(crate) fn reap_ended() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// The children of this process, including those that another of its threads started or adopted.
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
    for task in directory::numbers("/proc/self/task")? {
        let listed = std::fs::read_to_string(format!("/proc/self/task/{task}/children"))?;
        let pids = listed.split_ascii_whitespace().map(|pid| Pid::from_raw(pid.parse().ok()?));
        children.extend(pids.flatten());
    }
    Ok(children)
}

/// Kills every child except `spared`, and every process that becomes a child when its parent exits, until none is
/// left. A process that does not exit is given up after a while.
///
/// # Errors
/// The children cannot be found, so some may be left.
pub(crate) fn end_children(spared: &[Pid]) -> io::Result<()> {
    let deadline = Instant::now() + END_LIMIT;
    // A process whose parent ends while `/proc` is walked may be missed once.
    let mut quiet = 0;
    while quiet < 2 && Instant::now() < deadline {
        // Not by the kernel's lists: a child moves to another list when the thread that has it exits.
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

/// Kills the child `pid` and waits a while until it has exited. Afterwards the pid may be that of another process.
pub(crate) fn end(pid: Pid) {
    let _ = rustix::process::kill_process(pid, RawSignal::KILL);
    let _ = wait(pid, ONE_LIMIT);
}
