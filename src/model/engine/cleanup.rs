//! The cleanup: what goes, what stays, and the reason for each. A plan leaves its executor no choices;
//! a dry run prints the very same plan.

use crate::model::engine::inventory::{Container, Detail, Image, Inventory, Phase, Volume};
use crate::model::extension::claim::{Judgement, Mismatch, Running};
use crate::model::extension::labels::Labels;
use crate::model::text::cause::sentence;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Whether claims may be judged yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Window<'a> {
    /// An OS update may still roll back: stale extensions are the rollback target.
    RollbackPossible,
    /// Nothing will boot another system than the running one again.
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

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    /// A volume's is its name.
    pub(crate) id: String,
    pub(crate) name: String,
    /// What its removal frees, as far as the engine says.
    pub(crate) bytes: Option<u64>,
}

/// The kinds, in the order in which they are removed: nothing goes that another still uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Container,
    Image,
    Volume,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
        })
    }
}

/// Why something goes. Tried in this order, so a container that failed and is also stale reports the
/// failure, which is the one worth a bug report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The engine could not remove it completely before.
    Dead,
    /// It could not be created or started; the engine's error.
    Failed(String),
    /// Claims that the running system violates.
    Stale(Vec<Mismatch>),
}

/// Why something stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// No error, and its claims hold or are not judged.
    Sound,
    /// The engine is removing it.
    GoingAlready,
    /// It runs or is being deployed; extensions do that for a moment only.
    Busy(Phase),
    /// A container that stays uses it.
    InUse,
    /// A claim of it cannot be read, so it counts as none, and the extension never becomes stale by it.
    Malformed(String),
    /// Something that decides could not be read. It is a failure of the cleanup.
    Undecided(String),
}

/// One object and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) object: Object,
    pub(crate) fate: Fate,
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Remove { reason: Reason, how: Removal },
    Keep(Kept),
}

/// How an object is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Before it goes, `deactivate` at the top of these volumes runs, if it is there.
    Container {
        deactivate: Vec<Deactivation>,
    },
    /// By these names, one after the other; the image goes with the last.
    Image {
        names: Vec<String>,
    },
    Volume,
}

/// A volume of a stale container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deactivation {
    pub(crate) volume: String,
    /// Its path on the host.
    pub(crate) path: String,
    /// Why it must not run.
    pub(crate) refused: Option<String>,
}

/// All decisions: containers, then images, then volumes, each in the order of the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan(pub(crate) Vec<Decision>);

impl Plan {
    pub(crate) fn removals(&self) -> impl Iterator<Item = &Decision> {
        self.0.iter().filter(|decision| matches!(decision.fate, Fate::Remove { .. }))
    }

    /// Adds what the engine says that volumes take, by name. It decides nothing.
    pub(crate) fn measure(&mut self, sizes: &BTreeMap<String, u64>) {
        for Decision { object, .. } in &mut self.0 {
            if object.kind == Kind::Volume {
                object.bytes = sizes.get(&object.id).copied();
            }
        }
    }

    /// What could not be decided, and why.
    pub(crate) fn undecided(&self) -> impl Iterator<Item = (&Object, &str)> {
        self.0.iter().filter_map(|decision| match &decision.fate {
            Fate::Keep(Kept::Undecided(why)) => Some((&decision.object, why.as_str())),
            Fate::Keep(_) | Fate::Remove { .. } => None,
        })
    }
}

