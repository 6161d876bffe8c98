//! What a dry run says of the `deactivate` of volumes: which programs would be run. Nothing is run.

use super::apply::Deactivated;
use crate::host::container::rootfs::{self, Rootfs};
use crate::model::engine::cleanup::{Deactivation, Decision, Fate, Removal};
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;

/// Looks into the volumes of a container that would be removed.
pub(super) fn look(decision: &Decision) -> Vec<Deactivated> {
    match &decision.fate {
        Fate::Remove { how: Removal::Container { deactivate }, .. } => {
            deactivate.iter().map(look_into).collect()
        }
        Fate::Remove { .. } | Fate::Keep(_) => Vec::new(),
    }
}

fn look_into(Deactivation { volume, path, refused }: &Deactivation) -> Deactivated {
    let (program, error) = match (refused, program(path)) {
        (Some(why), _) => (None, Some(why.clone())),
        (None, Ok(program)) => (program, None),
        (None, Err(error)) => (None, Some(chain(&error))),
    };
    Deactivated { volume: volume.clone(), program, ran: false, error }
}

fn program(path: &str) -> Result<Option<String>, rootfs::Error> {
    Rootfs::open("/", path)?.hook(Verb::Deactivate)
}
