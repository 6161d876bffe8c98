//! Applying a plan: every removal is tried, and what became of each is told.

use super::Context;
use super::gather::{self, brief};
use super::parallel::{self, Ended};
use super::records::Records;
use crate::host::container::hook;
use crate::host::container::image_hook::{self, Bring, Image};
use crate::host::container::log::ContainerLog;
use crate::host::container::rootfs::{self, Rootfs};
use crate::host::engine::client::Client;
use crate::host::engine::error::Error;
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::os::signals::Stop;
use crate::model::container::spec::Mount;
use crate::model::engine::api::in_path;
use crate::model::engine::cleanup::{Deactivation, Decision, Fate, Kind, Plan, Reason, Removal};
use crate::model::engine::inspection::Errors;
use crate::model::engine::inventory::{Container, Labels, Phase};
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What became of an object that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) result: Result<Became, NotGone>,
    pub(super) deactivated: Vec<Deactivated>,
}

/// What has become of an object, and is nothing to complain about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    Removed,
    /// It had vanished before.
    GoneBefore,
    /// Another program is removing it at this moment.
    BeingRemoved,
    /// The engine could not remove all of it, and remembers it as dead.
    LeftDead,
    /// What spoke against it is gone, so it was left alone.
    Recovered,
}

/// Why an object is not known to have gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotGone {
    /// It is still there.
    Still(String),
    /// It is still there, because the engine says that something else is in the way.
    InTheWay(String),
    /// The engine was asked to remove it, and nobody has heard what it did.
    Unknown(String),
}

impl NotGone {
    pub(super) fn why(&self) -> &str {
        let (Self::Still(why) | Self::InTheWay(why) | Self::Unknown(why)) = self;
        why
    }
}

impl From<Error> for NotGone {
    fn from(error: Error) -> Self {
        let why = chain(&error);
        if error.is_unknown() {
            Self::Unknown(why)
        } else if error.is_conflict() {
            Self::InTheWay(why)
        } else {
            Self::Still(why)
        }
    }
}

/// What became of the `deactivate` of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Deactivated {
    pub(super) volume: String,
    /// What a dry run has found that would be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    /// Whether there was one, and it was started.
    pub(super) ran: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Why a `deactivate` did not do its work.
#[derive(Debug, thiserror::Error)]
enum NotDeactivated {
    #[error("the volume's folder {path:?} is missing")]
    Missing { path: String },
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[error(transparent)]
    Image(#[from] image_hook::Error),
    #[error(transparent)]
    Hook(#[from] hook::Error),
    #[error(
        "deactivate succeeded, but it cannot be told whether it ran in the mount namespace of process 1 \
         ({why}): what it unmounted may still be mounted on the host"
    )]
    Elsewhere { why: String },
}

/// What the removals need, shared by the threads.
struct Work {
    client: Arc<Client>,
    stop: Arc<Stop>,
    deadline: Instant,
    plan: Arc<Plan>,
    records: Records,
    /// Of the containers that have something to deactivate: labels and mounts.
    origins: BTreeMap<String, (Arc<Labels>, Vec<Mount>)>,
    /// One hook at a time: they change the host, and were not written to run beside each other.
    lock: Mutex<OperationLock>,
}

/// Carries `plan` out. The result has a place for each decision; one without a result had no turn.
pub(super) fn apply(
    context: &Context,
    client: &Arc<Client>,
    plan: &Arc<Plan>,
    containers: &[Container],
    lock: OperationLock,
) -> (Vec<Option<Done>>, Ended) {
    let mut results: Vec<Option<Done>> = plan.0.iter().map(|_| None).collect();
    let work = Arc::new(Work {
        client: Arc::clone(client),
        stop: Arc::clone(&context.stop),
        deadline: context.deadline,
        plan: Arc::clone(plan),
        records: Records::find(&context.host),
        origins: origins(plan, containers),
        lock: Mutex::new(lock),
    });
    // Nothing goes that another still uses, so each kind waits for the one before.
    for kind in [Kind::Container, Kind::Image, Kind::Volume] {
        let mut turns: Vec<usize> = (0..plan.0.len())
            .filter(|&index| plan.0.get(index).is_some_and(|decision| goes(decision, kind)))
            .collect();
        // Hooks take their time, in which what is known of the others grows old.
        turns.sort_by_key(|&index| plan.0.get(index).is_some_and(has_hooks));
        // An image goes after those that were built on it: in one more round, if they went in this one.
        let mut left = usize::MAX;
        while !turns.is_empty() && turns.len() < left {
            left = turns.len();
            let ended = round(context, &work, &turns, &mut results);
            if ended != Ended::Complete {
                return (results, ended);
            }
            turns.retain(|&index| kind == Kind::Image && is_in_the_way(results.get(index)));
        }
    }
    (results, Ended::Complete)
}