/// Decides about everything in the inventory.
pub(crate) fn plan(inventory: &Inventory, window: Window<'_>) -> Plan {
    let Inventory { containers, images, volumes, foreign, .. } = inventory;
    let mut decisions = Vec::with_capacity(containers.len() + images.len() + volumes.len());
    let mut used_images: BTreeSet<&str> = foreign.images.iter().map(|image| &**image).collect();
    let mut used_volumes: BTreeSet<&str> = foreign.volumes.iter().map(String::as_str).collect();
    for container in containers {
        let fate = container_fate(container, window, &inventory.shared);
        if matches!(fate, Fate::Keep(_)) {
            used_images.insert(&container.image_id);
            used_volumes.extend(container.volumes());
        }
        decisions.push(Decision { object: container_object(container), fate });
    }
    let judgements: Vec<Judgement> =
        images.iter().map(|image| window.judge(&image.labels)).collect();
    let stay = images.iter().zip(&judgements);
    let stay = stay.filter(|(_, judgement)| !matches!(judgement, Judgement::Violated(_)));
    let stay = stay.map(|(image, _)| image.id.as_str());
    use_ancestors(&mut used_images, stay, inventory);
    // Of what cannot be read nobody knows what it uses.
    let unread = inventory.unreadable.first();
    for (image, judgement) in images.iter().zip(judgements) {
        let in_use = used_images.contains(image.id.as_str());
        let removal = || Removal::Image { names: removal_names(image) };
        let fate = leftover_fate(judgement, in_use, unread, removal);
        let fate = with_malformed(fate, &image.labels, window);
        decisions.push(Decision { object: image_object(image), fate });
    }
    for volume in volumes {
        let in_use = used_volumes.contains(volume.name.as_str());
        let fate = leftover_fate(window.judge(&volume.labels), in_use, unread, || Removal::Volume);
        let fate = with_malformed(fate, &volume.labels, window);
        decisions.push(Decision { object: volume_object(volume), fate });
    }
    Plan(decisions)
}

/// Adds the images that others were built on: those in use, those that stay, and those of others.
fn use_ancestors<'a>(
    used: &mut BTreeSet<&'a str>,
    stay: impl Iterator<Item = &'a str>,
    inventory: &'a Inventory,
) {
    let foreign = inventory.foreign_children.iter().map(String::as_str);
    let mut children: Vec<&str> = used.iter().copied().chain(stay).chain(foreign).collect();
    while let Some(child) = children.pop() {
        if let Some(parent) = inventory.parents.get(child)
            && used.insert(parent)
        {
            children.push(parent);
        }
    }
}

/// Decides about a container. One without claims is never stale: keeping one too many costs disk,
/// removing one too many costs the rollback.
fn container_fate(
    container: &Container,
    window: Window<'_>,
    shared: &BTreeMap<String, String>,
) -> Fate {
    // The engine counts and blocks on it already.
    if container.phase == Phase::Removing {
        return Fate::Keep(Kept::GoingAlready);
    }
    let judgement = window.judge(&container.labels);
    let mismatches = match &judgement {
        Judgement::Violated(mismatches) => mismatches.as_slice(),
        Judgement::Unclaimed | Judgement::Holds | Judgement::Unknown(_) => &[],
    };
    let failure = match (container.phase, &container.detail) {
        (Phase::Created | Phase::Exited, Detail::Known(outcome)) => {
            outcome.failure().map(|error| Reason::Failed(error.to_owned()))
        }
        _ => None,
    };
    let dead = (container.phase == Phase::Dead).then_some(Reason::Dead);
    let stale = (!mismatches.is_empty()).then(|| Reason::Stale(mismatches.to_vec()));
    if let Some(reason) = dead.or(failure).or(stale) {
        // Whatever the headline is, a stale extension may have changed the host.
        let deactivate =
            if mismatches.is_empty() { Vec::new() } else { deactivations(container, shared) };
        return Fate::Remove { reason, how: Removal::Container { deactivate } };
    }
    match (&container.detail, container.phase, judgement) {
        (Detail::Unreadable(why), _, _) => Fate::Keep(Kept::Undecided(why.clone())),
        (_, _, Judgement::Unknown(why)) => Fate::Keep(Kept::Undecided(why.join("; "))),
        (_, Phase::Created | Phase::Exited, _) => Fate::Keep(sound(&container.labels, window)),
        (_, phase, _) => Fate::Keep(Kept::Busy(phase)),
    }
}

