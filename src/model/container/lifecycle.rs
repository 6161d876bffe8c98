//! Which verb may run in which status (OCI runtime-spec, "Lifecycle" and "Operations").
//! The texts are runc's: engines search them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The OCI status of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// `create` is under way, or died under way.
    Creating,
    /// The proxy waits for `start`.
    Created,
    /// Recorded: the proxy of a Kubernetes sandbox stays after `start`. An extension is running only in
    /// truth, from the moment its start has recorded `Stopped` until its proxy has ended.
    Running,
    /// The proxy has ended. As recorded, it may still have to be sent the signal to end.
    Stopped,
}

/// Progress of a create or delete, which the OCI status does not show. A create of the same id may take over a
/// container that is `Completing` and whose proxy is gone, and one whose delete has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// `create` has recorded everything, and is about to let the proxy live on without it. Only if the
    /// proxy is there did it get as far as that.
    Completing,
    #[default]
    InUse,
    /// A delete ends the proxy; none of its hooks has begun yet.
    Ending,
    /// The hooks of the delete have begun.
    Deleting,
}

impl Phase {
    /// Whether a delete has begun.
    pub(crate) fn is_way_out(self) -> bool {
        match self {
            Self::Ending | Self::Deleting => true,
            Self::Completing | Self::InUse => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

/// Whether the caller of `delete` insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insistence {
    /// Only a stopped container is deleted.
    Plain,
    /// `--force`: any container is deleted, and an unknown one is a success.
    Force,
}

/// What the proxy of a container has to do, by the recorded status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    Stay,
    /// The container was started or its start failed: nothing waits for the proxy any more.
    End,
}

/// Whom a signal is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// The container's process, which must be there.
    Process,
    /// `--all`: all that is left of the container; it is not an error if nothing is.
    Everything,
}

/// Why a verb is refused in a status.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("cannot start a container that has stopped: {id}; delete it and create it again")]
    StartStopped { id: String },
    #[error("cannot start an already running container: {id}")]
    StartRunning { id: String },
    #[error("cannot start container {id} while it is creating: create has not completed")]
    StartCreating { id: String },
    #[error("cannot start container {id}: it is being deleted (delete --force {id} finishes that)")]
    StartDeleting { id: String },
    #[error("container not running: {id} is {status}")]
    KillNotRunning { id: String, status: Status },
    #[error("cannot delete container {id} that is not stopped: {status} (use --force)")]
    DeleteNotStopped { id: String, status: Status },
}

/// The effect of `kill`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Send the signal to the proxy.
    Signal,
    /// No process is left to signal, which is not an error.
    Nothing,
}

/// Whether `start` may continue.
pub(crate) fn can_start(id: &str, status: Status, phase: Phase) -> Result<(), Refused> {
    let id = id.to_owned();
    match (status, phase) {
        (Status::Created, Phase::Completing | Phase::InUse) => Ok(()),
        (Status::Created, Phase::Ending | Phase::Deleting) => Err(Refused::StartDeleting { id }),
        (Status::Stopped, _) => Err(Refused::StartStopped { id }),
        (Status::Running, _) => Err(Refused::StartRunning { id }),
        (Status::Creating, _) => Err(Refused::StartCreating { id }),
    }
}

/// The effect of `kill` in `status`. containerd sends `kill --all ID 9` after the process has ended.
pub(crate) fn can_kill(id: &str, status: Status, audience: Audience) -> Result<Delivery, Refused> {
    match (status, audience) {
        (Status::Created | Status::Running, _) => Ok(Delivery::Signal),
        (Status::Stopped, Audience::Everything) => Ok(Delivery::Nothing),
        (Status::Creating, _) | (Status::Stopped, Audience::Process) => {
            Err(Refused::KillNotRunning { id: id.to_owned(), status })
        }
    }
}

/// Whether `delete` may continue. A proxy that only has to exit does not prevent it.
pub(crate) fn can_delete(
    id: &str,
    status: Status,
    duty: Duty,
    insistence: Insistence,
) -> Result<(), Refused> {
    match (status, duty, insistence) {
        (Status::Stopped, _, _) | (_, _, Insistence::Force) => Ok(()),
        (Status::Running, Duty::End, Insistence::Plain) => Ok(()),
        (Status::Running, Duty::Stay, Insistence::Plain)
        | (Status::Creating | Status::Created, _, Insistence::Plain) => {
            Err(Refused::DeleteNotStopped { id: id.to_owned(), status })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 4] = [Status::Creating, Status::Created, Status::Running, Status::Stopped];

    #[test]
    fn only_a_created_container_starts_that_nobody_deletes() {
        for (phase, expected) in [
            (Phase::Completing, [false, true, false, false]),
            (Phase::InUse, [false, true, false, false]),
            (Phase::Ending, [false; 4]),
            (Phase::Deleting, [false; 4]),
        ] {
            let may = ALL.map(|status| can_start("x", status, phase).is_ok());
            assert_eq!(may, expected, "{phase:?}");
        }
    }

    #[test]
    fn kill_reaches_live_containers_and_is_silent_for_all_of_a_stopped_one() {
        for (status, process, everything) in [
            (Status::Creating, None, None),
            (Status::Created, Some(Delivery::Signal), Some(Delivery::Signal)),
            (Status::Running, Some(Delivery::Signal), Some(Delivery::Signal)),
            (Status::Stopped, None, Some(Delivery::Nothing)),
        ] {
            assert_eq!(can_kill("x", status, Audience::Process).ok(), process);
            assert_eq!(can_kill("x", status, Audience::Everything).ok(), everything);
        }
    }

    #[test]
    fn the_texts_hold_what_engines_search_for() {
        let text = |refused: Refused| refused.to_string();
        let kill = can_kill("x", Status::Stopped, Audience::Process).unwrap_err();
        assert!(text(kill).contains("container not running"));
        let delete = can_delete("x", Status::Created, Duty::Stay, Insistence::Plain).unwrap_err();
        let delete = text(delete);
        assert!(delete.contains("cannot delete container x that is not stopped: created"));
        assert!(delete.contains("--force"));
        let start = text(can_start("x", Status::Stopped, Phase::InUse).unwrap_err());
        assert!(start.contains("cannot start a container that has stopped"));
        let start = text(can_start("x", Status::Running, Phase::InUse).unwrap_err());
        assert!(start.contains("cannot start an already running container"));
    }

    #[test]
    fn delete_needs_a_stopped_container_or_one_whose_proxy_has_to_end_or_force() {
        for (duty, plain) in
            [(Duty::Stay, [false, false, false, true]), (Duty::End, [false, false, true, true])]
        {
            let may =
                |insistence| ALL.map(|status| can_delete("x", status, duty, insistence).is_ok());
            assert_eq!(may(Insistence::Plain), plain, "{duty:?}");
            assert_eq!(may(Insistence::Force), [true; 4], "{duty:?}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Refused {
        StartStopped { id }, StartRunning { id }, StartCreating { id }, StartDeleting { id },
        KillNotRunning { id, status = Status::Creating },
        DeleteNotStopped { id, status = Status::Creating },
    }
}
