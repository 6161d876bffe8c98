//! Plans a cleanup: which objects are removed, which are kept, and the reason for each. The reasons are
//! [`Reason`] and [`Kept`], and all their texts and codes are here. A plan leaves its executor no choices; a dry
//! run prints the same plan.

use crate::model::engine::inventory::{
    Detail, EngineContainer, EngineState, ExtensionImage, Inventory, LastRun, Volume,
};
use crate::model::engine::volume_claims::{ContainerFate, VolumeClaim, VolumeClaims};
use crate::model::extension::claim::{ComparedClaim, Judgement, Running};
use crate::model::extension::labels::Labels;
use crate::model::kernel::volume::is_fabricated;
use crate::model::text::cause::sentence;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Whether claims may be judged yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Window<'a> {
    /// An OS update can still roll back: stale extensions are the rollback target.
    RollbackPossible,
    /// The update is committed: nothing will boot the old system again.
    Committed(&'a Running),
}

impl Window<'_> {
    fn judge(self, labels: &Labels) -> Judgement {
        match self {
            Self::Committed(running) => labels.claims().judge(running),
            Self::RollbackPossible => Judgement::Unclaimed,
        }
    }
}

/// The object of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    /// The name, if it is a volume.
    pub(crate) id: String,
    pub(crate) name: String,
    /// The size that its removal frees, if the engine reports it.
    pub(crate) bytes: Option<u64>,
}

impl Object {
    fn new(kind: ObjectKind, id: &str, name: &str, bytes: Option<u64>) -> Self {
        Self { kind, id: id.to_owned(), name: name.to_owned(), bytes }
    }
}

/// The kinds, in the order of their removal: an object is removed after those that use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ObjectKind {
    Container,
    Image,
    Volume,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// Why an object is removed. Reasons are tried in this order, so a container that failed and is also stale
/// reports the failure, which is the one worth a bug report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// An earlier removal by the engine did not complete.
    Dead,
    /// Its create or start failed, with this error of the engine.
    Failed(String),
    /// The running system violates these claims.
    Stale(Vec<ComparedClaim>),
    /// It is a fabricated volume, and no container that is kept claims it.
    Unclaimed,
}

/// Why an object is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It has no error, and its claims hold or are not judged.
    Sound,
    /// The engine is removing it.
    GoingAlready,
    /// It runs or is being deployed; extensions do that for a moment only.
    Busy(EngineState),
    /// An object that is kept uses it.
    InUse,
    /// A claim is malformed, so it claims nothing, and the extension never becomes stale by it.
    Malformed(String),
    /// A fact that the decision depends on could not be read. This is a failure of the cleanup.
    Undecided(String),
}

/// A decision about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) object: Object,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Remove { reason: Reason, how: Removal },
    Keep(Kept),
}

/// How an object is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// First the `deactivate` at the top of each of these volumes is run, if it exists.
    Container { deactivate: Vec<Deactivation> },
    /// Untagged name by name; the engine removes the image with its last name.
    Image { names: Vec<String> },
    Volume {
        /// The ids of the containers that claim it, all of which are to be removed. If one of them is not, the volume
        /// is kept.
        claimants: Vec<String>,
    },
}

/// A volume of a stale container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deactivation {
    pub(crate) volume: String,
    /// Its path on the host.
    pub(crate) path: String,
    /// Why its `deactivate` must not run.
    pub(crate) refused: Option<String>,
}

/// All decisions: containers, then images, then volumes, each in the order of the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan(pub(crate) Vec<Decision>);

impl Plan {
    /// Whether it removes a volume, whose size must then be requested.
    pub(crate) fn removes_volumes(&self) -> bool {
        self.removals().any(|decision| decision.object.kind == ObjectKind::Volume)
    }

    pub(crate) fn removals(&self) -> impl Iterator<Item = &Decision> {
        self.0.iter().filter(|decision| matches!(decision.fate, Fate::Remove { .. }))
    }

    /// Adds the sizes of volumes, by name. No decision depends on them.
    pub(crate) fn measure(&mut self, sizes: &BTreeMap<String, Option<u64>>) {
        for Decision { object, .. } in &mut self.0 {
            if object.kind == ObjectKind::Volume {
                object.bytes = sizes.get(&object.id).copied().flatten();
            }
        }
    }
}

