//! The extensions with the facts that only an inspection shows, for verdicts: from the engine, or from its store on disk
//! if the engine does not answer. No removal is decided from these: `cleanup` inspects by itself.

use super::gather::{self, Inspections, ListedExtensions};
use super::host_view::HostView;
use super::{Failure, Session, resolve};
use crate::host::engine::client::Client;
use crate::host::engine::error::Error;
use crate::host::engine::stored_containers::DataRoot;
use crate::model::engine::doctor::EngineInfo;
use crate::model::engine::inspection::take_record;
use crate::model::engine::inventory::{EngineContainer, Inventory};
use crate::model::engine::metrics::Completeness;
use crate::model::text::cause::chain;
use serde::Serialize;
use std::sync::Arc;

/// Where the containers were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum InventorySource {
    Engine,
    Store,
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
    let (listed, client) = match gather::connect_and_list(session) {
        Ok((client, listed)) => (listed, Some(client)),
        Err(failure) => (gather::from_store(session, failure)?, None),
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
    let inspections = gather::inspect_each(session, &client, &mut chosen);
    let down = why_down(&inspections, &client);
    let root = host.data_root(session);
    let is_completed =
        down.is_some_and(|why| complete_from_store(session, &root, &why, &mut chosen));
    let client = match is_completed {
        true => None,
        false => inspections.completed.map(|()| Some(client))?,
    };
    // A container may have disappeared since it was listed.
    let is_gone = |id: &String| !chosen.iter().any(|container| container.id == *id);
    match names.iter().zip(&ids).find(|(_, id)| is_gone(id)) {
        Some((name, _)) => Err(Failure::NoSuchExtension { name: name.clone() }),
        None => Ok(Inspected { containers: chosen, completeness, host, client }),
    }
}

/// Reads about the containers that were not inspected in the engine's store on disk. Returns whether the store can be
/// read; if not, they remain listed.
fn complete_from_store(
    session: &Session,
    root: &DataRoot,
    down: &str,
    containers: &mut [EngineContainer],
) -> bool {
    let stored = gather::load_store(session, root, down);
    let stored = stored.inspect_err(|neither| session.log.warn(&chain(neither)));
    let Ok(Inventory { containers: records, .. }) = stored else { return false };
    let is_missing = |container: &&mut EngineContainer| container.last_run().is_none();
    containers.iter_mut().filter(is_missing).for_each(|missing| take_record(missing, &records));
    true
}

/// Why the engine counts as down although it has listed the containers: it answered no inspection, or it has stopped
/// answering. If it answers all but some inspections, it is doing something with those containers.
fn why_down(inspections: &Inspections, client: &Client) -> Option<String> {
    let unanswered = inspections.unanswered.as_ref()?;
    if matches!(inspections.completed, Err(Failure::Stopped)) {
        return None;
    }
    if !inspections.answered {
        return Some(chain(unanswered));
    }
    let ping = client.ping("ping the engine").err();
    ping.filter(Error::is_unanswered).map(|error| chain(&error))
}

/// The engine's information about itself, on which little depends.
pub(super) fn about(session: &Session, client: &Client) -> Option<EngineInfo> {
    let info = client.ask("/info", "get information about the engine");
    let missing = |error: &Error| format!("{}; its runtimes are unknown", chain(error));
    info.inspect_err(|error| session.log.debug(|| missing(error))).ok()
}
