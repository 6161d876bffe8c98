//! What a boot will make of the extensions: the rules of the initramfs (`boot_selection.rs`, `boot_overlay.rs`), and the
//! claims, by which `cleanup --stale-os` removes. Every reason, with its outcome and next step, is a row of the table
//! below; docs/plan.md explains them, and a test compares the two.

use crate::model::engine::boot_overlay::{BootOverlay, OverlayMember, OverlayPlace, compose};
use crate::model::engine::boot_selection::{
    BootCandidate, BroughtModules, Drop, Selection, StoredLayers, most_layers, select,
};
use crate::model::engine::inventory::EngineContainer;
use crate::model::engine::verdict::Verdict;
use crate::model::extension::claim::{JudgedSystem, Judgement, Running};
use crate::model::extension::labels::OVERRIDE;
use crate::model::text::cause::sentence;
use crate::model::text::cut::short_id;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What becomes of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PlanOutcome {
    Layered,
    /// The initramfs drops it.
    Skipped,
    /// The option string of the overlay has no room for it.
    Pruned,
    /// It claims another system, so `cleanup --stale-os` removes it.
    Stale,
    Unknown,
}

impl fmt::Display for PlanOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// Makes [`PlanReason`] from rows of name, code, outcome and next step.
macro_rules! reasons {
    ($($name:ident $code:literal $outcome:ident $next:literal,)*) => {
        /// Why an outcome is predicted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum PlanReason { $($name,)* }

        impl PlanReason {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code for programs.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            pub(crate) fn outcome(self) -> PlanOutcome {
                match self { $(Self::$name => PlanOutcome::$outcome,)* }
            }

            /// The next step for the user. `{id}` is the container.
            fn next(self) -> &'static str {
                match self { $(Self::$name => $next,)* }
            }
        }
    };
}

reasons! {
    AboveOs "above-os" Layered "none",
    BelowOs "below-os" Layered "none",
    BeingRemoved "being-removed" Skipped "remove it: balena-extension-manager cleanup; then deploy it again",
    StorageDriver "storage-driver" Skipped "run the engine with the storage driver overlay2, and deploy it again",
    CannotMount "cannot-mount" Skipped
        "ship an image with at least one layer, and not too many (balena-extension-manager check counts them)",
    KernelVersion "kernel-version" Skipped "ship a version for the kernel that will run",
    StockKernel "stock-kernel" Skipped
        "deploy its kernel as an override (docs/kernel-override.md), or ship it without lib/modules",
    AnotherKernel "another-kernel" Skipped "ship the modules with the kernel that they belong to",
    NothingLayered "nothing-layered" Skipped "remove the cause, which the second line of the plan names",
    NoRoom "no-room" Pruned
        "ship an image with fewer layers (balena-extension-manager check counts them), or remove an extension",
    OtherSystem "other-system" Stale "ship a version for that system and deploy it, before the update or after it",
    ClaimsUnknown "claims-unknown" Unknown
        "state the system: --os-version, --kernel-release, --kernel-abi; or see balena-extension-manager doctor",
    Unpredictable "unpredictable" Unknown "make readable what the reason names, as root, and ask again",
    RoomUnknown "room-unknown" Unknown
        "make the plan of the other extensions known first: whether this one has room depends on them",
}

/// What is known about an extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedExtension<'a> {
    pub(crate) container: &'a EngineContainer,
    pub(crate) storage: &'a StoredLayers,
    pub(crate) modules: &'a Result<BroughtModules, String>,
    /// The verdict about it on the running system.
    pub(crate) now: Verdict,
}

/// What boots.
#[derive(Clone, Debug)]
pub(crate) struct BootTarget {
    pub(crate) system: Running,
    /// Why the initramfs layers no extension at all, if it does not; or why that is unknown.
    pub(crate) nothing_layered: Result<Option<String>, String>,
    pub(crate) os_layers: usize,
    pub(crate) page: usize,
}

