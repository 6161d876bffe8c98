//! Works on many objects, a few at a time, until a signal comes or the time is up. A failure of one object
//! does not affect the others.

use super::Failure;
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

/// When work ends, done or not.
#[derive(Clone)]
pub(super) struct Limit {
    pub(super) stop: Arc<Stop>,
    pub(super) deadline: Instant,
    /// The time from the start to the deadline.
    pub(super) timeout: Duration,
}

impl Limit {
    /// Fails if no further object is to be begun.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.stop.is_wished() {
            return Err(Failure::Stopped);
        }
        match Instant::now() < self.deadline {
            true => Ok(()),
            false => Err(Failure::OutOfTime { seconds: self.timeout.as_secs_f32() }),
        }
    }
}

/// Does `work` on the objects `0..count`, and passes each result to `done` as it arrives. Fails unless every object had
/// its turn.
pub(super) fn each<T: Send + 'static>(
    count: usize,
    limit: &Limit,
    work: impl Fn(usize) -> T + Send + Sync + 'static,
    mut done: impl FnMut(usize, T),
) -> Result<(), Failure> {
    let (results, received) = mpsc::channel();
    let (work, next) = (Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let limit_of_worker = limit.clone();
    let worker = move || {
        // Checked before each object, so that none is begun after a signal.
        while limit_of_worker.check().is_ok() {
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
    let (mut left, mut grace_ends) = (count, None);
    while left > 0 && grace_ends.is_none_or(|end| Instant::now() < end) {
        match received.recv_timeout(TICK) {
            Ok((index, result)) => {
                left -= 1;
                done(index, result);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if grace_ends.is_none() && limit.check().is_err() {
            grace_ends = Some(Instant::now() + GRACE);
        }
    }
    // A limit that was reached stays reached.
    if left == 0 { Ok(()) } else { limit.check() }
}
