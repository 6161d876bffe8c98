//! Process handling for process 1 of a namespace: all processes are its descendants, and all orphans its
//! children. It reaps every process that ends, so that no zombie delays a verb.

use crate::capture::{Output, describe};
use crate::finished::{End, Finished};
use crate::proc_fs;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// No call of these tests takes longer, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Finished {
    run_within(command, LIMIT)
}

/// Runs `command` to its end, or kills it after `limit`.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Finished {
    let output = Output::of(command);
    let what = describe(command);
    let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let pid = pid_of(&child);
    let end = await_end(pid, limit);
    output.finish(what, end)
}

pub(crate) fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Waits for `pid`, and reaps all other processes that end meanwhile.
pub(crate) fn await_end(pid: Pid, limit: Duration) -> End {
    let watch = Watchdog::over(pid, limit);
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => match End::of(status) {
                Some((ended, end)) if ended == pid => return watch.judge(end),
                _ => {}
            },
            Err(Errno::EINTR) => {}
            Err(error) => panic!("waiting for {pid}: {error}"),
        }
    }
}

/// Reaps every orphan that has ended.
pub(crate) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// The pids and command lines of all other processes that have not ended.
pub(crate) fn all() -> Vec<(i32, String)> {
    let others = proc_fs::processes().into_iter().filter(|process| process.0 != 1);
    others.map(|process| (process.0, process.command_line())).collect()
}

/// Kills all other processes, so that the next point begins without any.
pub(crate) fn kill_all() {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = all();
        if left.is_empty() {
            return;
        }
        for (pid, _) in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        reap();
        assert!(Instant::now() < deadline, "processes that cannot be killed: {left:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A thread that kills a process which hangs.
pub(crate) struct Watchdog {
    watched: std::sync::Arc<(Mutex<Watch>, Condvar)>,
}

enum Watch {
    Waiting,
    Bitten,
    Over,
}

impl Watchdog {
    pub(crate) fn over(pid: Pid, limit: Duration) -> Self {
        let watched = std::sync::Arc::new((Mutex::new(Watch::Waiting), Condvar::new()));
        let shared = std::sync::Arc::clone(&watched);
        std::thread::spawn(move || {
            let (watch, changed) = &*shared;
            let guard = watch.lock().unwrap();
            let waiting = |watch: &mut Watch| matches!(watch, Watch::Waiting);
            let (mut watch, outcome) = changed.wait_timeout_while(guard, limit, waiting).unwrap();
            if outcome.timed_out() {
                *watch = Watch::Bitten;
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self { watched }
    }

    /// How the process ended: as observed, or because this killed it.
    pub(crate) fn judge(&self, end: End) -> End {
        let (watch, changed) = &*self.watched;
        let mut watch = watch.lock().unwrap();
        if matches!(*watch, Watch::Bitten) {
            return End::Hung;
        }
        *watch = Watch::Over;
        changed.notify_all();
        end
    }
}
