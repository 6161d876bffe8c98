//! The verbs that are swept: the preparation of each, and the states that are allowed after a disturbance.

use crate::checks::Reported;
use crate::container::{Call, Container};
use crate::finished::Finished;

/// A verb that is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Start,
    Kill,
    Delete,
    /// `delete --force` of a container that was not started.
    ForceDelete,
    Run,
    State,
}

impl Verb {
    pub(crate) const ALL: [Self; 7] = [
        Self::Create,
        Self::Start,
        Self::Kill,
        Self::Delete,
        Self::ForceDelete,
        Self::Run,
        Self::State,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::ForceDelete => "delete-force",
            Self::Run => "run",
            Self::State => "state",
        }
    }

    pub(crate) fn call(self) -> Call {
        match self {
            Self::Create => Call::Create,
            Self::Start => Call::Start,
            Self::Kill => Call::Kill("TERM"),
            Self::Delete => Call::Delete,
            Self::ForceDelete => Call::ForceDelete,
            Self::Run => Call::Run,
            Self::State => Call::State,
        }
    }

    /// Resets the container and runs the verbs that come before this one.
    pub(crate) fn prepare(self, container: &mut Container) -> Result<(), String> {
        container.reset();
        if matches!(self, Self::Create | Self::Run) {
            return Ok(());
        }
        container.run(Call::Create).success()?;
        if self == Self::Delete {
            container.run(Call::Start).success()?;
            if container.reported()?.status() == "running" {
                container.run(Call::Kill("TERM")).success()?;
            }
            container.await_stopped()?;
        }
        Ok(())
    }

    /// The statuses that `state` may report after the verb was killed.
    pub(crate) fn statuses_after_a_kill(self) -> &'static [&'static str] {
        match self {
            // A complete container has a live proxy. Any other can be taken over.
            Self::Create => &["absent", "creating", "created"],
            Self::Start => &["created", "running", "stopped"],
            Self::Kill => &["created", "stopped"],
            Self::Delete => &["stopped", "absent"],
            Self::ForceDelete => &["created", "stopped", "absent"],
            Self::Run => &["absent", "creating", "created", "running", "stopped"],
            Self::State => &["created"],
        }
    }

    /// Checks the container after the verb succeeded in spite of a fault.
    pub(crate) fn check_success(self, container: &Container) -> Result<(), String> {
        match self {
            Self::Create => container.is_created(),
            Self::Start => match container.settle()?.status() {
                "running" => Ok(()),
                _ => container.await_stopped(),
            },
            Self::Kill => container.await_stopped(),
            Self::Delete | Self::ForceDelete => container.nothing_is_left(),
            Self::Run => container.nothing_is_left(),
            Self::State => container.settle()?.one_of(&["created"]),
        }
    }

    /// Checks that everything is as before, or as a failure of the verb must leave it.
    pub(crate) fn check_failure(self, container: &Container) -> Result<(), String> {
        match self {
            Self::Create => container.nothing_was_created(),
            Self::Run => container.nothing_is_left(),
            Self::Start => match container.settle()?.status() {
                // It was refused before it did anything, so it can be started again.
                "created" => container.start_and_delete(),
                "stopped" if crate::processes::all().is_empty() => container.stop_and_delete(),
                "stopped" => Err("stopped, but the proxy is still there".to_owned()),
                other => Err(format!("state says {other} after a failed start")),
            },
            Self::Kill => {
                let seen = container.settle()?;
                seen.one_of(&["created", "stopped"])?;
                if seen.status() == "created" {
                    container.run(Call::Kill("TERM")).success()?;
                }
                container.await_stopped()
            }
            Self::Delete => self.repeat_delete(container),
            Self::ForceDelete => container.force_delete(),
            Self::State => container.settle()?.one_of(&["created"]),
        }
    }

    fn repeat_delete(self, container: &Container) -> Result<(), String> {
        if container.settle()? == Reported::Absent {
            return refused(&container.run(Call::Delete), "does not exist");
        }
        container.run(Call::Delete).success()?;
        container.nothing_is_left()
    }
}

/// Fails unless the verb was refused with `why`.
pub(crate) fn refused(finished: &Finished, why: &str) -> Result<(), String> {
    if finished.end == crate::finished::End::Status(1) && finished.err.contains(why) {
        return Ok(());
    }
    Err(format!("a refusal with {why:?} was expected of {finished}"))
}
