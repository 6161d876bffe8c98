//! `status --format prometheus`: gathers what `model/engine/metrics.rs` renders, and prints it or replaces a file.

use super::inspected::Inspected;
use super::{Failure, ManagerExit, Session, print, space};
use crate::host::engine::cleanup_record;
use crate::host::os::atomic_file;
use crate::model::engine::metrics::{EngineAnswer, ExtensionSample, MetricsSnapshot, applied_set};
use crate::model::engine::space::stale_images;
use crate::model::text::hex::hex;
use sha2::{Digest as _, Sha256};
use std::path::Path;

pub(super) fn metrics(
    session: &Session,
    inspected: &Inspected,
    output: Option<&Path>,
) -> Result<ManagerExit, Failure> {
    let extensions: Vec<_> = inspected
        .containers
        .iter()
        .map(|one| ExtensionSample {
            id: &one.id,
            name: &one.name,
            image: &one.image,
            image_id: &one.image_id,
            reason: inspected.host.explain(one).reason,
        })
        .collect();
    let plan = space::stale_os_plan(session, inspected, &inspected.host.facts.running)?;
    let plan = plan.inspect_err(|why| {
        session.log.warn(&format!("the size of stale images is unknown: {why}"))
    });
    let block = inspected.host.facts.block.as_ref();
    let last_cleanup = cleanup_record::load(&session.host);
    for why in [block.err(), last_cleanup.as_ref().err()].into_iter().flatten() {
        session.log.warn(why);
    }
    let slot = inspected.host.facts.slot.as_ref().ok().copied();
    let applied_set = applied_set(&extensions, inspected.completeness);
    let text = MetricsSnapshot {
        applied_set: applied_set.map(|set| hex(&Sha256::digest(set))),
        extensions,
        completeness: inspected.completeness,
        engine: match inspected.client {
            Some(_) => EngineAnswer::Answered,
            None => EngineAnswer::Down,
        },
        trial_boots: block.ok().and_then(|values| values.trial_boots(slot)),
        stale_images: plan
            .ok()
            .and_then(|(inventory, plan)| stale_images(&plan, &inventory.unreadable)),
        last_cleanup,
    }
    .to_text();
    match output {
        Some(path) => atomic_file::replace_published(path, text.as_bytes())
            .map_err(|source| Failure::Output { path: path.to_owned(), source })?,
        None => print(&text)?,
    }
    Ok(ManagerExit::Done)
}
