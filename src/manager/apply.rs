//! Applying a plan: every removal is tried, and what became of each is told.

use super::Context;
use super::gather::{self, brief};
use super::parallel::{self, Ended};
use crate::host::container_log::ContainerLog;
use crate::host::deploy;
use crate::host::engine::{Client, Error};
use crate::host::hook::{self, Call, folder_or_root};
use crate::host::operation_lock::OperationLock;
use crate::host::rootfs::{self, Rootfs};
use crate::model::cause::chain;
use crate::model::cleanup::{Deactivation, Decision, Fate, Kind, Plan, Removal};
use crate::model::container_id::ContainerId;
use crate::model::engine::in_path;
use crate::model::hook::{self as image_hook, Unpassable, Verb};
use crate::model::inventory::{Container, Labels, Phase};
use crate::model::spec::Mount;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What became of an object that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) result: Result<Gone, String>,
    pub(super) deactivated: Vec<Deactivated>,
}

/// How an object went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Removed,
    /// It had vanished before.
    Before,
    /// Another program is removing it at this moment.
    BeingRemoved,
    /// The engine could not remove all of it, and remembers it as dead.
    LeftDead,
}

/// What became of the `deactivate` of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Deactivated {
    pub(super) volume: String,
    /// Whether there was one.
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
    Unpassable(#[from] Unpassable),
    #[error(transparent)]
    Hook(#[from] hook::Error),
}

/// What the removals need, shared by the threads.
struct Work {
    client: Arc<Client>,
    plan: Arc<Plan>,
    /// Where the records of deploys are.
    records: PathBuf,
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
        plan: Arc::clone(plan),
        records: context.host.path(deploy::FOLDER),
        origins: origins(plan, containers),
        lock: Mutex::new(lock),
    });
    // Nothing goes that another still uses, so each kind waits for the one before.
    for kind in [Kind::Container, Kind::Image, Kind::Volume] {
        let turns: Vec<usize> = plan
            .0
            .iter()
            .enumerate()
            .filter(|(_, decision)| {
                decision.object.kind == kind && matches!(decision.fate, Fate::Remove { .. })
            })
            .map(|(index, _)| index)
            .collect();
        let (shared, order) = (Arc::clone(&work), turns.clone());
        let ended = parallel::each(
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
        );
        if ended != Ended::Complete {
            return (results, ended);
        }
    }
    (results, Ended::Complete)
}

/// Labels and mounts of the containers whose volumes may have a `deactivate`.
fn origins(plan: &Plan, containers: &[Container]) -> BTreeMap<String, (Arc<Labels>, Vec<Mount>)> {
    let to_deactivate = |decision: &&Decision| {
        matches!(&decision.fate, Fate::Remove { how: Removal::Container { deactivate }, .. }
            if !deactivate.is_empty())
    };
    let ids: std::collections::BTreeSet<&str> =
        plan.removals().filter(to_deactivate).map(|decision| decision.object.id.as_str()).collect();
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
    fn remove(&self, index: usize) -> Option<Done> {
        let decision = self.plan.0.get(index)?;
        let Fate::Remove { how, .. } = &decision.fate else { return None };
        let id = &decision.object.id;
        let (deactivated, result) = match how {
            Removal::Container { deactivate } => {
                (self.deactivate(id, deactivate), remove_container(&self.client, id))
            }
            Removal::Image { names } => (Vec::new(), remove_image(&self.client, names)),
            Removal::Volume => {
                let path = format!("/volumes/{}", in_path(id));
                let removed = self.client.remove(&path, &format!("remove volume {id}"));
                (Vec::new(), gone(removed))
            }
        };
        if let (Ok(_), Kind::Container, Ok(id)) =
            (&result, decision.object.kind, ContainerId::parse(id))
        {
            // What was said at its deploy is of no use to anybody any more.
            deploy::remove(&self.records, &id);
        }
        Some(Done { result: result.map_err(|error| chain(&error)), deactivated })
    }

    fn deactivate(&self, id: &str, volumes: &[Deactivation]) -> Vec<Deactivated> {
        let Some((labels, mounts)) = self.origins.get(id) else { return Vec::new() };
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let run = |deactivation: &Deactivation| {
            let ran = run_deactivate(&deactivation.path, labels, mounts, &lock);
            Deactivated {
                volume: deactivation.volume.clone(),
                ran: !matches!(ran, Ok(false)),
                error: ran.err().map(|error| chain(&error)),
            }
        };
        volumes.iter().map(run).collect()
    }
}

/// Runs the executable `deactivate` at the top of a volume, under the rules of the image's hooks.
/// Whether there was one.
fn run_deactivate(
    path: &str,
    labels: &Labels,
    mounts: &[Mount],
    lock: &OperationLock,
) -> Result<bool, NotDeactivated> {
    if !Path::new(path).is_dir() {
        return Err(NotDeactivated::Missing { path: path.to_owned() });
    }
    let volume = Rootfs::open("/", path)?;
    let Some(program) = volume.hook(Verb::Deactivate)? else { return Ok(false) };
    let environment = image_hook::environment(volume.path(), &labels.to_map(), mounts)?;
    let call = Call {
        name: Verb::Deactivate.path(),
        path: &program,
        arguments: &[&program],
        environment: &environment.variables,
        // There is no bundle any more.
        folder: folder_or_root(""),
        limit: image_hook::LIMIT,
        input: None,
    };
    let mut heard = hook::Heard::new();
    hook::run(&call, lock.as_fd(), &mut ContainerLog::nowhere(), &mut heard)?;
    Ok(true)
}

/// Removes a container with its anonymous volumes.
fn remove_container(client: &Client, id: &str) -> Result<Gone, Error> {
    let path = format!("/containers/{}?v=true&force=true", in_path(id));
    let error = match gone(client.remove(&path, &format!("remove container {}", brief(id)))) {
        Ok(gone) => return Ok(gone),
        Err(error) if error.is_stop() => return Err(error),
        Err(error) => error,
    };
    // What it has become decides: dead counts as done, and is tried again at the next cleanup.
    match gather::inspect_one(client, id) {
        Err(seen) if seen.is_absence() => Ok(Gone::Removed),
        Ok(inspected) if inspected.phase() == Phase::Dead => Ok(Gone::LeftDead),
        Ok(inspected) if inspected.phase() == Phase::Removing && error.is_conflict() => {
            Ok(Gone::BeingRemoved)
        }
        Ok(_) | Err(_) => Err(error),
    }
}

/// Takes one name after the other from an image; with the last it goes.
fn remove_image(client: &Client, names: &[String]) -> Result<Gone, Error> {
    let mut result = Ok(Gone::Before);
    for name in names {
        let path = format!("/images/{}", in_path(name));
        match gone(client.remove(&path, &format!("remove image {}", shown(name)))) {
            Ok(Gone::Removed) if result.is_ok() => result = Ok(Gone::Removed),
            Ok(_) => {}
            // The first error is the one that tells.
            Err(error) => result = result.and(Err(error)),
        }
    }
    result
}

fn shown(name: &str) -> String {
    if name.starts_with("sha256:") { brief(name) } else { name.to_owned() }
}

fn gone(removed: Result<(), Error>) -> Result<Gone, Error> {
    match removed {
        Ok(()) => Ok(Gone::Removed),
        Err(error) if error.is_absence() => Ok(Gone::Before),
        Err(error) => Err(error),
    }
}
