//! Gathers an inventory from the engine's answers, or from its store on disk if the engine is down.

use super::host_view::{HostView, data_root};
use super::parallel;
use super::{Failure, Session, resolve};
use crate::host::engine::client::Client;
use crate::host::engine::error::Error;
use crate::host::engine::stored_containers;
use crate::model::engine::api::in_path;
use crate::model::engine::doctor::EngineInfo;
use crate::model::engine::inspection::InspectedContainer;
use crate::model::engine::inventory::{Detail, EngineContainer, Inventory, ListedVolumes};
use crate::model::engine::metrics::Completeness;
use crate::model::kernel::volume::is_fabricated;
use crate::model::text::cause::chain;
use crate::model::text::cut::short_id;
use serde::Serialize;
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

/// Inspects the containers, a few at a time. Only an inspection shows whether a container has failed or is dead: in
/// the list, a container that worked once and later failed to start stays `Exited (0)`. A container that has
/// disappeared since it was listed is dropped.
pub(super) fn inspect(
    session: &Session,
    client: &Arc<Client>,
    containers: &mut Vec<EngineContainer>,
) -> Result<(), Failure> {
    let ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
    let work = Arc::clone(client);
    let mut gone = BTreeSet::new();
    parallel::each(
        ids.len(),
        &session.limit,
        move |index| Some(inspect_one(&work, ids.get(index)?)),
        |index, answer| {
            let (Some(container), Some(answer)) = (containers.get_mut(index), answer) else {
                return;
            };
            match answer.map(|inspected| inspected.summary(client.errors())) {
                Ok(Ok(summary)) => summary.add_to(container),
                Ok(Err(error)) => container.detail = Detail::Unreadable(error.to_string()),
                Err(error) if error.is_absence() => {
                    gone.insert(container.id.clone());
                }
                Err(error) => container.detail = Detail::Unreadable(chain(&error)),
            }
        },
    )?;
    if session.limit.stop.is_wished() {
        return Err(Failure::Stopped);
    }
    containers.retain(|container| !gone.contains(&container.id));
    Ok(())
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

/// Where the containers were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum InventorySource {
    Engine,
    Store,
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

/// Inspected extensions, with the facts about their host.
pub(super) struct Inspected {
    pub(super) containers: Vec<EngineContainer>,
    pub(super) completeness: Completeness,
    pub(super) host: HostView,
    /// The engine; `None` if it is down and the containers are from its store.
    pub(super) client: Option<Arc<Client>>,
}

impl Inspected {
    pub(super) fn source(&self) -> InventorySource {
        match self.client {
            Some(_) => InventorySource::Engine,
            None => InventorySource::Store,
        }
    }

    pub(super) fn log_requests(&self, session: &Session) {
        if let Some(client) = &self.client {
            session.log_requests(client);
        }
    }
}

/// The extensions that the user calls `names`, or all if there are no names.
pub(super) fn inspected(session: &Session, names: &[String]) -> Result<Inspected, Failure> {
    let (listed, client) = match connect_and_list(session) {
        Ok((client, listed)) => (listed, Some(client)),
        Err(failure) => (from_store(session, failure)?, None),
    };
    let ListedExtensions { containers: mut chosen, completeness } = listed;
    if !names.is_empty() {
        let find = |name| resolve(&chosen, name, EngineContainer::id_and_name).cloned();
        chosen = names.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
    }
    let Some(client) = client else {
        let host = HostView::read(session, None);
        return Ok(Inspected { containers: chosen, completeness, host, client: None });
    };
    let host = HostView::read(session, about(session, &client));
    let ids: Vec<String> = chosen.iter().map(|container| container.id.clone()).collect();
    inspect(session, &client, &mut chosen)?;
    // A container may have disappeared since it was listed.
    let is_gone = |id: &String| !chosen.iter().any(|container| container.id == *id);
    match names.iter().zip(&ids).find(|(_, id)| is_gone(id)) {
        Some((name, _)) => Err(Failure::NoSuchExtension { name: name.clone() }),
        None => Ok(Inspected { containers: chosen, completeness, host, client: Some(client) }),
    }
}

/// The engine's information about itself, on which little depends.
fn about(session: &Session, client: &Client) -> Option<EngineInfo> {
    let info = client.ask("/info", "get information about the engine");
    let missing = |error: &Error| format!("{}; its runtimes are unknown", chain(error));
    info.inspect_err(|error| session.log.debug(|| missing(error))).ok()
}

/// A list of containers that are not inspected yet.
struct ListedExtensions {
    containers: Vec<EngineContainer>,
    completeness: Completeness,
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

fn connect_and_list(session: &Session) -> Result<(Arc<Client>, ListedExtensions), Failure> {
    let client = Arc::new(session.connect()?);
    let Inventory { containers, unreadable, .. } = containers(&client, Breadth::Extensions)?;
    for item in &unreadable {
        session.log.warn(&format!("{item}; left out"));
    }
    Ok((client, ListedExtensions::new(containers, &unreadable)))
}

/// Reads the engine's store on disk, because the engine could not be asked.
fn from_store(session: &Session, failure: Failure) -> Result<ListedExtensions, Failure> {
    let Failure::Engine(down) = failure else { return Err(failure) };
    if down.is_stop() {
        return Err(Failure::Stopped);
    }
    let root = data_root(session);
    let stored = stored_containers::load(&root).map_err(|error| {
        Failure::NeitherEngineNorStore { engine: chain(&down), store: chain(&error) }
    })?;
    let (engine, path) = (chain(&down), root.host.display_path(&root.path));
    session.log.warn(&format!("{engine}; reading the container store {path:?} instead"));
    for record in &stored.unreadable {
        session.log.warn(&format!("a record of the container store is left out: {record}"));
    }
    Ok(ListedExtensions::new(stored.containers, &stored.unreadable))
}
