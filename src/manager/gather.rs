//! Gathers an inventory from the engine's answers, or from its store on disk if the engine is down. Another file,
//! `inspected.rs`, decides which of the two describes the extensions.

use super::host_view::data_root;
use super::parallel;
use super::{Failure, Session};
use crate::host::engine::client::Client;
use crate::host::engine::error::Error;
use crate::host::engine::stored_containers::{self, DataRoot};
use crate::model::engine::api::in_path;
use crate::model::engine::inspection::InspectedContainer;
use crate::model::engine::inventory::{Detail, EngineContainer, Inventory, ListedVolumes};
use crate::model::engine::metrics::Completeness;
use crate::model::kernel::volume::is_fabricated;
use crate::model::text::cause::chain;
use crate::model::text::cut::short_id;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The filter for extensions, `{"label":["io.balena.image.class=overlay"]}` percent-encoded.
const EXTENSIONS: &str = "filters=%7B%22label%22%3A%5B%22io.balena.image.class%3Doverlay%22%5D%7D";
/// The same filter, and `"dangling":["true"]`: only volumes that no container mounts.
const DANGLING: &str = "filters=%7B%22dangling%22%3A%5B%22true%22%5D%2C%22label%22%3A%5B%22io.balena.image.class%3Doverlay%22%5D%7D";

/// Which containers are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breadth {
    Extensions,
    /// Also the others, for the images and volumes that they use.
    Everything,
}

/// Lists containers, without inspecting them.
pub(super) fn containers(client: &Client, breadth: Breadth) -> Result<Inventory, Error> {
    let path = match breadth {
        Breadth::Extensions => format!("/containers/json?all=1&{EXTENSIONS}"),
        Breadth::Everything => "/containers/json?all=1".to_owned(),
    };
    let mut inventory = Inventory::default();
    client.each(&path, "list the containers", |item| inventory.add_container(item))?;
    Ok(inventory)
}

/// The result of inspections.
pub(super) struct Inspections {
    /// Whether the engine answered one, perhaps with an error.
    pub(super) answered: bool,
    /// Why one was not answered.
    pub(super) unanswered: Option<Error>,
    /// An error unless every container had its turn.
    pub(super) completed: Result<(), Failure>,
}

/// Inspects the containers, a few at a time. Only an inspection shows whether a container has failed or is dead: in
/// the list, a container that worked once and later failed to start stays `Exited (0)`. A container that has
/// disappeared since it was listed is dropped.
pub(super) fn inspect(
    session: &Session,
    client: &Arc<Client>,
    containers: &mut Vec<EngineContainer>,
) -> Result<(), Failure> {
    inspect_each(session, client, containers).completed
}

/// [`inspect`], and whether the engine answered.
pub(super) fn inspect_each(
    session: &Session,
    client: &Arc<Client>,
    containers: &mut Vec<EngineContainer>,
) -> Inspections {
    let ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
    let work = Arc::clone(client);
    let (mut gone, mut answered, mut unanswered) = (BTreeSet::new(), false, None);
    let completed = parallel::each(
        ids.len(),
        &session.limit,
        move |index| Some(inspect_one(&work, ids.get(index)?)),
        |index, answer| {
            let (Some(container), Some(answer)) = (containers.get_mut(index), answer) else {
                return;
            };
            answered |= answer.as_ref().err().is_none_or(|error| !error.is_unanswered());
            match answer.map(|inspected| inspected.summary(client.errors())) {
                Ok(Ok(summary)) => summary.add_to(container),
                Ok(Err(error)) => container.detail = Detail::Unreadable(error.to_string()),
                Err(error) if error.is_absence() => {
                    gone.insert(container.id.clone());
                }
                Err(error) => {
                    container.detail = Detail::Unreadable(chain(&error));
                    if error.is_unanswered() {
                        unanswered.get_or_insert(error);
                    }
                }
            }
        },
    );
    let completed = match session.limit.stop.is_wished() {
        true => Err(Failure::Stopped),
        false => completed,
    };
    if let Err(Failure::OutOfTime { .. }) = completed {
        let what = "inspect the containers".to_owned();
        unanswered.get_or_insert(Error::OutOfTime { what });
    }
    containers.retain(|container| !gone.contains(&container.id));
    Inspections { answered, unanswered, completed }
}

