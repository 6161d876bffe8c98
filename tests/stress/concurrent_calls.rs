//! Several concurrent calls of the runtime, waited for by one thread in the order in which they end.

use crate::capture::{Output, describe};
use crate::finished::{End, Finished};
use crate::processes::{LIMIT, pid_of};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// The running calls.
#[derive(Default)]
pub(crate) struct ConcurrentCalls {
    running: HashMap<Pid, Member>,
}

struct Member {
    key: usize,
    what: String,
    output: Output,
    since: Instant,
    hung: bool,
}

/// A call that has ended.
pub(crate) struct Ended {
    /// The number under which it was started.
    pub(crate) key: usize,
    pub(crate) finished: Finished,
    pub(crate) took: Duration,
}

impl ConcurrentCalls {
    pub(crate) fn start(&mut self, key: usize, mut command: Command) -> Pid {
        let output = Output::of(&mut command);
        self.admit(key, command, output)
    }

    fn admit(&mut self, key: usize, mut command: Command, output: Output) -> Pid {
        let what = describe(&command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let pid = pid_of(&child);
        let member = Member { key, what, output, since: Instant::now(), hung: false };
        self.running.insert(pid, member);
        pid
    }

    /// Starts all commands at the same instant: each waits in a shell until a pipe is closed.
    pub(crate) fn start_together(&mut self, commands: Vec<Command>) {
        let (gate, opener) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        for (key, command) in commands.into_iter().enumerate() {
            let mut waiting = Command::new("/bin/sh");
            waiting.args(["-c", "read go; exec \"$@\" </dev/null", "sh"]);
            waiting.arg(command.get_program()).args(command.get_args());
            waiting.env_clear().env("PATH", "/usr/bin:/bin");
            let output = Output::of(&mut waiting);
            waiting.stdin(gate.try_clone().unwrap());
            self.admit(key, waiting, output);
        }
        drop(opener);
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// The next call that has ended; `None` if no call is running.
    pub(crate) fn next(&mut self) -> Option<Ended> {
        let mut pause = Duration::from_micros(20);
        while !self.running.is_empty() {
            let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
            let Some((pid, end)) = status.ok().and_then(End::of) else {
                self.kill_hanging();
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(1));
                continue;
            };
            // Other processes are orphans, which only this loop reaps.
            let Some(member) = self.running.remove(&pid) else { continue };
            let end = if member.hung { End::Hung } else { end };
            let finished = member.output.finish(member.what, end);
            return Some(Ended { key: member.key, finished, took: member.since.elapsed() });
        }
        None
    }

    /// Waits for all, in the order of their numbers.
    pub(crate) fn all(&mut self) -> Vec<Ended> {
        let mut ended: Vec<Ended> = std::iter::from_fn(|| self.next()).collect();
        ended.sort_by_key(|ended| ended.key);
        ended
    }

    fn kill_hanging(&mut self) {
        for (pid, member) in &mut self.running {
            if member.since.elapsed() > LIMIT * 3 && !member.hung {
                member.hung = true;
                let _ = kill(*pid, Signal::SIGKILL);
            }
        }
    }
}
