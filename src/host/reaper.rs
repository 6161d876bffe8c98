//! Looking after descendants: a process adopts those whose parent has died, waits for them, or ends
//! them. Children are the only processes whose pid cannot be recycled unseen.

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Pid, Signal as RawSignal, WaitOptions};
use std::io;
use std::time::{Duration, Instant};

/// How long killed processes may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Makes orphaned descendants children of this process.
///
/// # Errors
/// prctl(2)'s.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Keeps Ctrl-C and its like from ending this process. Programs it starts are not affected.
///
/// # Errors
/// pthread_sigmask(3)'s.
pub(crate) fn hold_interrupts() -> io::Result<()> {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
    signals.into_iter().collect::<SigSet>().thread_block()?;
    Ok(())
}

/// Waits until every child has ended.
///
/// # Errors
/// waitpid(2)'s.
pub(crate) fn reap_children() -> io::Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The children of this process, none where the kernel does not list them.
pub(crate) fn children() -> Vec<Pid> {
    let pid = rustix::process::getpid().as_raw_nonzero();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{pid}/children"));
    listed
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// Kills every child but `spared`, and what becomes one as its parent ends, until none is left. A
/// process that the kernel will not let go of is given up after a while.
pub(crate) fn end_children(spared: &[Pid]) {
    let deadline = Instant::now() + END_LIMIT;
    loop {
        let children = children();
        let doomed: Vec<Pid> =
            children.into_iter().filter(|child| !spared.contains(child)).collect();
        if doomed.is_empty() || Instant::now() >= deadline {
            return;
        }
        for child in doomed {
            let _ = rustix::process::kill_process(child, RawSignal::KILL);
            let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
