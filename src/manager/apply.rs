//! Carries out a plan. Every removal is tried, and every result is kept.

use super::Session;
use super::deactivate::{self, Deactivated};
use super::gather;
use super::parallel::{self, Completion};
use super::records::Records;
use crate::host::engine::client::Client;
use crate::host::engine::error::Error as EngineError;
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::os::signals::Stop;
use crate::model::engine::api::in_path;
use crate::model::engine::cleanup::{
    Deactivation, Decision, Fate, ObjectKind, Plan, Reason, Removal,
};
use crate::model::engine::inspection::Errors;
use crate::model::engine::inventory::{EngineContainer, EngineState};
use crate::model::text::cause::chain;
use crate::model::text::short_id::short_id;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The result for an object that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) result: Result<Removed, RemovalError>,
    pub(super) deactivated: Vec<Deactivated>,
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
}

impl Removed {
    /// The stable word for programs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Now => "removed",
            Self::Before => "gone-already",
            Self::ByAnother => "being-removed",
            Self::LeftDead => "left-dead",
            Self::Recovered => "recovered",
        }
    }
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

impl RemovalError {
    pub(super) fn why(&self) -> &str {
        let (Self::StillThere(why) | Self::Conflict(why) | Self::Unknown(why)) = self;
        why
    }
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
    stop: Arc<Stop>,
    deadline: Instant,
    plan: Arc<Plan>,
    records: Records,
    containers: Vec<EngineContainer>,
    /// Hooks run one at a time: they change the host, and their authors do not expect others beside them.
    lock: Mutex<OperationLock>,
}

/// Carries `plan` out. The results are in the order of the decisions; `None` if a decision had no turn.
pub(super) fn apply(
    session: &Session,
    client: &Arc<Client>,
    plan: &Arc<Plan>,
    containers: Vec<EngineContainer>,
    lock: OperationLock,
) -> (Vec<Option<Done>>, Completion) {
    let mut results: Vec<Option<Done>> = plan.0.iter().map(|_| None).collect();
    let work = Arc::new(Work {
        client: Arc::clone(client),
        stop: Arc::clone(&session.stop),
        deadline: session.deadline,
        plan: Arc::clone(plan),
        records: Records::find(&session.host),
        containers,
        lock: Mutex::new(lock),
    });
    // An object is removed after those that use it, so each kind waits for the one before.
    for kind in [ObjectKind::Container, ObjectKind::Image, ObjectKind::Volume] {
        let decisions = plan.0.iter().enumerate();
        let mut turns: Vec<(usize, &Decision)> =
            decisions.filter(|(_, decision)| is_removed(decision, kind)).collect();
        // Hooks take time, in which the inspections of the others become outdated.
        turns.sort_by_key(|(_, decision)| has_hooks(decision));
        let mut turns: Vec<usize> = turns.into_iter().map(|(index, _)| index).collect();
        // An image can be removed after its children: in one more round, if this round removed any.
        let mut left = usize::MAX;
        while !turns.is_empty() && turns.len() < left {
            left = turns.len();
            let completion = round(session, &work, &turns, &mut results);
            if completion != Completion::Complete {
                return (results, completion);
            }
            turns.retain(|&index| kind == ObjectKind::Image && is_conflict(results.get(index)));
        }
    }
    (results, Completion::Complete)
}

fn is_removed(decision: &Decision, kind: ObjectKind) -> bool {
    decision.object.kind == kind && matches!(decision.fate, Fate::Remove { .. })
}

fn has_hooks(decision: &Decision) -> bool {
    matches!(&decision.fate, Fate::Remove { how: Removal::Container { deactivate }, .. }
        if !deactivate.is_empty())
}

fn is_conflict(result: Option<&Option<Done>>) -> bool {
    let result = result.and_then(Option::as_ref).map(|done| &done.result);
    matches!(result, Some(Err(RemovalError::Conflict(_))))
}

/// Gives each of the decisions in `turns` one turn.
fn round(
    session: &Session,
    work: &Arc<Work>,
    turns: &[usize],
    results: &mut [Option<Done>],
) -> Completion {
    let (shared, order) = (Arc::clone(work), turns.to_vec());
    parallel::each(
        turns.len(),
        &session.stop,
        session.deadline,
        move |turn| order.get(turn).map(|&index| (index, shared.remove(index))),
        |_, result| {
            let Some((index, Some(done))) = result else { return };
            if let Some(place) = results.get_mut(index) {
                *place = Some(done);
            }
        },
    )
}

impl Work {
    /// `None` if the end came before its turn.
    fn remove(&self, index: usize) -> Option<Done> {
        let decision = self.plan.0.get(index)?;
        let Fate::Remove { how, reason } = &decision.fate else { return None };
        let id = &decision.object.id;
        let mut deactivated = Vec::new();
        let result = match how {
            Removal::Container { deactivate } if deactivate.is_empty() => {
                self.recheck(id, reason).unwrap_or_else(|| self.remove_container(id))
            }
            // A container with hooks is stale, whether it has failed or not, so it is not checked again.
            Removal::Container { deactivate } => {
                let hooks = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                // The lock may have taken time. Work that has begun continues as far as it may.
                self.why_to_end().is_none().then_some(())?;
                deactivated = self.deactivate(id, deactivate, &hooks);
                drop(hooks);
                self.remove_container(id)
            }
            Removal::Image { names } => self.remove_image(names),
            Removal::Volume => {
                let path = format!("/volumes/{}", in_path(id));
                removed(self.request_removal(&path, &format!("remove volume {id}")))
            }
        };
        let is_container = decision.object.kind == ObjectKind::Container;
        if is_container && result.as_ref().is_ok_and(|removed| *removed != Removed::Recovered) {
            self.records.remove(id);
        }
        Some(Done { result, deactivated })
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
            .take_while(|_| self.why_to_end().is_none())
            .map(|volume| deactivate::run(container, volume, lock))
            .collect()
    }

    fn why_to_end(&self) -> Option<Completion> {
        parallel::why_to_end(&self.stop, self.deadline)
    }

    /// The engine carries out a removal once it has the request, whether anybody waits for the answer or not.
    fn request_removal(&self, path: &str, what: &str) -> Result<(), RequestError> {
        match self.why_to_end() {
            None => self.client.remove(path, what).map_err(RequestError::Engine),
            Some(_) => {
                Err(RequestError::NotSent(format!("did not {what}: the command was ending")))
            }
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