fn goes(decision: &Decision, kind: Kind) -> bool {
    decision.object.kind == kind && matches!(decision.fate, Fate::Remove { .. })
}

fn has_hooks(decision: &Decision) -> bool {
    matches!(&decision.fate, Fate::Remove { how: Removal::Container { deactivate }, .. }
        if !deactivate.is_empty())
}

fn is_in_the_way(result: Option<&Option<Done>>) -> bool {
    let result = result.and_then(Option::as_ref).map(|done| &done.result);
    matches!(result, Some(Err(NotGone::InTheWay(_))))
}

/// Gives each of the decisions in `turns` one turn.
fn round(
    context: &Context,
    work: &Arc<Work>,
    turns: &[usize],
    results: &mut [Option<Done>],
) -> Ended {
    let (shared, order) = (Arc::clone(work), turns.to_vec());
    parallel::each(
        turns.len(),
        &context.stop,
        context.deadline,
        move |turn| shared.remove(*order.get(turn)?),
        |turn, done: Option<Done>| {
            let index = turns.get(turn).copied().unwrap_or(usize::MAX);
            if let (Some(result), Some(_)) = (results.get_mut(index), &done) {
                *result = done;
            }
        },
    )
}

/// Labels and mounts of the containers whose volumes may have a `deactivate`.
fn origins(plan: &Plan, containers: &[Container]) -> BTreeMap<String, (Arc<Labels>, Vec<Mount>)> {
    let with_hooks = plan.removals().filter(|decision| has_hooks(decision));
    let ids: BTreeSet<&str> = with_hooks.map(|decision| decision.object.id.as_str()).collect();
    let containers = containers.iter().filter(|container| ids.contains(container.id.as_str()));
    containers
        .map(|container| {
            let mounts = container.mounts.iter().map(|mount| Mount {
                destination: mount.destination.clone(),
                source: mount.source.clone(),
            });
            (container.id.clone(), (Arc::clone(&container.labels), mounts.collect()))
        })
        .collect()
}

impl Work {
    /// `None` if there was no turn for it any more.
    fn remove(&self, index: usize) -> Option<Done> {
        let decision = self.plan.0.get(index)?;
        let Fate::Remove { how, reason } = &decision.fate else { return None };
        let id = &decision.object.id;
        let mut deactivated = Vec::new();
        let result = match how {
            Removal::Container { deactivate } => {
                let known = if deactivate.is_empty() {
                    self.look_again(id, reason)
                } else {
                    // It may have been waited for. What has begun is gone on with, as far as it may be.
                    let hooks = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                    self.why_to_end().is_none().then_some(())?;
                    self.deactivate(id, deactivate, &hooks, &mut deactivated);
                    // What has hooks is stale, whether it has failed or not.
                    None
                };
                known.unwrap_or_else(|| self.remove_container(id))
            }
            Removal::Image { names } => self.remove_image(names),
            Removal::Volume => {
                let path = format!("/volumes/{}", in_path(id));
                gone(self.ask_to_remove(&path, &format!("remove volume {id}")))
            }
        };
        if let (Ok(became), Kind::Container) = (&result, decision.object.kind)
            && *became != Became::Recovered
        {
            // What was said at its deploy is of no use to anybody any more.
            self.records.remove(id);
        }
        Some(Done { result, deactivated })
    }

    fn deactivate(
        &self,
        id: &str,
        volumes: &[Deactivation],
        lock: &OperationLock,
        deactivated: &mut Vec<Deactivated>,
    ) {
        let Some((labels, mounts)) = self.origins.get(id) else { return };
        for Deactivation { volume, path, refused } in volumes {
            if self.why_to_end().is_some() {
                return;
            }
            let mut ran = false;
            let error = refused.clone().or_else(|| {
                let done = run_deactivate(path, labels, mounts, lock, &mut ran);
                done.err().map(|error| chain(&error))
            });
            deactivated.push(Deactivated { volume: volume.clone(), program: None, ran, error });
        }
    }

    fn why_to_end(&self) -> Option<Ended> {
        parallel::why_to_end(&self.stop, self.deadline)
    }

    /// Once a removal has been sent the engine carries it out, whether anybody listens or not.
    fn ask_to_remove(&self, path: &str, what: &str) -> Result<(), Refusal> {
        match self.why_to_end() {
            None => self.client.remove(path, what).map_err(Refusal::Engine),
            Some(_) => Err(Refusal::NotSent(format!("{what}: not begun before the end"))),
        }
    }

