//! The disks that a power cut can leave: for each point of a recording, what is durable, and of what is not, a part.
//!
//! A change is durable when a later call has synced its file, or its directory. Of the others, which the disk may have
//! or not have, in any order, these combinations are built (a full run builds all, up to 256):
//! - all of them, none of them,
//! - each one alone, and all but each one,
//! - each write in part, with none of the others and with all: its first half, its second half (zeros before it, if the
//!   file grows), and zeros only. A write in place is torn at a boundary of sectors only.
//!
//! A rename is one change. A synced file whose directory is not synced has lost its name, as POSIX allows.

use crate::disk::{Change, Disk, Leaf, NodeId};
use crate::recorder::{Effect, Recording};
use crate::trials::Extent;
use std::collections::{BTreeMap, BTreeSet};

/// A disk writes this many bytes, or none of them.
const SECTOR: usize = 512;
/// All combinations are built for so many changes that are not durable.
const EXHAUSTIVE: u32 = 8;

/// A tree that a power cut can leave.
pub(crate) struct CutDisk {
    /// The point and what was lost, for messages.
    pub(crate) what: String,
    pub(crate) tree: BTreeMap<String, Leaf>,
}

/// The disks of all points of a recording.
pub(crate) struct Cuts {
    pub(crate) points: usize,
    /// How many disks were built.
    pub(crate) built: usize,
    /// Those that differ.
    pub(crate) disks: Vec<CutDisk>,
}

/// What the disk has of a change that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn(Part),
}

/// The part of a write that the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Front,
    Back,
    /// The length, and none of the content.
    Zeros,
}

/// Builds the disks. The point after the last operation is one of them.
pub(crate) fn cuts(recording: &Recording, extent: Extent) -> Cuts {
    let points = recording.operations.len() + 1;
    let mut cuts = Cuts { points, built: 0, disks: Vec::new() };
    let mut seen = BTreeSet::new();
    for point in 0..points {
        let pending = pending(recording, point);
        for fates in combinations(recording, &pending, extent) {
            let tree = disk_at(recording, point, &fates).tree();
            cuts.built += 1;
            if seen.insert(tree.clone()) {
                cuts.disks.push(CutDisk { what: describe(recording, point, &fates), tree });
            }
        }
    }
    cuts
}

/// The changes before `point` that are not durable, by their place in the recording.
fn pending(recording: &Recording, point: usize) -> Vec<usize> {
    let mut pending = Vec::new();
    for (at, operation) in recording.operations[..point].iter().enumerate() {
        let changes = |other: &usize| match &recording.operations[*other].effect {
            Effect::Change(change) => change,
            other => panic!("no change: {other:?}"),
        };
        match &operation.effect {
            Effect::Change(_) => pending.push(at),
            Effect::Sync(node) => pending.retain(|other| subject(changes(other)) != *node),
            Effect::DataSync(node) => pending.retain(|other| {
                let change = changes(other);
                subject(change) != *node || matches!(change, Change::Mode { .. })
            }),
            Effect::SyncAll => pending.clear(),
        }
    }
    pending
}

/// The file or directory that makes a change durable when it is synced.
fn subject(change: &Change) -> NodeId {
    match change {
        Change::Write { file, .. } | Change::Resize { file, .. } => *file,
        Change::Mode { node, .. } => *node,
        Change::Name { folder, .. }
        | Change::Rename { folder, .. }
        | Change::Remove { folder, .. } => *folder,
    }
}

type Fates = BTreeMap<usize, Fate>;

fn combinations(recording: &Recording, pending: &[usize], extent: Extent) -> Vec<Fates> {
    let all = |fate: Fate| -> Fates { pending.iter().map(|at| (*at, fate)).collect() };
    let mut combinations = vec![all(Fate::Kept)];
    if !pending.is_empty() {
        combinations.push(all(Fate::Lost));
    }
    for at in pending {
        let mut parts = vec![Fate::Kept, Fate::Lost];
        if let Effect::Change(Change::Write { .. }) = &recording.operations[*at].effect {
            parts.extend([Part::Front, Part::Back, Part::Zeros].map(Fate::Torn));
        }
        for (others, fate) in [Fate::Lost, Fate::Kept]
            .into_iter()
            .flat_map(|others| parts.iter().map(move |fate| (others, *fate)))
        {
            let mut fates = all(others);
            fates.insert(*at, fate);
            combinations.push(fates);
        }
    }
    let len = u32::try_from(pending.len()).unwrap();
    if extent == Extent::Full && len <= EXHAUSTIVE {
        combinations.extend((0..2_usize.pow(len)).map(|bits| {
            let fate = |bit: usize| if bits >> bit & 1 == 1 { Fate::Kept } else { Fate::Lost };
            pending.iter().enumerate().map(|(bit, at)| (*at, fate(bit))).collect()
        }));
    }
    combinations
}

/// Carries out what comes before `point`.
fn disk_at(recording: &Recording, point: usize, fates: &Fates) -> Disk {
    let mut disk = recording.before.clone();
    for (at, operation) in recording.operations[..point].iter().enumerate() {
        let Effect::Change(change) = &operation.effect else { continue };
        match (fates.get(&at), change) {
            (None | Some(Fate::Kept), _) => disk.apply(change),
            (Some(Fate::Lost), _) => {}
            (Some(Fate::Torn(part)), Change::Write { file, at, bytes }) => {
                torn(&mut disk, *file, *at, bytes, *part);
            }
            (Some(Fate::Torn(_)), other) => panic!("no write: {other:?}"),
        }
    }
    disk
}

/// Carries out a part of a write.
fn torn(disk: &mut Disk, file: NodeId, at: usize, bytes: &[u8], part: Part) {
    let grows = at + bytes.len() > disk.len(file);
    let middle = match grows {
        true => bytes.len() / 2,
        // The boundary of sectors that is nearest to the middle; without one, none of it is written or all.
        false => {
            (at + bytes.len() / 2).next_multiple_of(SECTOR).saturating_sub(at).min(bytes.len())
        }
    };
    let mut write = |at: usize, bytes: &[u8]| {
        disk.apply(&Change::Write { file, at, bytes: bytes.to_vec() });
    };
    match part {
        Part::Front => write(at, &bytes[..middle]),
        Part::Back => write(at + middle, &bytes[middle..]),
        Part::Zeros if grows => write(at, &vec![0; bytes.len()]),
        Part::Zeros => {}
    }
}

fn describe(recording: &Recording, point: usize, fates: &Fates) -> String {
    let call = |at: usize| format!("{} {}", at + 1, recording.operations[at].call);
    let last = point.checked_sub(1).map_or_else(|| "the beginning".to_owned(), call);
    let mut what = format!("after {last}");
    for (at, fate) in fates {
        what.push_str(&format!("; {}: {fate:?}", call(*at)));
    }
    what
}