/// The prediction about one extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prediction {
    /// Its number in the list.
    pub(crate) number: usize,
    pub(crate) reason: PlanReason,
    pub(crate) sentence: String,
    pub(crate) next: String,
    /// Where it is in the overlay; `None` if it is not there, or if that is unknown.
    pub(crate) place: Option<OverlayPlace>,
    /// Whether it is applied now, or may be, and will not be after the boot, or may not be.
    pub(crate) is_lost: bool,
}

/// The plan.
#[derive(Clone, Debug)]
pub(crate) struct BootPlan {
    /// In the order of the overlay; those that are not in it come last.
    pub(crate) predictions: Vec<Prediction>,
    pub(crate) overlay: BootOverlay,
}

/// Predicts what becomes of `extensions`, which are in the order of their ids.
pub(crate) fn predict(extensions: &[PlannedExtension<'_>], target: &BootTarget) -> BootPlan {
    let selections: Vec<Selection> = extensions.iter().map(|one| selection(one, target)).collect();
    let unread = unread_layers(extensions, target.page);
    let member = |number: usize| -> Option<OverlayMember<'_>> {
        let extension = extensions.get(number)?;
        Some(OverlayMember {
            name: &extension.container.name,
            priority: extension.container.labels.value(OVERRIDE),
            layers: extension
                .storage
                .layers
                .as_deref()
                .ok()
                .or(unread.get(&number).map(Vec::as_slice))?,
        })
    };
    let compose_of = |is_member: fn(&Selection) -> bool| {
        let numbers: Vec<usize> =
            (0..).zip(&selections).filter(|(_, it)| is_member(it)).map(|(at, _)| at).collect();
        let members: Vec<_> = numbers.iter().filter_map(|at| member(*at)).collect();
        let mut overlay = compose(target.os_layers, &members, target.page);
        let of_member = |member: usize| numbers.get(member).copied().unwrap_or_default();
        for (number, _) in &mut overlay.order {
            *number = of_member(*number);
        }
        for layer in &mut overlay.layers {
            layer.member = layer.member.map(of_member);
        }
        overlay
    };
    let overlay = compose_of(|it| *it == Selection::Selected);
    // With all that may be there.
    let fullest = compose_of(|it| !matches!(it, Selection::Dropped(_)));
    // A longer overlay leaves out more. Below the OS that is not so: where an extension above it is left out, there is
    // more room. With several that are unknown, or one of unknown length, these two overlays then do not show every case.
    let unknown: Vec<usize> = (0..)
        .zip(&selections)
        .filter(|(_, it)| matches!(it, Selection::Unknown(_)))
        .map(|(number, _)| number)
        .collect();
    let is_open = unknown.len() > 1 || unknown.iter().any(|number| unread.contains_key(number));
    let is_override = |number: usize| member(number).is_some_and(|it| it.priority.is_some());
    let is_pruned_above =
        |(number, place): &(usize, _)| *place == OverlayPlace::Pruned && is_override(*number);
    let has_gaps = is_open && fullest.order.iter().any(is_pruned_above);
    let place_in = |overlay: &BootOverlay, number: usize| {
        overlay.order.iter().find(|(other, _)| *other == number).map(|(_, place)| *place)
    };
    let in_order = overlay.order.iter().map(|(number, _)| *number);
    let others = (0..extensions.len()).filter(|number| place_in(&overlay, *number).is_none());
    let predictions = in_order.chain(others).filter_map(|number| {
        let (extension, selection) = (extensions.get(number)?, selections.get(number)?);
        let place = place_in(&overlay, number);
        let is_sure = place == place_in(&fullest, number) && (!has_gaps || is_override(number));
        let (reason, why) = judge(extension, selection, place, is_sure, target);
        let outcome = reason.outcome();
        let may_be_applied =
            matches!(extension.now, Verdict::Applied | Verdict::OnTrial | Verdict::Unknown);
        Some(Prediction {
            number,
            reason,
            sentence: sentence(&why),
            next: sentence(&reason.next().replace("{id}", short_id(&extension.container.id))),
            place: place.filter(|_| is_sure),
            is_lost: may_be_applied && outcome != PlanOutcome::Layered,
        })
    });
    BootPlan { predictions: predictions.collect(), overlay }
}