    /// A failed container was inspected a while ago, and an agent may have started it again since. What it
    /// is now, unless it is to be removed still.
    fn look_again(&self, id: &str, reason: &Reason) -> Option<Result<Became, NotGone>> {
        if !matches!(reason, Reason::Failed(_)) {
            return None;
        }
        match gather::inspect_one(&self.client, id) {
            Err(error) if error.is_absence() => Some(Ok(Became::GoneBefore)),
            Err(error) => Some(Err(NotGone::Still(chain(&error)))),
            Ok(seen) if seen.phase() == Phase::Removing => Some(Ok(Became::BeingRemoved)),
            Ok(seen) => match self.recorded_failure(id) {
                Ok(recorded) if seen.has_recovered(recorded.as_deref()) => {
                    Some(Ok(Became::Recovered))
                }
                Ok(_) => None,
                Err(why) => Some(Err(NotGone::Still(why))),
            },
        }
    }

    /// What the runtime has recorded of a failure, where the engine keeps none.
    fn recorded_failure(&self, id: &str) -> Result<Option<String>, String> {
        match self.client.errors() {
            Errors::Kept => Ok(None),
            Errors::NotKept => self.records.failure(id),
        }
    }

    /// Removes a container with its anonymous volumes.
    fn remove_container(&self, id: &str) -> Result<Became, NotGone> {
        let path = format!("/containers/{}?v=true&force=true", in_path(id));
        let what = format!("remove container {}", brief(id));
        let error = match self.ask_to_remove(&path, &what) {
            Err(Refusal::Engine(error)) if !error.is_absence() && !error.is_stop() => error,
            settled => return gone(settled),
        };
        // What it has become decides: dead counts as done, and is tried again at the next cleanup.
        match gather::inspect_one(&self.client, id) {
            Err(seen) if seen.is_absence() => Ok(Became::Removed),
            Ok(inspected) if inspected.phase() == Phase::Dead => Ok(Became::LeftDead),
            Ok(inspected) if inspected.phase() == Phase::Removing && error.is_conflict() => {
                Ok(Became::BeingRemoved)
            }
            Ok(_) | Err(_) => Err(error.into()),
        }
    }

    /// Takes one name after the other from an image; with the last it goes.
    fn remove_image(&self, names: &[String]) -> Result<Became, NotGone> {
        let mut result = Ok(Became::GoneBefore);
        for name in names {
            let path = format!("/images/{}", in_path(name));
            match gone(self.ask_to_remove(&path, &format!("remove image {}", shown(name)))) {
                Ok(Became::Removed) if result.is_ok() => result = Ok(Became::Removed),
                Ok(_) => {}
                // The first error is the one that tells.
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

/// Why a removal was not answered with success.
enum Refusal {
    /// It was not even sent.
    NotSent(String),
    Engine(Error),
}

/// Runs the executable `deactivate` at the top of a volume, if there is one, under the rules of the image's
/// hooks. `ran` is set when it is started.
fn run_deactivate(
    path: &str,
    labels: &Labels,
    mounts: &[Mount],
    lock: &OperationLock,
    ran: &mut bool,
) -> Result<(), NotDeactivated> {
    if !Path::new(path).is_dir() {
        return Err(NotDeactivated::Missing { path: path.to_owned() });
    }
    let volume = Rootfs::open("/", path)?;
    let image = Image {
        rootfs: &volume,
        labels: &labels.to_map(),
        mounts,
        // No container can have this id.
        id: "@deactivate",
        bring: Bring::IfMissing,
    };
    let Some(hook) = image_hook::find(Verb::Deactivate, &image, lock.as_fd())? else {
        return Ok(());
    };
    let mut heard = hook::Heard::new();
    *ran = true;
    // There is no bundle any more.
    hook.call("/", |call| hook::run(call, lock.as_fd(), &mut ContainerLog::nowhere(), &mut heard))?;
    hook.doubt.map_or(Ok(()), |why| Err(NotDeactivated::Elsewhere { why }))
}

fn shown(name: &str) -> String {
    if name.starts_with("sha256:") { brief(name) } else { name.to_owned() }
}

fn gone(removed: Result<(), Refusal>) -> Result<Became, NotGone> {
    match removed {
        Ok(()) => Ok(Became::Removed),
        Err(Refusal::Engine(error)) if error.is_absence() => Ok(Became::GoneBefore),
        Err(Refusal::Engine(error)) => Err(error.into()),
        Err(Refusal::NotSent(why)) => Err(NotGone::Still(why)),
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum NotDeactivated {
        Missing { path }, Rootfs(..), Image(..), Hook(..), Elsewhere { why },
    }
}
