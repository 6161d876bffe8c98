//! Ctrl-C and its relatives, taken by one thread, so that whatever runs at that moment is ended in
//! good order and everything of it is removed.

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
    /// Takes these signals away from all threads. Must be called before there is a second one.
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

    /// Whether one came.
    pub(crate) fn came(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// Says what ends the work that begins now, which replaces what ended the work before.
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
