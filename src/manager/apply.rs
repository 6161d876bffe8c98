//! Carries out a plan. Every removal is tried, and every result is kept.

use super::deactivate::{self, Deactivated};
use super::gather;
use super::parallel::{self, Limit};
use super::records::Records;
use super::{Failure, Session};
use crate::host::engine::client::Client;
use crate::host::engine::error::Error as EngineError;
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::os::host_root::HostRoot;
use crate::model::engine::api::in_path;
use crate::model::engine::cleanup::{
    Deactivation, Decision, Fate, ObjectKind, Plan, Reason, Removal,
};
use crate::model::engine::inspection::Errors;
use crate::model::engine::inventory::{EngineContainer, EngineState};
use crate::model::text::cause::chain;
use crate::model::text::cut::short_id;
use std::sync::{Arc, Mutex, PoisonError};

/// What became of the object of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// `None` if it was not to be removed, in a dry run, or if the end came before its turn.
    pub(super) result: Option<Result<Removed, RemovalError>>,
    pub(super) deactivated: Vec<Deactivated>,
}

impl Done {
    /// The stable word for programs.
    pub(super) fn word(&self) -> &'static str {
        match &self.result {
            None => "not-tried",
            Some(Ok(Removed::Now)) => "removed",
            Some(Ok(Removed::Before)) => "gone-already",
            Some(Ok(Removed::ByAnother)) => "being-removed",
            Some(Ok(Removed::LeftDead)) => "left-dead",
            Some(Ok(Removed::Recovered)) => "recovered",
            Some(Ok(Removed::Claimed)) => "claimed",
            Some(Err(RemovalError::StillThere(_) | RemovalError::Conflict(_))) => "failed",
            Some(Err(RemovalError::Unknown(_))) => "unknown",
        }
    }

    /// Why the object is not known to be removed.
    pub(super) fn error(&self) -> Option<&str> {
        let error = self.result.as_ref()?.as_ref().err()?;
        let (RemovalError::StillThere(why)
        | RemovalError::Conflict(why)
        | RemovalError::Unknown(why)) = error;
        Some(why)
    }
}

/// A result that is not a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    Now,
    /// It had already disappeared.
    Before,
    /// Another program is removing it at this moment.
    ByAnother,
    /// The engine could not remove all of it, and keeps it as dead.
    LeftDead,
    /// The reason to remove it is gone, so it was kept.
    Recovered,
    /// A container that claims it was not removed, so it was kept.
    Claimed,
}

/// Why an object is not known to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RemovalError {
    StillThere(String),
    /// Still there, because the engine reports a conflict with another object.
    Conflict(String),
    /// The engine may have received the request, but its answer is missing.
    Unknown(String),
}

impl From<EngineError> for RemovalError {
    fn from(error: EngineError) -> Self {
        let why = chain(&error);
        if error.is_unknown() {
            Self::Unknown(why)
        } else if error.is_conflict() {
            Self::Conflict(why)
        } else {
            Self::StillThere(why)
        }
    }
}

/// Shared by the threads.
struct Work {
    client: Arc<Client>,
    limit: Limit,
    plan: Arc<Plan>,
    records: Records,
    host: HostRoot,
    containers: Vec<EngineContainer>,
    /// Hooks run one at a time: they change the host, and their authors do not expect others beside them.
    lock: Mutex<OperationLock>,
}