/// Inspects one container.
pub(super) fn inspect_one(client: &Client, id: &str) -> Result<InspectedContainer, Error> {
    let path = format!("/containers/{}/json", in_path(id));
    client.ask(&path, &format!("inspect container {}", short_id(id)))
}

/// Lists the images. All of them: the parents of an image that is kept are kept too.
pub(super) fn images(client: &Client) -> Result<Inventory, Error> {
    let mut inventory = Inventory::default();
    client.each("/images/json?all=1", "list the images", |item| inventory.add_image(item))?;
    Ok(inventory)
}

/// Lists the images and volumes of extensions.
pub(super) fn leftovers(client: &Client) -> Result<Inventory, Error> {
    let mut inventory = images(client)?;
    let path = format!("/volumes?{EXTENSIONS}");
    let volumes: ListedVolumes = client.ask_long(&path, "list the volumes")?;
    inventory.add_volumes(&volumes);
    Ok(inventory.without_intermediates())
}

/// Lists the fabricated volumes that no container mounts. They are listed before the containers: each was made for a
/// container that exists already, so one that no container claims afterwards is not needed.
pub(super) fn fabricated_volumes(client: &Client) -> Result<Inventory, Error> {
    let mut inventory = Inventory::default();
    let volumes: ListedVolumes =
        client.ask_long(&format!("/volumes?{DANGLING}"), "list the volumes")?;
    inventory.add_volumes(&volumes);
    inventory.volumes.retain(|volume| is_fabricated(&volume.name));
    Ok(inventory)
}

/// Requests the sizes of all volumes, by name; `None` for one that the engine does not know. The engine takes long to
/// measure them.
pub(super) fn volume_sizes(client: &Client) -> Result<BTreeMap<String, Option<u64>>, Error> {
    // Older engines ignore the type and answer with everything.
    let usage: ListedVolumes =
        client.ask_long("/system/df?type=volume", "get the sizes of volumes")?;
    Ok(usage.sizes())
}

/// All extensions. From the engine they are not inspected.
pub(super) fn extensions(session: &Session) -> Result<Vec<EngineContainer>, Failure> {
    match connect_and_list(session) {
        Ok((client, listed)) => {
            session.log_requests(&client);
            Ok(listed.containers)
        }
        Err(failure) => Ok(from_store(session, failure)?.containers),
    }
}

/// A list of containers that are not inspected yet.
pub(super) struct ListedExtensions {
    pub(super) containers: Vec<EngineContainer>,
    pub(super) completeness: Completeness,
}

impl ListedExtensions {
    fn new(containers: Vec<EngineContainer>, left_out: &[String]) -> Self {
        let completeness = match left_out {
            [] => Completeness::Complete,
            [_, ..] => Completeness::LeftOut,
        };
        Self { containers, completeness }
    }
}

pub(super) fn connect_and_list(
    session: &Session,
) -> Result<(Arc<Client>, ListedExtensions), Failure> {
    let client = Arc::new(session.connect()?);
    let Inventory { containers, unreadable, .. } = containers(&client, Breadth::Extensions)?;
    for item in &unreadable {
        session.log.warn(&format!("{item}; left out"));
    }
    Ok((client, ListedExtensions::new(containers, &unreadable)))
}

/// Reads the engine's store on disk instead of the list that `failure` prevented.
pub(super) fn from_store(session: &Session, failure: Failure) -> Result<ListedExtensions, Failure> {
    let Failure::Engine(down) = failure else { return Err(failure) };
    if down.is_stop() {
        return Err(Failure::Stopped);
    }
    let stored = load_store(session, &data_root(session), &chain(&down))?;
    Ok(ListedExtensions::new(stored.containers, &stored.unreadable))
}

/// Reads the engine's store on disk, because the engine could not be asked.
pub(super) fn load_store(
    session: &Session,
    root: &DataRoot,
    down: &str,
) -> Result<Inventory, Failure> {
    let stored: Inventory = stored_containers::load(root)
        .map_err(|error| Failure::NeitherEngineNorStore {
            engine: down.to_owned(),
            store: chain(&error),
        })?
        .into();
    let path = root.host.display_path(&root.path);
    session.log.warn(&format!("{down}; reading the container store {path:?} instead"));
    for record in &stored.unreadable {
        session.log.warn(&format!("a record of the container store is left out: {record}"));
    }
    Ok(stored)
}
