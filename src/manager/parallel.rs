//! Works on many objects, a few at a time, until a signal comes or the time is up. A failure of one object
//! does not affect the others.

use crate::host::engine::client::PARALLEL;
use crate::host::os::signals::Stop;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the signals and the clock are checked.
const TICK: Duration = Duration::from_millis(50);
/// How long work in progress may continue after a signal or the deadline. A request ends at once. A hook does
/// not, but its guard kills it when this program has exited.
const GRACE: Duration = Duration::from_secs(2);

/// How far the work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    /// Every object had its turn.
    Complete,
    /// A signal came.
    Stopped,
    OutOfTime,
}

/// Does `work` on the objects `0..count`, and passes each result to `done` as it arrives.
pub(super) fn each<T: Send + 'static>(
    count: usize,
    stop: &Arc<Stop>,
    deadline: Instant,
    work: impl Fn(usize) -> T + Send + Sync + 'static,
    mut done: impl FnMut(usize, T),
) -> Completion {
    let (results, received) = mpsc::channel();
    let (work, next) = (Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let stop_of_worker = Arc::clone(stop);
    let worker = move || {
        // Checked before each object, so that none is begun after a signal.
        while why_to_end(&stop_of_worker, deadline).is_none() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count || results.send((index, work(index))).is_err() {
                break;
            }
        }
    };
    // Not scoped: a scope waits for its threads, and one that hangs must not hold the program.
    for number in 0..PARALLEL.min(count) {
        let spawned = thread::Builder::new().spawn(worker.clone());
        // A host at its limit of processes needs a cleanup most.
        if number == 0 && spawned.is_err() {
            worker();
        }
    }
    drop(worker);
    let (mut left, mut ended, mut grace_ends) = (count, None, None);
    while left > 0 && grace_ends.is_none_or(|end| Instant::now() < end) {
        match received.recv_timeout(TICK) {
            Ok((index, result)) => {
                left -= 1;
                done(index, result);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if ended.is_none() {
            ended = why_to_end(stop, deadline);
            grace_ends = ended.map(|_| Instant::now() + GRACE);
        }
    }
    match left {
        0 => Completion::Complete,
        // The threads may have seen the end first.
        _ => ended.or_else(|| why_to_end(stop, deadline)).unwrap_or(Completion::OutOfTime),
    }
}

/// Why no further object is begun.
pub(super) fn why_to_end(stop: &Stop, deadline: Instant) -> Option<Completion> {
    if stop.is_wished() {
        return Some(Completion::Stopped);
    }
    (Instant::now() >= deadline).then_some(Completion::OutOfTime)
}