/// Carries `plan` out. The results are in the order of the decisions.
pub(super) fn apply(
    session: &Session,
    client: &Arc<Client>,
    plan: &Arc<Plan>,
    containers: Vec<EngineContainer>,
    lock: OperationLock,
) -> (Vec<Done>, Result<(), Failure>) {
    let mut results = vec![Done::default(); plan.0.len()];
    let work = Arc::new(Work {
        client: Arc::clone(client),
        limit: session.limit.clone(),
        plan: Arc::clone(plan),
        records: Records::find(&session.host),
        host: session.host.clone(),
        containers,
        lock: Mutex::new(lock),
    });
    // An object is removed after those that use it, so each kind waits for the one before.
    for kind in [ObjectKind::Container, ObjectKind::Image, ObjectKind::Volume] {
        let decisions = plan.0.iter().enumerate();
        let mut turns: Vec<(usize, &Decision)> =
            decisions.filter(|(_, decision)| is_removed(decision, kind)).collect();
        turns.retain(|(index, decision)| {
            let is_claimed = is_still_claimed(decision, plan, &results);
            if let Some(place) = results.get_mut(*index).filter(|_| is_claimed) {
                place.result = Some(Ok(Removed::Claimed));
            }
            !is_claimed
        });
        // Hooks take time, in which the inspections of the others become outdated.
        turns.sort_by_key(|(_, decision)| has_hooks(decision));
        let mut turns: Vec<usize> = turns.into_iter().map(|(index, _)| index).collect();
        // An image can be removed after its children: in one more round, if this round removed any.
        let mut left = usize::MAX;
        while !turns.is_empty() && turns.len() < left {
            left = turns.len();
            if let Err(end) = round(&work, &turns, &mut results) {
                return (results, Err(end));
            }
            turns.retain(|&index| kind == ObjectKind::Image && is_conflict(results.get(index)));
        }
    }
    (results, Ok(()))
}

fn is_removed(decision: &Decision, kind: ObjectKind) -> bool {
    decision.object.kind == kind && matches!(decision.fate, Fate::Remove { .. })
}

/// Whether it is a volume, and a container that claims it still exists. A dead one does.
fn is_still_claimed(decision: &Decision, plan: &Plan, results: &[Done]) -> bool {
    let Fate::Remove { how: Removal::Volume { claimants }, .. } = &decision.fate else {
        return false;
    };
    let is_gone = |done: &Done| matches!(done.result, Some(Ok(Removed::Now | Removed::Before)));
    plan.0.iter().zip(results).any(|(Decision { object, .. }, done)| {
        object.kind == ObjectKind::Container && claimants.contains(&object.id) && !is_gone(done)
    })
}

fn has_hooks(decision: &Decision) -> bool {
    matches!(&decision.fate, Fate::Remove { how: Removal::Container { deactivate }, .. }
        if !deactivate.is_empty())
}

fn is_conflict(done: Option<&Done>) -> bool {
    matches!(done, Some(Done { result: Some(Err(RemovalError::Conflict(_))), .. }))
}

/// Gives each of the decisions in `turns` one turn.
fn round(work: &Arc<Work>, turns: &[usize], results: &mut [Done]) -> Result<(), Failure> {
    let (shared, order) = (Arc::clone(work), turns.to_vec());
    parallel::each(
        turns.len(),
        &work.limit,
        move |turn| order.get(turn).map(|&index| (index, shared.remove(index))),
        |_, result| {
            let Some((index, done)) = result else { return };
            if let Some(place) = results.get_mut(index) {
                *place = done;
            }
        },
    )
}

impl Work {
    /// Removes the object of a decision, unless the end came before its turn.
    fn remove(&self, index: usize) -> Done {
        let mut done = Done::default();
        let Some(Decision { object, fate: Fate::Remove { how, reason } }) = self.plan.0.get(index)
        else {
            return done;
        };
        let id = &object.id;
        let result = match how {
            Removal::Container { deactivate } if deactivate.is_empty() => {
                self.recheck(id, reason).unwrap_or_else(|| self.remove_container(id))
            }
            // A container with hooks is stale, whether it has failed or not, so it is not checked again.
            Removal::Container { deactivate } => {
                let hooks = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                // The lock may have taken time. Work that has begun continues as far as it may.
                if self.limit.check().is_err() {
                    return done;
                }
                done.deactivated = self.deactivate(id, deactivate, &hooks);
                drop(hooks);
                self.remove_container(id)
            }
            Removal::Image { names } => self.remove_image(names),
            Removal::Volume { .. } => {
                let path = format!("/volumes/{}", in_path(id));
                removed(self.request_removal(&path, &format!("remove volume {id}")))
            }
        };
        let is_container = object.kind == ObjectKind::Container;
        if is_container && result.as_ref().is_ok_and(|removed| *removed != Removed::Recovered) {
            self.records.remove(id);
        }
        done.result = Some(result);
        done
    }

