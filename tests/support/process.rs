//! The processes that a test starts, and the orphans of these.
//!
//! A proxy outlives the `create` that starts it and becomes a child of the nearest subreaper. An engine's shim
//! is one, and so is this program if it adopts orphans, so that it can read the exit status of a proxy. Several
//! tests run concurrently, so no test may wait for "any child": a test waits for the processes that it has
//! started. All others are reaped here, and their statuses are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use super::finished::End;
use super::proc_fs::Process;

/// Nothing takes longer, even on a slow machine, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Known {
    adopting: bool,
    /// Processes that a test has started and will wait for.
    started: BTreeSet<i32>,
    /// The orphans that have ended, with their exit statuses as a shell reports them.
    ended: BTreeMap<i32, i32>,
}

static KNOWN: Mutex<Known> =
    Mutex::new(Known { adopting: false, started: BTreeSet::new(), ended: BTreeMap::new() });

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn reap_orphans(&mut self) {
        if !self.adopting {
            return;
        }
        for pid in children().into_iter().filter(|pid| !self.started.contains(pid)) {
            let waited = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
            if let Ok(Some((_, status))) = waited {
                let signal = || 128 + status.terminating_signal().unwrap_or_default();
                self.ended.insert(pid, status.exit_status().unwrap_or_else(signal));
            }
        }
    }
}

/// Makes this program the parent of the orphans below it, which this module reaps. From then on, every child of
/// this program must be started with [`start`].
pub(crate) fn adopt_orphans() {
    let mut known = known();
    if !known.adopting {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        known.adopting = true;
    }
}

/// The children of this process; the kernel lists them by thread (`proc_pid_task(5)`).
fn children() -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let lists = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    lists.iter().flat_map(|list| list.split_ascii_whitespace()).map(number).collect()
}

fn number(text: &str) -> i32 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// The children of a process with one thread.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.unwrap_or_default().split_ascii_whitespace().map(number).collect()
}

/// A program that a test has started. It is killed when this is dropped.
pub(crate) struct Started {
    child: Child,
    ended: Option<End>,
}

/// Starts `command`.
#[track_caller]
pub(crate) fn start(command: &mut Command) -> Started {
    // Under the lock, so that the new child is not taken for an orphan.
    let mut known = known();
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    known.started.insert(number(&child.id().to_string()));
    Started { child, ended: None }
}

/// Runs `action` while no other test starts or reaps a process. A file cannot be executed (ETXTBSY) while it is
/// open for writing in a child that has not called execve(2) yet, and a zombie exists only until it is reaped.
pub(crate) fn alone<T>(action: impl FnOnce() -> T) -> T {
    let _known = known();
    action()
}

impl Started {
    pub(crate) fn pid(&self) -> i32 {
        number(&self.child.id().to_string())
    }

    /// The parent's ends of its pipes.
    pub(crate) fn pipes(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<End> {
        let mut known = known();
        known.reap_orphans();
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap().map(End::from);
            if self.ended.is_some() {
                known.started.remove(&self.pid());
            }
        }
        self.ended
    }

    /// Its exit status as a shell reports it. Fails the test if it does not end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> i32 {
        wait_for("a program to end", || self.ended()).code()
    }

    /// Whether it is still running.
    pub(crate) fn runs(&mut self) -> bool {
        self.ended().is_none()
    }

    pub(crate) fn kill(&mut self) {
        let _gone_already = self.child.kill();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
            let _reaped = self.child.wait();
            known().started.remove(&self.pid());
        }
    }
}

/// Waits until `look` returns a value. Fails the test after [`LIMIT`]; `what` is in the message.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_for_within(LIMIT, what, look)
}

/// [`wait_for`] with another limit.
#[track_caller]
pub(crate) fn wait_for_within<T>(
    limit: Duration,
    what: &str,
    look: impl FnMut() -> Option<T>,
) -> T {
    poll_within(limit, look).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}

/// The time that something may take on this machine, if it may take `limit` on a real one. In an emulated machine,
/// `TEST_PATIENCE` is how many times longer that is.
pub(crate) fn allowed(limit: Duration) -> Duration {
    limit * std::env::var("TEST_PATIENCE").map_or(1, |times| times.parse().unwrap())
}

/// Calls `look` until it returns a value, or until `limit` has passed.
pub(crate) fn poll_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + allowed(limit);
    loop {
        let seen = look();
        if seen.is_some() || Instant::now() >= deadline {
            return seen;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The exit status of an orphan, as a shell reports it.
#[track_caller]
pub(crate) fn exit_status(pid: i32) -> i32 {
    wait_for(&format!("the orphan {pid} to end"), || {
        let mut known = known();
        known.reap_orphans();
        // Pids are reused: a status is not that of a live process with the same pid.
        known.ended.remove(&pid).filter(|_| !Process(pid).is_alive())
    })
}

/// Whether a process exists and has not ended. Reaps orphans first.
pub(crate) fn is_alive(pid: i32) -> bool {
    known().reap_orphans();
    Process(pid).is_alive()
}

/// Sends a signal.
pub(crate) fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Shell commands that stop the process `$1`. See [`stop`].
pub(crate) const STOP: &str =
    "kill -STOP $1; while grep -h ^State: /proc/$1/task/*/status | grep -qv T; do sleep 0.05; done";

/// Stops a process, and waits until it has stopped. kill(2) returns before that: each thread stops when it runs the next
/// time, and may answer a request or take another signal until then.
pub(crate) fn stop(pid: i32) {
    signal(pid, Signal::STOP);
    wait_for("a process to stop", || Process(pid).has_stopped().then_some(()));
}

/// Kills a process that a hook has left behind on purpose, and waits for its end.
pub(crate) fn end(pid: i32) {
    signal(pid, Signal::KILL);
    wait_for("a killed process to be gone", || (!is_alive(pid)).then_some(()));
}