/// Decides about an image or a volume: it goes when it is stale and nothing that stays uses it.
fn leftover_fate(
    judgement: Judgement,
    in_use: bool,
    unread: Option<&String>,
    how: impl FnOnce() -> Removal,
) -> Fate {
    match judgement {
        Judgement::Unclaimed | Judgement::Holds => Fate::Keep(Kept::Sound),
        Judgement::Violated(_) | Judgement::Unknown(_) if in_use => Fate::Keep(Kept::InUse),
        Judgement::Violated(mismatches) => match unread {
            Some(why) => Fate::Keep(Kept::Undecided(format!("something may use it: {why}"))),
            None => Fate::Remove { reason: Reason::Stale(mismatches), how: how() },
        },
        Judgement::Unknown(why) => Fate::Keep(Kept::Undecided(why.join("; "))),
    }
}

/// What stays because nothing speaks against it, as far as its labels can be read.
fn sound(labels: &Labels, window: Window<'_>) -> Kept {
    match (window, labels.claims().malformed()) {
        (Window::Committed(_), Some(why)) => Kept::Malformed(why),
        (Window::Committed(_) | Window::RollbackPossible, _) => Kept::Sound,
    }
}

fn with_malformed(fate: Fate, labels: &Labels, window: Window<'_>) -> Fate {
    if fate == Fate::Keep(Kept::Sound) { Fate::Keep(sound(labels, window)) } else { fate }
}

/// Only volumes: a folder of the host belongs to the host.
fn deactivations(container: &Container, shared: &BTreeMap<String, String>) -> Vec<Deactivation> {
    let mounts = container.mounts.iter();
    let volumes = mounts.filter_map(|mount| Some((mount.volume.clone()?, mount.source.clone())));
    let one = |(volume, path)| {
        let refused = shared.get(&volume).cloned();
        Deactivation { volume, path, refused }
    };
    let mut all: Vec<_> = volumes.map(one).collect();
    // One may be mounted in several places.
    let mut seen = BTreeSet::new();
    all.retain(|one| seen.insert(one.volume.clone()));
    // Ten thousand containers may be stale.
    all.shrink_to_fit();
    all
}

/// An image with several names cannot be removed by its id without force, and force would take it away
/// from under a container that was made meanwhile.
fn removal_names(image: &Image) -> Vec<String> {
    if image.names.len() > 1 { image.names.clone() } else { vec![image.id.clone()] }
}

fn container_object(container: &Container) -> Object {
    Object {
        kind: Kind::Container,
        id: container.id.clone(),
        name: container.name.clone(),
        bytes: None,
    }
}

fn image_object(image: &Image) -> Object {
    Object {
        kind: Kind::Image,
        id: image.id.clone(),
        name: image.names.first().cloned().unwrap_or_default(),
        bytes: image.bytes,
    }
}

fn volume_object(volume: &Volume) -> Object {
    Object {
        kind: Kind::Volume,
        id: volume.name.clone(),
        name: volume.name.clone(),
        bytes: volume.bytes,
    }
}

impl Reason {
    /// A stable word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Failed(_) => "failed",
            Self::Stale(_) => "stale",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead => formatter.write_str("the engine could not remove it completely before"),
            Self::Failed(error) => formatter.write_str(&sentence(&format!("it failed: {error}"))),
            Self::Stale(mismatches) => {
                let texts: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
                formatter.write_str(&sentence(&texts.join("; ")))
            }
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
            Self::Sound => formatter.write_str("nothing speaks against it"),
            Self::GoingAlready => formatter.write_str("the engine is removing it"),
            Self::Busy(phase) => write!(formatter, "it is {}", phase.word()),
            Self::InUse => formatter.write_str("something that stays uses it"),
            Self::Malformed(why) => formatter.write_str(why),
            Self::Undecided(why) => {
                formatter.write_str(&sentence(&format!("it cannot be decided: {why}")))
            }
        }
    }
}

#[cfg(test)]
#[path = "cleanup_tests.rs"]
mod tests;
