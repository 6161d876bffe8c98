//! Requests the sizes of extensions from the engine. What `cleanup --stale-os` would free is its own plan.

use super::inspected::Inspected;
use super::{Failure, Session, cleanup, gather};
use crate::host::engine::client::Client;
use crate::host::kernel::boot_mounts;
use crate::model::engine::cleanup::{Plan, Window};
use crate::model::engine::inventory::Inventory;
use crate::model::engine::space::{ObjectSizes, Reclaimable, may_have_volumes};
use crate::model::extension::claim::Running;
use crate::model::kernel::rollback::Rollback;
use crate::model::text::cause::chain;
use serde::Serialize;
use std::collections::BTreeMap;

const NO_ENGINE: &str = "the engine does not answer";

/// What `cleanup --stale-os` would do now. docs/manager.md describes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StaleOs {
    #[serde(flatten)]
    pub(super) reclaimable: Reclaimable,
    /// While it can, the command is refused. `None` if that is unknown.
    pub(super) update_can_roll_back: Option<bool>,
}

/// The sizes of the extensions' images and volumes.
pub(super) fn of_extensions(
    session: &Session,
    inspected: &Inspected,
) -> Result<ObjectSizes, Failure> {
    let Some(client) = &inspected.client else { return Ok(ObjectSizes::default()) };
    let images = known(gather::images(client).map_err(Failure::from))?;
    let images = or_warning(session, images).map(|inventory| inventory.image_sizes);
    let volumes = match inspected.containers.iter().any(may_have_volumes) {
        true => volume_sizes(session, client)?,
        false => None,
    };
    Ok(ObjectSizes { images, volumes })
}

/// The same, and what `cleanup --stale-os` would do on `system`, or why that is unknown.
pub(super) fn of_device(
    session: &Session,
    inspected: &Inspected,
    system: &Running,
) -> Result<(ObjectSizes, Result<StaleOs, String>), Failure> {
    let Some(client) = &inspected.client else {
        return Ok((ObjectSizes::default(), Err(NO_ENGINE.to_owned())));
    };
    let (inventory, mut plan) = match stale_os_plan(session, inspected, system)? {
        Ok(planned) => planned,
        Err(why) => return Ok((of_extensions(session, inspected)?, Err(why))),
    };
    let needed = plan.removes_volumes() || inspected.containers.iter().any(may_have_volumes);
    let volumes = if needed { volume_sizes(session, client)? } else { None };
    if let Some(sizes) = &volumes {
        plan.measure(sizes);
    }
    let stale_os = StaleOs {
        reclaimable: Reclaimable::of(&plan, &inventory.unreadable),
        update_can_roll_back: match boot_mounts::rollback(&session.host) {
            Rollback::Possible { .. } => Some(true),
            Rollback::Impossible => Some(false),
            Rollback::Unknown { .. } => None,
        },
    };
    Ok((ObjectSizes { images: Some(inventory.image_sizes), volumes }, Ok(stale_os)))
}

/// The plan of `cleanup --stale-os`, as if it were not refused, or why there is none. The sizes of volumes are missing.
pub(super) fn stale_os_plan(
    session: &Session,
    inspected: &Inspected,
    system: &Running,
) -> Result<Result<(Inventory, Plan), String>, Failure> {
    let Some(client) = &inspected.client else { return Ok(Err(NO_ENGINE.to_owned())) };
    let window = Window::Committed(system);
    known(cleanup::decide(session, client, window, &inspected.containers))
}

fn volume_sizes(
    session: &Session,
    client: &Client,
) -> Result<Option<BTreeMap<String, Option<u64>>>, Failure> {
    let sizes = known(gather::volume_sizes(client).map_err(Failure::from))?;
    Ok(or_warning(session, sizes))
}

/// A failure to learn a size is no failure of the command; a signal is.
fn known<T>(asked: Result<T, Failure>) -> Result<Result<T, String>, Failure> {
    match asked {
        Ok(answer) => Ok(Ok(answer)),
        Err(Failure::Stopped) => Err(Failure::Stopped),
        Err(Failure::Engine(error)) if error.is_stop() => Err(Failure::Stopped),
        Err(failure) => Ok(Err(chain(&failure))),
    }
}

fn or_warning<T>(session: &Session, asked: Result<T, String>) -> Option<T> {
    asked.inspect_err(|why| session.log.warn(&format!("{why}; sizes are unknown"))).ok()
}
