//! The disk space of an extension, and what `cleanup --stale-os` would free, in the sizes that the engine reports.

use crate::model::engine::cleanup::{Decision, Fate, Kept, ObjectKind, Plan};
use crate::model::engine::inventory::EngineContainer;
use crate::model::engine::volume_claims::claimed_volume;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The sizes of the engine's objects; `None` if the engine did not report them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectSizes {
    /// By id.
    pub(crate) images: Option<BTreeMap<String, u64>>,
    /// By name; `None` for a volume whose size the engine does not know.
    pub(crate) volumes: Option<BTreeMap<String, Option<u64>>>,
}

/// What an extension takes. docs/manager.md describes the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExtensionSpace {
    image_bytes: Option<u64>,
    volume_bytes: Option<u64>,
}

impl ExtensionSpace {
    /// Image and volumes together; `None` if a part is unknown.
    pub(crate) fn all(self) -> Option<u64> {
        Some(self.image_bytes?.saturating_add(self.volume_bytes?))
    }
}

/// Whether the container may have volumes, so that their sizes must be requested.
pub(crate) fn may_have_volumes(container: &EngineContainer) -> bool {
    container.volumes().next().is_some() || !matches!(claimed_volume(container), Ok(None))
}

impl ObjectSizes {
    pub(crate) fn space(&self, container: &EngineContainer) -> ExtensionSpace {
        let images = self.images.as_ref();
        ExtensionSpace {
            image_bytes: images.and_then(|images| images.get(&container.image_id).copied()),
            volume_bytes: self.volume_bytes(container),
        }
    }

    fn volume_bytes(&self, container: &EngineContainer) -> Option<u64> {
        if !may_have_volumes(container) {
            return self.images.is_some().then_some(0);
        }
        let sizes = self.volumes.as_ref()?;
        let mut sum = 0u64;
        for volume in container.volumes().collect::<BTreeSet<_>>() {
            sum = sum.saturating_add((*sizes.get(volume)?)?);
        }
        // An image without a kernel has no such volume.
        let fabricated = claimed_volume(container).ok()?;
        if let Some(bytes) = fabricated.and_then(|volume| sizes.get(volume.as_str())) {
            sum = sum.saturating_add((*bytes)?);
        }
        Some(sum)
    }
}

/// What `cleanup --stale-os` would remove now. docs/manager.md describes the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reclaimable {
    pub(crate) remove: usize,
    pub(crate) undecided: usize,
    /// The sizes of the images and volumes that would be removed, as far as the engine reports them.
    pub(crate) bytes: u64,
    /// How many of them have an unknown size.
    pub(crate) unmeasured: usize,
}

impl Reclaimable {
    /// `unreadable` are the items of the engine's lists that cannot be parsed.
    pub(crate) fn of(plan: &Plan, unreadable: &[String]) -> Self {
        let mut found = Self { undecided: unreadable.len(), ..Self::default() };
        for Decision { object, fate } in &plan.0 {
            match fate {
                Fate::Keep(Kept::Undecided(_)) => found.undecided += 1,
                Fate::Keep(_) => {}
                Fate::Remove { .. } => {
                    found.remove += 1;
                    match (object.kind, object.bytes) {
                        // Its own layer and its anonymous volumes: the engine does not report their sizes.
                        (ObjectKind::Container, _) => {}
                        (_, Some(bytes)) => found.bytes = found.bytes.saturating_add(bytes),
                        (_, None) => found.unmeasured += 1,
                    }
                }
            }
        }
        found
    }
}

/// The size of the images that the plan removes; `None` if it is unknown, also because an item of the engine's lists
/// cannot be parsed.
pub(crate) fn stale_images(plan: &Plan, unreadable: &[String]) -> Option<u64> {
    if !unreadable.is_empty() {
        return None;
    }
    let images = plan.0.iter().filter(|decision| decision.object.kind == ObjectKind::Image);
    images
        .map(|Decision { object, fate }| match fate {
            Fate::Remove { .. } => object.bytes,
            Fate::Keep(Kept::Undecided(_)) => None,
            Fate::Keep(_) => Some(0),
        })
        .try_fold(0, |sum: u64, bytes| Some(sum.saturating_add(bytes?)))
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
