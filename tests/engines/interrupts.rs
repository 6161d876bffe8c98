//! One thread receives Ctrl-C and similar signals, stops the current work and lets it be cleaned up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};

type Stop = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct Interrupts {
    came: AtomicBool,
    stop: Mutex<Option<Stop>>,
}

impl Interrupts {
    /// Blocks these signals in all threads. Must be called before a second thread starts.
    pub(crate) fn watch() -> Arc<Self> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        signals.thread_block().expect("sigprocmask");
        let interrupts = Arc::new(Self::default());
        std::thread::spawn({
            let interrupts = Arc::clone(&interrupts);
            move || {
                while signals.wait().is_ok() {
                    interrupts.came.store(true, Ordering::SeqCst);
                    interrupts.stop_it();
                }
            }
        });
        interrupts
    }

    /// Whether a signal has arrived.
    pub(crate) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// Sets the function that stops the current work. It replaces the previous one.
    pub(crate) fn on_interrupt(&self, stop: impl FnOnce() + Send + 'static) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(stop));
        if self.came() {
            self.stop_it();
        }
    }

    fn stop_it(&self) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            stop();
        }
    }
}
