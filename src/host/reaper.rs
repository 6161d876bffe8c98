//! What a process does that waits for others on a person's behalf.

use nix::sys::signal::{SigSet, Signal};
use rustix::process::WaitOptions;
use std::io;

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