fn selection(extension: &PlannedExtension<'_>, target: &BootTarget) -> Selection {
    let labels = &extension.container.labels;
    match &target.nothing_layered {
        Ok(None) => {}
        Ok(Some(why)) => return Selection::Dropped(Drop::NothingLayered(why.clone())),
        Err(why) => return Selection::Unknown(why.clone()),
    }
    let PlannedExtension { storage, modules, .. } = *extension;
    select(BootCandidate { labels, storage, modules }, &target.system, target.page)
}

/// As many layers as an extension can have, for each whose own are unknown.
fn unread_layers(extensions: &[PlannedExtension<'_>], page: usize) -> BTreeMap<usize, Vec<String>> {
    let unread = (0..).zip(extensions).filter(|(_, extension)| extension.storage.layers.is_err());
    let layers =
        |number: usize| (0..most_layers(page)).map(|at| format!("{number}:{at}")).collect();
    unread.map(|(number, _)| (number, layers(number))).collect()
}

fn judge(
    extension: &PlannedExtension<'_>,
    selection: &Selection,
    place: Option<OverlayPlace>,
    is_sure: bool,
    target: &BootTarget,
) -> (PlanReason, String) {
    let judgement = extension.container.labels.claims().judge(&target.system);
    if let Selection::Dropped(Drop::NothingLayered(why)) = selection {
        return (PlanReason::NothingLayered, why.clone());
    }
    if let Judgement::Violated(mismatches) = &judgement {
        let all: Vec<String> =
            mismatches.iter().map(|one| one.mismatch(JudgedSystem::Planned)).collect();
        let mut why = all.join("; ");
        if matches!(place, Some(OverlayPlace::AboveOs | OverlayPlace::BelowOs)) {
            let layers = if is_sure { "layers" } else { "may layer" };
            why += &format!(
                "; the boot {layers} it all the same, until cleanup --stale-os removes it"
            );
        }
        return (PlanReason::OtherSystem, why);
    }
    match (selection, place) {
        (Selection::Dropped(drop), _) => (reason_of(drop), drop.to_string()),
        (Selection::Unknown(why), _) => (PlanReason::Unpredictable, why.clone()),
        (Selection::Selected, _) if !is_sure => (
            PlanReason::RoomUnknown,
            "it has room in the overlay only if another extension, which is unknown, is left out"
                .to_owned(),
        ),
        (Selection::Selected, Some(OverlayPlace::Pruned) | None) => (
            PlanReason::NoRoom,
            format!("the options of the overlay would exceed the page of {} bytes", target.page),
        ),
        (Selection::Selected, Some(place)) => match (judgement, place) {
            (Judgement::Unknown(why), _) => (PlanReason::ClaimsUnknown, why.join("; ")),
            (_, OverlayPlace::AboveOs) => {
                (PlanReason::AboveOs, "its files replace those of the OS".to_owned())
            }
            (_, _) => (PlanReason::BelowOs, "it adds files to the OS".to_owned()),
        },
    }
}

fn reason_of(drop: &Drop) -> PlanReason {
    match drop {
        Drop::NothingLayered(_) => PlanReason::NothingLayered,
        Drop::BeingRemoved => PlanReason::BeingRemoved,
        Drop::StorageDriver(_) => PlanReason::StorageDriver,
        Drop::CannotMount { .. } => PlanReason::CannotMount,
        Drop::KernelVersion { .. } => PlanReason::KernelVersion,
        Drop::StockKernel => PlanReason::StockKernel,
        Drop::AnotherKernel => PlanReason::AnotherKernel,
    }
}

#[cfg(test)]
#[path = "boot_plan_tests.rs"]
mod tests;