/// Decides about every object of the inventory.
pub(crate) fn plan(inventory: &Inventory, window: Window<'_>) -> Plan {
    let Inventory { containers, images, volumes, foreign, .. } = inventory;
    let mut decisions = Vec::with_capacity(containers.len() + images.len() + volumes.len());
    let mut used_images: BTreeSet<&str> = foreign.images.iter().map(String::as_str).collect();
    let mut used_volumes: BTreeSet<&str> = foreign.volumes.iter().map(String::as_str).collect();
    let mut claims = VolumeClaims::default();
    for container in containers {
        let fate = container_fate(container, window, &inventory.shared);
        match fate {
            Fate::Keep(_) => {
                used_images.insert(&container.image_id);
                used_volumes.extend(container.volumes());
                claims.add(container, ContainerFate::Kept);
            }
            Fate::Remove { .. } => claims.add(container, ContainerFate::Removed),
        }
        let object = Object::new(ObjectKind::Container, &container.id, &container.name, None);
        decisions.push(Decision { object, fate });
    }
    let is_kept =
        |image: &&ExtensionImage| !matches!(window.judge(&image.labels), Judgement::Violated(_));
    let kept = images.iter().filter(is_kept).map(|image| image.id.as_str());
    use_ancestors(&mut used_images, kept, inventory);
    // An object that cannot be parsed may use any image or volume.
    let unread = inventory.unreadable.first();
    let decide = |object: Object, labels: &Labels, in_use, how| {
        let fate = leftover_fate(labels, window, in_use, unread, how);
        Decision { object, fate }
    };
    decisions.extend(images.iter().map(|image| {
        let ExtensionImage { id, names, labels, bytes } = image;
        let name = names.first().map_or("", String::as_str);
        let object = Object::new(ObjectKind::Image, id, name, *bytes);
        let names = removal_names(image);
        decide(object, labels, used_images.contains(id.as_str()), Removal::Image { names })
    }));
    decisions.extend(volumes.iter().map(|Volume { name, labels, bytes }| {
        let object = Object::new(ObjectKind::Volume, name, name, *bytes);
        let in_use = used_volumes.contains(name.as_str());
        if is_fabricated(name) {
            return Decision { object, fate: fabricated_fate(claims.claim(name), in_use, unread) };
        }
        decide(object, labels, in_use, Removal::Volume { claimants: Vec::new() })
    }));
    Plan(decisions)
}

/// Adds the ancestors of the images that are in use, of those that are kept, and of other images.
fn use_ancestors<'a>(
    used: &mut BTreeSet<&'a str>,
    kept: impl Iterator<Item = &'a str>,
    inventory: &'a Inventory,
) {
    let foreign = inventory.foreign_children.iter().map(String::as_str);
    let mut children: Vec<&str> = used.iter().copied().chain(kept).chain(foreign).collect();
    while let Some(child) = children.pop() {
        if let Some(parent) = inventory.parents.get(child) {
            if used.insert(parent) {
                children.push(parent);
            }
        }
    }
}

/// Decides about a container. A container without claims is never stale: keeping one too many costs disk,
/// removing one too many costs the rollback.
fn container_fate(
    container: &EngineContainer,
    window: Window<'_>,
    shared: &BTreeMap<String, String>,
) -> Fate {
    // A second removal would wait for the engine's own.
    if container.state == EngineState::Removing {
        return Fate::Keep(Kept::GoingAlready);
    }
    let judgement = window.judge(&container.labels);
    let has_ended = matches!(container.state, EngineState::Created | EngineState::Exited);
    let failure = container.last_run().filter(|_| has_ended).and_then(LastRun::failure);
    let reason = match (container.state, failure, &judgement) {
        (EngineState::Dead, _, _) => Some(Reason::Dead),
        (_, Some(error), _) => Some(Reason::Failed(error.to_owned())),
        (_, None, Judgement::Violated(mismatches)) => Some(Reason::Stale(mismatches.clone())),
        (_, None, _) => None,
    };
    if let Some(reason) = reason {
        // Whatever the reason is, a stale extension may have changed the host.
        let is_stale = matches!(judgement, Judgement::Violated(_));
        let deactivate = if is_stale { deactivations(container, shared) } else { Vec::new() };
        return Fate::Remove { reason, how: Removal::Container { deactivate } };
    }
    match (&container.detail, container.state, judgement) {
        (Detail::Unreadable(why), _, _) => Fate::Keep(Kept::Undecided(why.clone())),
        (_, _, Judgement::Unknown(why)) => Fate::Keep(Kept::Undecided(why.join("; "))),
        (_, _, _) if has_ended => Fate::Keep(sound(&container.labels, window)),
        (_, state, _) => Fate::Keep(Kept::Busy(state)),
    }
}

