//! Gathering: from the engine's answers, or from its store when it is down, to an inventory.

use super::parallel::{self, Ended};
use super::surroundings::{Surroundings, data_root};
use super::{Context, Failure};
use crate::host::engine::client::Client;
use crate::host::engine::error::Error;
use crate::host::engine::stored_containers;
use crate::model::engine::api::in_path;
use crate::model::engine::inspection::InspectedContainer;
use crate::model::engine::inventory::{
    Collector, Container, Detail, Inventory, ListedVolumes, Outcome,
};
use crate::model::text::cause::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The filter for extensions, `{"label":["io.balena.image.class=overlay"]}` percent-encoded.
const EXTENSIONS: &str = "filters=%7B%22label%22%3A%5B%22io.balena.image.class%3Doverlay%22%5D%7D";

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
                let mut told = inspected.told(work.errors());
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
pub(super) fn extensions(context: &Context) -> Result<(Vec<Container>, Source), Failure> {
    let told = context.connect().and_then(|client| {
        let containers = listed(context, &client)?;
        context.note_requests(&client);
        Ok((containers, Source::Engine))
    });
    or_from_store(context, told, |store| (store, Source::Store))
}

/// The same, each inspected, with what is known of their host.
pub(super) fn inspected(
    context: &Context,
) -> Result<(Vec<Container>, Source, Surroundings), Failure> {
    let told = context.connect().and_then(|client| {
        let containers = listed(context, &client)?;
        Ok((Arc::new(client), containers))
    });
    match told {
        Ok((client, mut containers)) => {
            let surroundings = Surroundings::read(context, Some(&client));
            let layering = surroundings.layering.clone();
            // Layers matter only where the host has them, too.
            let trim = move |outcome: &mut Outcome| {
                let Some(layers) = &mut outcome.layers else { return };
                let layered = |layer: &String| {
                    layering.as_ref().is_ok_and(|layering| layering.layers.contains(layer))
                };
                layers.retain(layered);
                layers.shrink_to_fit();
            };
            inspect(context, &client, &mut containers, trim)?;
            context.note_requests(&client);
            Ok((containers, Source::Engine, surroundings))
        }
        Err(failure) => or_from_store(context, Err(failure), |containers| {
            (containers, Source::Store, Surroundings::read(context, None))
        }),
    }
}

fn listed(context: &Context, client: &Client) -> Result<Vec<Container>, Error> {
    let Inventory { containers, unreadable, .. } = containers(client, Breadth::Extensions)?;
    for item in unreadable {
        context.log.warn(&format!("{item}; it is left out"));
    }
    Ok(containers)
}

/// What the engine told, or what `make` makes of its store if it did not answer.
fn or_from_store<T>(
    context: &Context,
    told: Result<T, Failure>,
    make: impl FnOnce(Vec<Container>) -> T,
) -> Result<T, Failure> {
    match told {
        Err(Failure::Engine(error)) if error.is_stop() => Err(Failure::Stopped),
        Err(Failure::Engine(error)) => from_store(context, &error).map(make),
        told => told,
    }
}

fn from_store(context: &Context, down: &Error) -> Result<Vec<Container>, Failure> {
    let root = data_root(context);
    match stored_containers::load(&root) {
        Ok(stored) => {
            let (told, root) = (chain(down), root.host.shown(&root.path));
            context.log.warn(&format!("{told}; told from the container store {root:?} instead"));
            for record in stored.unreadable {
                context.log.warn(&format!("a record of the container store is left out: {record}"));
            }
            Ok(stored.containers)
        }
        Err(error) => {
            Err(Failure::NeitherEngineNorStore { engine: chain(down), store: chain(&error) })
        }
    }
}

/// The id as people see it.
pub(super) fn brief(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}
