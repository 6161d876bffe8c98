//! The verbs that are swept: what comes before each, and what may be the case after it was disturbed.

use crate::checks::Seen;
use crate::container::{Call, World};
use crate::finished::Finished;

/// A verb under the sweep.
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

    /// Makes a new world in which the verb is next.
    pub(crate) fn prepare(self, world: &mut World) -> Result<(), String> {
        world.reset();
        if matches!(self, Self::Create | Self::Run) {
            return Ok(());
        }
        world.run(Call::Create).success()?;
        if self == Self::Delete {
            world.run(Call::Start).success()?;
            if world.look()?.status() == "running" {
                world.run(Call::Kill("TERM")).success()?;
            }
            world.becomes_stopped()?;
        }
        Ok(())
    }

    /// What `state` may say after the verb was killed at any moment.
    pub(crate) fn statuses_after_a_kill(self) -> &'static [&'static str] {
        match self {
            // A complete one has a proxy that lives, and any other can be taken over.
            Self::Create => &["absent", "creating", "created"],
            Self::Start => &["created", "running", "stopped"],
            Self::Kill => &["created", "stopped"],
            Self::Delete => &["stopped", "absent"],
            Self::ForceDelete => &["created", "stopped", "absent"],
            Self::Run => &["absent", "creating", "created", "running", "stopped"],
            Self::State => &["created"],
        }
    }

    /// Checks what is there after the verb succeeded in spite of a fault.
    pub(crate) fn check_success(self, world: &World) -> Result<(), String> {
        match self {
            Self::Create => world.is_created(),
            Self::Start => match world.settle()?.status() {
                "running" => Ok(()),
                _ => world.becomes_stopped(),
            },
            Self::Kill => world.becomes_stopped(),
            Self::Delete | Self::ForceDelete => world.nothing_is_left(),
            Self::Run => world.nothing_is_left(),
            Self::State => world.settle()?.one_of(&["created"]),
        }
    }

    /// Checks that the environment is as before, or as the verb's failure is to leave it.
    pub(crate) fn check_failure(self, world: &World) -> Result<(), String> {
        match self {
            Self::Create => world.was_never_there(),
            Self::Run => world.nothing_is_left(),
            Self::Start => match world.settle()?.status() {
                // Refused before anything was done: it can be started again.
                "created" => world.goes_on(),
                "stopped" if crate::processes::all().is_empty() => world.ends(),
                "stopped" => Err("stopped, but the proxy is still there".to_owned()),
                other => Err(format!("state says {other} after a failed start")),
            },
            Self::Kill => {
                let seen = world.settle()?;
                seen.one_of(&["created", "stopped"])?;
                if seen.status() == "created" {
                    world.run(Call::Kill("TERM")).success()?;
                }
                world.becomes_stopped()
            }
            Self::Delete => self.repeat_delete(world),
            Self::ForceDelete => world.force(),
            Self::State => world.settle()?.one_of(&["created"]),
        }
    }

    fn repeat_delete(self, world: &World) -> Result<(), String> {
        if world.settle()? == Seen::Absent {
            return refused(&world.run(Call::Delete), "does not exist");
        }
        world.run(Call::Delete).success()?;
        world.nothing_is_left()
    }
}

/// Fails unless the verb was refused with `why`.
pub(crate) fn refused(finished: &Finished, why: &str) -> Result<(), String> {
    if finished.end == crate::finished::End::Status(1) && finished.err.contains(why) {
        return Ok(());
    }
    Err(format!("a refusal with {why:?} was expected of {finished}"))
}