/// Decides about an image or a volume: it is removed if it is stale and no object that is kept uses it.
fn leftover_fate(
    labels: &Labels,
    window: Window<'_>,
    in_use: bool,
    unread: Option<&String>,
    how: Removal,
) -> Fate {
    match window.judge(labels) {
        Judgement::Unclaimed | Judgement::Holds => Fate::Keep(sound(labels, window)),
        Judgement::Violated(_) | Judgement::Unknown(_) if in_use => Fate::Keep(Kept::InUse),
        Judgement::Violated(mismatches) => match unread {
            Some(why) => Fate::Keep(Kept::Undecided(format!("another object may use it: {why}"))),
            None => Fate::Remove { reason: Reason::Stale(mismatches), how },
        },
        Judgement::Unknown(why) => Fate::Keep(Kept::Undecided(why.join("; "))),
    }
}

/// Decides about a fabricated volume. It serves the containers that claim it and nothing else, so neither its own labels
/// nor the window count.
fn fabricated_fate(claim: VolumeClaim, in_use: bool, unread: Option<&String>) -> Fate {
    let claimants = match (claim, in_use) {
        (VolumeClaim::ByKept, _) | (_, true) => return Fate::Keep(Kept::InUse),
        (VolumeClaim::Unknown(why), false) => return Fate::Keep(Kept::Undecided(why)),
        (VolumeClaim::ByRemoved(claimants), false) => claimants,
    };
    match unread {
        Some(why) => Fate::Keep(Kept::Undecided(format!("another object may claim it: {why}"))),
        None => Fate::Remove { reason: Reason::Unclaimed, how: Removal::Volume { claimants } },
    }
}

/// Why an object without a reason to remove it is kept.
fn sound(labels: &Labels, window: Window<'_>) -> Kept {
    match (window, labels.claims().malformed()) {
        (Window::Committed(_), Some(why)) => Kept::Malformed(why),
        (Window::Committed(_) | Window::RollbackPossible, _) => Kept::Sound,
    }
}

/// The volumes whose `deactivate` is to run. A directory of the host belongs to the host.
fn deactivations(
    container: &EngineContainer,
    shared: &BTreeMap<String, String>,
) -> Vec<Deactivation> {
    let mut seen = BTreeSet::new();
    let mounts = container.mounts.iter();
    let volumes = mounts.filter_map(|mount| {
        let volume = mount.volume.clone()?;
        // A volume may be mounted in several places.
        let refused = shared.get(&volume).cloned();
        seen.insert(volume.clone()).then(|| Deactivation {
            volume,
            path: mount.source.clone(),
            refused,
        })
    });
    volumes.collect()
}

/// An image with several names cannot be removed by its id without force, and force would remove it although
/// a container may have been made from it in the meantime.
fn removal_names(image: &ExtensionImage) -> Vec<String> {
    if image.names.len() > 1 { image.names.clone() } else { vec![image.id.clone()] }
}

impl Reason {
    /// A stable word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Failed(_) => "failed",
            Self::Stale(_) => "stale",
            Self::Unclaimed => "unclaimed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead => formatter.write_str("an earlier removal by the engine did not complete"),
            Self::Failed(error) => formatter.write_str(&sentence(&format!("it failed: {error}"))),
            Self::Stale(mismatches) => {
                let texts: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
                formatter.write_str(&sentence(&texts.join("; ")))
            }
            Self::Unclaimed => formatter.write_str("no extension claims the kernel in it any more"),
        }
    }
}

impl Kept {
    /// A stable word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::GoingAlready => "going-already",
            Self::Busy(_) => "busy",
            Self::InUse => "in-use",
            Self::Malformed(_) => "malformed-claim",
            Self::Undecided(_) => "undecided",
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound => formatter.write_str("no reason to remove it"),
            Self::GoingAlready => formatter.write_str("the engine is removing it"),
            Self::Busy(state) => write!(formatter, "its container is {state}"),
            Self::InUse => formatter.write_str("an object that is kept uses it"),
            Self::Malformed(why) => formatter.write_str(why),
            Self::Undecided(why) => {
                formatter.write_str(&sentence(&format!("no decision is possible: {why}")))
            }
        }
    }
}

#[cfg(test)]
#[path = "cleanup_tests.rs"]
mod tests;
