//! Requests to end this program: SIGTERM, SIGINT or SIGHUP, as a descriptor that every wait of every thread can
//! include. It is never read, so all of them see the signal, from then on.

use crate::host::os::process::{Process, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

const A_DAY: Duration = Duration::from_secs(86_400);

/// Blocked signals that can be waited for.
#[derive(Debug)]
pub(crate) struct Stop(SignalFd);

impl Stop {
    /// Blocks the signals for this thread and those it will start.
    pub(crate) fn listen() -> io::Result<Self> {
        let signals: SigSet =
            [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&signals, flags)?))
    }

    /// For a program that may be interrupted anywhere: the signals keep their effect and end it.
    pub(crate) fn never() -> io::Result<Self> {
        Ok(Self(SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_CLOEXEC)?))
    }

    /// Whether a signal has come.
    pub(crate) fn is_wished(&self) -> bool {
        self.pause(Duration::ZERO)
    }

    /// Waits for `time`, or until a signal comes. True if a signal has come.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
        // If it cannot be polled, the deadline ends the work.
        poll(&mut descriptors, time).is_ok()
            && descriptors.iter().any(|descriptor| !descriptor.revents().is_empty())
    }

    /// Waits, without a limit, until `process` has exited or a signal comes. True if it has exited.
    pub(crate) fn or_end_of(&self, process: &Process) -> io::Result<bool> {
        loop {
            let mut descriptors =
                [PollFd::new(process, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            poll(&mut descriptors, A_DAY)?;
            let [ended, signal] = descriptors.map(|descriptor| !descriptor.revents().is_empty());
            if ended || signal {
                return Ok(ended);
            }
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
