//! Doing one thing to many objects, a few at a time, until the time is up or the program is to end. One
//! object never stops the rest.
//!
//! Not std's channels: their thread-local variables would not fit into what the C library has in its
//! data for the first thread, and every start of this program would pay with a mapping of its own.

use crate::host::engine::client::PARALLEL;
use crate::host::os::signals::Stop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the signals and the clock are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long what is under way may still take when the work is to end. A request ends at once; a hook
/// does not, and its guard kills it when this program is gone.
const GRACE: Duration = Duration::from_secs(2);

/// How the work came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Each object had its turn.
    Complete,
    /// A signal came.
    Stopped,
    /// The time was up.
    OutOfTime,
}

/// Where the threads put their results.
struct Board<T> {
    results: Mutex<Results<T>>,
    news: Condvar,
}

struct Results<T> {
    ready: Vec<(usize, T)>,
    /// How many threads may still add some.
    working: usize,
}

impl<T> Board<T> {
    fn results(&self) -> MutexGuard<'_, Results<T>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, result: (usize, T)) {
        self.results().ready.push(result);
        self.news.notify_one();
    }

    fn leave(&self) {
        self.results().working -= 1;
        self.news.notify_one();
    }

    /// Waits a moment for results, and takes what there is; `None` when nobody adds any more.
    fn take(&self) -> Option<Vec<(usize, T)>> {
        let results = self.results();
        let quiet = |results: &mut Results<T>| results.ready.is_empty() && results.working > 0;
        let waited = self.news.wait_timeout_while(results, TICK, quiet);
        let (mut results, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if results.ready.is_empty() && results.working == 0 {
            return None;
        }
        Some(std::mem::take(&mut results.ready))
    }
}

/// Does `work` to the objects `0..count`, and hands each result to `done`, in the order of their ends.
pub(super) fn each<T: Send + 'static>(
    count: usize,
    stop: &Arc<Stop>,
    deadline: Instant,
    work: impl Fn(usize) -> T + Send + Sync + 'static,
    mut done: impl FnMut(usize, T),
) -> Ended {
    let work = Arc::new(work);
    let next = Arc::new(AtomicUsize::new(0));
    let threads = PARALLEL.min(count);
    let board = Arc::new(Board {
        results: Mutex::new(Results { ready: Vec::new(), working: threads }),
        news: Condvar::new(),
    });
    // Not scoped: one that hangs is left behind when the program ends.
    for number in 0..threads {
        let (work, next) = (Arc::clone(&work), Arc::clone(&next));
        let (board_of_thread, stop) = (Arc::clone(&board), Arc::clone(stop));
        let worker = move || {
            // Looked at before each object, so that nothing is begun after a signal.
            while why_to_end(&stop, deadline).is_none() {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                board_of_thread.put((index, work(index)));
            }
            board_of_thread.leave();
        };
        match std::thread::Builder::new().spawn(worker.clone()) {
            Ok(_) => {}
            // A host at its limit of processes is the one that needs a cleanup most.
            Err(_) if number == 0 => worker(),
            Err(_) => board.leave(),
        }
    }
    let mut left = count;
    let mut ended = None;
    let mut last_moment = None;
    while left > 0 {
        let Some(results) = board.take() else { break };
        for (index, result) in results {
            left -= 1;
            done(index, result);
        }
        if ended.is_none() {
            ended = why_to_end(stop, deadline);
            last_moment = ended.map(|_| Instant::now() + GRACE);
        }
        if last_moment.is_some_and(|moment| Instant::now() >= moment) {
            break;
        }
    }
    match left {
        0 => Ended::Complete,
        // The threads may have seen it first.
        _ => ended.or_else(|| why_to_end(stop, deadline)).unwrap_or(Ended::OutOfTime),
    }
}

/// Why nothing more is to be begun.
pub(super) fn why_to_end(stop: &Stop, deadline: Instant) -> Option<Ended> {
    if stop.is_wished() {
        return Some(Ended::Stopped);
    }
    (Instant::now() >= deadline).then_some(Ended::OutOfTime)
}
