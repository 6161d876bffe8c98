//! One container of one image on one engine. It is always removed again.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::capture::Captured;
use crate::command::LIMIT;
use crate::engine::{Engine, Status};
use crate::finished::Finished;
use crate::image::Image;
use crate::process::{poll_within, wait_for_within};
use crate::processes;

pub(crate) struct Deployment<'engine> {
    pub(crate) engine: &'engine dyn Engine,
    pub(crate) image: Image,
    pub(crate) name: String,
}

impl<'engine> Deployment<'engine> {
    /// Imports `image`. No container is started yet.
    pub(crate) fn of(image: Image, engine: &'engine dyn Engine) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("container-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        engine.import(&image);
        Self { engine, image, name }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.engine.run(&self.name, &self.image, arguments)
    }

    pub(crate) fn begin_run(&self, arguments: &[&str]) -> Captured {
        self.engine.begin_run(&self.name, &self.image, arguments)
    }

    pub(crate) fn start(&self) -> Finished {
        self.engine.start(&self.name)
    }

    pub(crate) fn id(&self) -> String {
        self.engine.id(&self.name)
    }

    /// The container's log, as soon as it contains `last`: some engines write it with a delay.
    #[track_caller]
    pub(crate) fn logs_up_to(&self, last: &str) -> String {
        let mut log = String::new();
        let found = poll_within(LIMIT, || {
            log = self.engine.logs(&self.name);
            log.contains(last).then_some(())
        });
        if found.is_some() {
            return log;
        }
        let end = log.len().saturating_sub(1000);
        panic!("{last:?} is not in the log of {} bytes that ends {:?}", log.len(), &log[end..]);
    }

    /// Waits until the container has exited with status 0, as a deployed extension has.
    #[track_caller]
    pub(crate) fn assert_deployed(&self) {
        self.assert_status(Status::Exited(0));
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, wanted: Status) {
        let mut seen = Status::NotRun;
        let reached = poll_within(LIMIT, || {
            seen = self.engine.status(&self.name);
            (seen == wanted).then_some(())
        });
        assert!(reached.is_some(), "{} is {seen:?}, not {wanted:?}", self.name);
    }

    /// Waits until a hook of the running deployment has written a note.
    #[track_caller]
    pub(crate) fn await_note(&self, running: &mut Captured, name: &str) -> String {
        let note = wait_for_within(LIMIT, &format!("the note {name}"), || {
            let note = self.image.read(name);
            let found = if note.is_empty() { None } else { Some(Ok(note)) };
            found.or_else(|| running.ended().map(Err))
        });
        note.unwrap_or_else(|ended| panic!("no note {name}, for it ended: {ended}"))
    }

    /// Removes the container as a user would, and checks that no process of it is left.
    #[track_caller]
    pub(crate) fn remove(self) {
        let id = self.id();
        self.engine.remove(&self.name).ok();
        processes::assert_no_process(&id);
    }
}

impl Drop for Deployment<'_> {
    fn drop(&mut self) {
        self.engine.force_remove(&self.name);
        self.engine.remove_image(&self.image);
    }
}
