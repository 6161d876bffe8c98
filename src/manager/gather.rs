//! Gathering: from the engine's answers, or from its store when it is down, to an inventory.

use super::parallel::{self, Ended};
use super::{Context, Failure};
use crate::host::container_store;
use crate::host::engine::{Client, Error};
use crate::host::kernel;
use crate::model::cause::chain;
use crate::model::engine::in_path;
use crate::model::inventory::{
    Collector, Container, Detail, InspectedContainer, Inventory, ListedVolumes, Outcome,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The filter for extensions, `{"label":["io.balena.image.class=overlay"]}` percent-encoded.
const EXTENSIONS: &str = "filters=%7B%22label%22%3A%5B%22io.balena.image.class%3Doverlay%22%5D%7D";
/// Where engines keep their data.
const DATA_ROOTS: [&str; 2] = ["/var/lib/docker", "/mnt/data/docker"];

/// Which containers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breadth {
    Extensions,
    /// Also the others, for what they use.
    Everything,
}

/// Lists containers. What inspection alone tells is not asked.
pub(super) fn containers(client: &Client, breadth: Breadth) -> Result<Inventory, Error> {
    let path = match breadth {
        Breadth::Extensions => format!("/containers/json?all=1&{EXTENSIONS}"),
        Breadth::Everything => "/containers/json?all=1".to_owned(),
    };
    let mut collector = Collector::default();
    client.each(&path, "list the containers", |item| collector.container(item))?;
    Ok(collector.inventory())
}

/// Inspects the containers, a few at a time: only that tells whether one has failed, or is dead. The list
/// does not: one that ended well, and could not be started again, stays `Exited (0)` in it. One that has
/// vanished since it was listed is dropped; one that cannot be inspected says so. `trim` takes from each
/// what nobody will ask for, because there may be ten thousand.
pub(super) fn inspect(
    context: &Context,
    client: &Arc<Client>,
    containers: &mut Vec<Container>,
    trim: impl Fn(&mut Outcome) + Send + Sync + 'static,
) -> Result<(), Failure> {
    let ids: Vec<Box<str>> =
        containers.iter().map(|container| container.id.as_str().into()).collect();
    let work = Arc::clone(client);
    let mut gone = BTreeSet::new();
    let ended = parallel::each(
        ids.len(),
        &context.stop,
        context.deadline,
        // Trimmed before it waits for its turn: the engine may answer faster than this thread runs.
        move |index| {
            Some(inspect_one(&work, ids.get(index)?).map(|inspected| {
                let mut told = inspected.told();
                told.iter_mut().for_each(|told| trim(&mut told.outcome));
                told
            }))
        },
        |index, answer| match (containers.get_mut(index), answer) {
            (Some(container), Some(Ok(Ok(told)))) => told.complete(container),
            (Some(container), Some(Ok(Err(error)))) => {
                container.detail = Detail::Unreadable(error.to_string());
            }
            (Some(_), Some(Err(error))) if error.is_absence() => {
                gone.insert(index);
            }
            (Some(container), Some(Err(error))) => {
                container.detail = Detail::Unreadable(chain(&error));
            }
            (None, _) | (_, None) => {}
        },
    );
    match ended {
        Ended::Complete if context.stop.is_wished() => return Err(Failure::Stopped),
        Ended::Complete => {}
        Ended::Stopped => return Err(Failure::Stopped),
        Ended::OutOfTime => return Err(context.out_of_time()),
    }
    let mut index = 0;
    containers.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
    Ok(())
}

/// Inspects one container.
pub(super) fn inspect_one(client: &Client, id: &str) -> Result<InspectedContainer, Error> {
    let path = format!("/containers/{}/json", in_path(id));
    client.ask(&path, &format!("inspect container {}", brief(id)))
}

/// Lists the images and volumes of extensions.
pub(super) fn leftovers(client: &Client) -> Result<Inventory, Error> {
    let mut collector = Collector::default();
    // All of them: what others were built on stays.
    client.each("/images/json?all=1", "list the images", |item| collector.image(item))?;
    let path = format!("/volumes?{EXTENSIONS}");
    let volumes: ListedVolumes = client.ask_long(&path, "list the volumes")?;
    collector.volumes(&volumes);
    Ok(collector.inventory())
}

/// Asks how large the volumes of extensions are, by name. It takes the engine long, so it is only asked when
/// one is to go.
pub(super) fn volume_sizes(client: &Client) -> Result<BTreeMap<String, u64>, Error> {
    // Older engines take no notice of the type and answer with everything.
    let usage: ListedVolumes =
        client.ask_long("/system/df?type=volume", "ask for the sizes of volumes")?;
    let mut collector = Collector::default();
    collector.volumes(&usage);
    let volumes = collector.inventory().volumes.into_iter();
    Ok(volumes.filter_map(|volume| Some((volume.name, volume.bytes?))).collect())
}

/// Where the containers that are shown come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Engine,
    Store,
}

/// All extensions: from the engine with everything it tells, or from its store when it is down.
pub(super) fn extensions(
    context: &Context,
    depth: Depth,
) -> Result<(Vec<Container>, Source), Failure> {
    let told = context.connect().and_then(|client| {
        let Inventory { containers, unreadable, .. } = containers(&client, Breadth::Extensions)?;
        for item in unreadable {
            context.log.warn(&format!("{item}; it is left out"));
        }
        Ok((Arc::new(client), containers))
    });
    match told {
        Ok((client, mut containers)) => {
            if depth == Depth::Inspected {
                let layering = kernel::layering(&context.host);
                // Layers matter only where the host has them, too.
                let trim = move |outcome: &mut Outcome| {
                    let layered = |layer: &String| {
                        layering.as_ref().is_ok_and(|layering| layering.layers.contains(layer))
                    };
                    outcome.layers.retain(layered);
                    outcome.layers.shrink_to_fit();
                };
                inspect(context, &client, &mut containers, trim)?;
            }
            context.note_requests(&client);
            Ok((containers, Source::Engine))
        }
        Err(Failure::Engine(error)) if error.is_stop() => Err(Failure::Stopped),
        Err(Failure::Engine(error)) => Ok((from_store(context, error)?, Source::Store)),
        Err(failure) => Err(failure),
    }
}

/// How much is asked about each container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Listed,
    Inspected,
}

fn from_store(context: &Context, down: Error) -> Result<Vec<Container>, Failure> {
    let root = data_root(context);
    match container_store::load(&root) {
        Ok(stored) => {
            let told = chain(&down);
            context.log.warn(&format!("{told}; told from the container store {root:?} instead"));
            for record in stored.unreadable {
                context.log.warn(&format!("a record of the container store is left out: {record}"));
            }
            Ok(stored.containers)
        }
        Err(error) => {
            Err(Failure::NeitherEngineNorStore { engine: chain(&down), store: chain(&error) })
        }
    }
}

/// The engine's data root, as far as it can be known without the engine.
pub(super) fn data_root(context: &Context) -> PathBuf {
    if let Some(root) = &context.globals.docker_root {
        return root.clone();
    }
    let mut roots = DATA_ROOTS.iter().map(|root| context.host.path(root));
    let first = roots.next();
    let with_containers = |root: &PathBuf| Path::new(root).join("containers").is_dir();
    first.iter().cloned().chain(roots).find(with_containers).or(first).unwrap_or_default()
}

/// The id as people see it.
pub(super) fn brief(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}