    fn deactivate(
        &self,
        id: &str,
        volumes: &[Deactivation],
        lock: &OperationLock,
    ) -> Vec<Deactivated> {
        let Some(container) = self.containers.iter().find(|one| one.id == id) else {
            return Vec::new();
        };
        volumes
            .iter()
            .take_while(|_| self.limit.check().is_ok())
            .map(|volume| deactivate::run(&self.host, container, volume, lock))
            .collect()
    }

    /// The engine carries out a removal once it has the request, whether anybody waits for the answer or not.
    fn request_removal(&self, path: &str, what: &str) -> Result<(), RequestError> {
        match self.limit.check() {
            Ok(()) => self.client.remove(path, what).map_err(RequestError::Engine),
            Err(_) => Err(RequestError::NotSent(format!("did not {what}: the command was ending"))),
        }
    }

    /// Inspects a failed container again, which may have been started since. `None` if it is to be removed.
    fn recheck(&self, id: &str, reason: &Reason) -> Option<Result<Removed, RemovalError>> {
        if !matches!(reason, Reason::Failed(_)) {
            return None;
        }
        match gather::inspect_one(&self.client, id) {
            Err(error) if error.is_absence() => Some(Ok(Removed::Before)),
            Err(error) => Some(Err(RemovalError::StillThere(chain(&error)))),
            Ok(seen) if seen.engine_state() == EngineState::Removing => {
                Some(Ok(Removed::ByAnother))
            }
            Ok(seen) => match self.recorded_failure(id) {
                Ok(recorded) if seen.has_recovered(recorded.as_deref()) => {
                    Some(Ok(Removed::Recovered))
                }
                Ok(_) => None,
                Err(why) => Some(Err(RemovalError::StillThere(why))),
            },
        }
    }

    /// The failure that the runtime has recorded, if the engine does not keep errors.
    fn recorded_failure(&self, id: &str) -> Result<Option<String>, String> {
        match self.client.errors() {
            Errors::Kept => Ok(None),
            Errors::NotKept => self.records.failure(id),
        }
    }

    /// Removes a container with its anonymous volumes.
    fn remove_container(&self, id: &str) -> Result<Removed, RemovalError> {
        let path = format!("/containers/{}?v=true&force=true", in_path(id));
        let what = format!("remove container {}", short_id(id));
        let error = match self.request_removal(&path, &what) {
            Err(RequestError::Engine(error)) if !error.is_absence() && !error.is_stop() => error,
            settled => return removed(settled),
        };
        // The state after the failure decides. A dead container counts as removed: the next cleanup tries again.
        match gather::inspect_one(&self.client, id) {
            Err(seen) if seen.is_absence() => Ok(Removed::Now),
            Ok(seen) if seen.engine_state() == EngineState::Dead => Ok(Removed::LeftDead),
            Ok(seen) if seen.engine_state() == EngineState::Removing && error.is_conflict() => {
                Ok(Removed::ByAnother)
            }
            Ok(_) | Err(_) => Err(error.into()),
        }
    }

    /// Untags an image name by name; the engine removes it with the last name.
    fn remove_image(&self, names: &[String]) -> Result<Removed, RemovalError> {
        let mut result = Ok(Removed::Before);
        for name in names {
            let path = format!("/images/{}", in_path(name));
            let shown = if name.starts_with("sha256:") { short_id(name) } else { name };
            match removed(self.request_removal(&path, &format!("remove image {shown}"))) {
                Ok(Removed::Now) if result.is_ok() => result = Ok(Removed::Now),
                Ok(_) => {}
                // The first error names the cause.
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

/// Why a removal was not answered with success.
enum RequestError {
    NotSent(String),
    Engine(EngineError),
}

fn removed(answer: Result<(), RequestError>) -> Result<Removed, RemovalError> {
    match answer {
        Ok(()) => Ok(Removed::Now),
        Err(RequestError::Engine(error)) if error.is_absence() => Ok(Removed::Before),
        Err(RequestError::Engine(error)) => Err(error.into()),
        Err(RequestError::NotSent(why)) => Err(RemovalError::StillThere(why)),
    }
}
