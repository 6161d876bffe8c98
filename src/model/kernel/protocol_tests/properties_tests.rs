//! The properties that hold over every interleaving and every crash point (P1–P5 and P7 of docs/kernel-override.md), and
//! what must be remembered of the past to check them.

use super::world::{CheckEnd, EventsLeft, KERNELS, Nature, World, kernel};
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block_change::BlockChange;
use crate::model::kernel::records::{BlockValues, Field, OverrideRecords, Slot, TRIAL_LIMIT};
use crate::model::kernel::transition::{Event, OverrideStep};
use crate::model::kernel::verdict::OverrideVerdict;

pub(super) const P1: &str = "P1: a rejected kernel is never armed or committed";
pub(super) const P2_LOST: &str = "P2: what a slot has proven is only dropped for a reason";
pub(super) const P2_PROVEN: &str = "P2: only what a slot has proven is committed in it";
pub(super) const P2_LINK: &str = "P2: what is armed or committed is published";
pub(super) const P2_BOOTS: &str = "P2: a slot boots what it has proven, at most one validate later";
pub(super) const P3: &str = "P3: a bad kernel is left within three boots";
pub(super) const P3_CAUSE: &str = "P3: only a bad kernel is rejected";
pub(super) const P4: &str = "P4: every record names a kernel that was verified";
pub(super) const P5: &str = "P5: every state converges";
pub(super) const P7_HUP: &str = "P7: a rollback never condemns a kernel";
pub(super) const P7_WINDOW: &str = "P7: validate judges nothing in an update window";
pub(super) const PRESTATE: &str = "the prestate of a kernel on trial is kept";

/// What has happened to one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct PastOfKernel {
    /// An activation has checked its hash.
    is_verified: bool,
    /// Its last health check failed.
    has_failed: bool,
    /// A step of its rejection was carried out, and nobody has allowed it since.
    is_condemned: bool,
    /// Boots since it was armed, in slots that have not committed it.
    trials: u32,
    /// The slots in which it was healthy.
    proven: [bool; 2],
}

/// What no record shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Past {
    kernels: [PastOfKernel; KERNELS],
    /// The arm is one that an activation has written last.
    is_armed_by_activation: bool,
    /// A property that a step has violated.
    pub(super) violated: Option<&'static str>,
}

fn index(slot: Slot) -> usize {
    usize::from(slot == Slot::B)
}

impl Past {
    pub(super) fn note_boot(
        &mut self,
        before: &BlockValues,
        after: &BlockValues,
        slot: Slot,
        booted: Option<&Abi>,
    ) {
        self.note_arm(before, after);
        if let Some(abi) = booted.filter(|abi| !after.committed.of(slot).names(abi)) {
            // More than one above the limit is no other state.
            let trials = &mut self.kernels[kernel(abi)].trials;
            *trials = (*trials + 1).min(TRIAL_LIMIT + 1);
        }
    }

    pub(super) fn note_check(&mut self, slot: Slot, abi: &Abi, end: CheckEnd) {
        let past = &mut self.kernels[kernel(abi)];
        match end {
            CheckEnd::Passed => (past.proven[index(slot)], past.has_failed) = (true, false),
            CheckEnd::Failed => past.has_failed = true,
            CheckEnd::Stopped => {}
        }
    }

    pub(super) fn note_hup_commit(&mut self, slot: Slot, running: Option<&Abi>) {
        if let Some(abi) = running {
            self.kernels[kernel(abi)].proven[index(slot)] = true;
        }
    }

    fn note_arm(&mut self, before: &BlockValues, after: &BlockValues) {
        if before.arm == after.arm {
            return;
        }
        self.is_armed_by_activation = false;
        if let Some(abi) = after.arm.abi() {
            self.kernels[kernel(abi)].trials = 0;
        }
    }

    fn violate(&mut self, property: &'static str) {
        self.violated.get_or_insert(property);
    }
}

/// Notes a step that was carried out for `event`, and which property it violates.
pub(super) fn note_step(
    world: &mut World,
    before: &OverrideRecords,
    event: &Event<'_>,
    verdict: &OverrideVerdict,
    step: &OverrideStep,
) {
    let World { records, past, claims, .. } = world;
    if before.values.update_window && matches!(event, Event::Judge { .. } | Event::Checked { .. }) {
        past.violate(P7_WINDOW);
    }
    match step {
        OverrideStep::Block(change) => {
            let is_dropped_for_a_reason = |abi: &Abi| {
                !claims.contains(abi)
                    || before.rejected.contains(abi)
                    || before.values.relay.names(abi)
                    || !before.published.contains(abi)
                    || matches!(event, Event::Forget { abi: forgotten } if *forgotten == abi)
            };
            for slot in [Slot::A, Slot::B] {
                let was = before.values.committed.of(slot);
                let is = records.values.committed.of(slot);
                if was == is {
                    continue;
                }
                match is.abi() {
                    Some(abi) if before.rejected.contains(abi) => past.violate(P1),
                    Some(abi) if past.kernels[kernel(abi)].is_condemned => past.violate(P1),
                    Some(abi) if !past.kernels[kernel(abi)].proven[index(slot)] => {
                        past.violate(P2_PROVEN);
                    }
                    Some(_) => {}
                    None if was.abi().is_some_and(|was| !is_dropped_for_a_reason(was)) => {
                        past.violate(P2_LOST);
                    }
                    None => {}
                }
            }
            if let Some(abi) =
                records.values.arm.abi().filter(|_| before.values.arm != records.values.arm)
            {
                if before.rejected.contains(abi) || past.kernels[kernel(abi)].is_condemned {
                    past.violate(P1);
                }
            }
            past.note_arm(&before.values, &records.values);
            if let BlockChange::Arm(_) = change {
                past.is_armed_by_activation = true;
            }
        }
        OverrideStep::AppendRejected(abi) => {
            let of_kernel = past.kernels[kernel(abi)];
            if matches!(event, Event::HupCommit { .. } | Event::HupReject { .. }) {
                past.violate(P7_HUP);
            }
            if matches!(event, Event::Checked { slot, .. } if before.values.committed.of(*slot).names(abi))
            {
                past.violate(P2_LOST);
            }
            if !of_kernel.has_failed && of_kernel.trials < TRIAL_LIMIT {
                past.violate(P3_CAUSE);
            }
        }
        OverrideStep::RemoveRejected(abi) => {
            let of_kernel = &mut past.kernels[kernel(abi)];
            (of_kernel.is_condemned, of_kernel.has_failed, of_kernel.trials) = (false, false, 0);
        }
        OverrideStep::Publish { abi, .. } => past.kernels[kernel(abi)].is_verified = true,
        OverrideStep::Unpublish(_)
        | OverrideStep::SavePrestate
        | OverrideStep::RemovePrestate
        | OverrideStep::Audit(_)
        | OverrideStep::Reboot => {}
    }
    if let OverrideVerdict::Rejected { abi, .. } = verdict {
        past.kernels[kernel(abi)].is_condemned = true;
    }
}

pub(super) fn is_published(world: &World) -> bool {
    let OverrideRecords { values, published, rejected, .. } = &world.records;
    values.named().all(|abi| published.contains(abi) || rejected.contains(abi))
}

pub(super) fn is_left_in_time(world: &World) -> bool {
    (0..KERNELS).all(|kernel| {
        world.natures[kernel] == Nature::Healthy || world.past.kernels[kernel].trials <= TRIAL_LIMIT
    })
}

pub(super) fn is_verified(world: &World) -> bool {
    let OverrideRecords { values, rejected, .. } = &world.records;
    let recorded = world.records.recorded();
    recorded
        .iter()
        .chain(rejected)
        .chain(values.relay.abi())
        .all(|abi| world.past.kernels[kernel(abi)].is_verified)
}

pub(super) fn has_prestate(world: &World) -> bool {
    let BlockValues { arm, committed, .. } = &world.records.values;
    let is_on_trial = arm.abi().is_some() && committed.a != *arm && committed.b != *arm;
    !(is_on_trial && world.past.is_armed_by_activation) || world.prestate
}

/// The records that the next boot finds.
pub(super) fn durable(world: &World) -> World {
    let mut durable = world.clone();
    durable.turn_off();
    durable.past = Past::default();
    durable.update = None;
    durable.left = EventsLeft { changes: 0, updates: 0, kills: 0 };
    durable
}

/// Why a device that is at rest is not as it should be.
pub(super) fn unsettled(world: &World) -> Option<String> {
    let OverrideRecords { values, published, rejected, running } = &world.records;
    let committed = values.committed.of(world.slot);
    let recorded = world.records.recorded();
    if values.update_window || values.relay != Field::Empty {
        Some("a window or a relay remains".to_owned())
    } else if values.arm != *committed || running.as_ref() != committed.abi() {
        Some("the slot does not run what it has committed".to_owned())
    } else if !recorded.is_subset(&world.claims) || !recorded.is_disjoint(rejected) {
        Some("a record of a kernel remains".to_owned())
    } else if !values.named().all(|abi| published.contains(abi)) {
        Some("a committed kernel has no link".to_owned())
    } else {
        None
    }
}

/// The kernel that the next slot has proven, if nothing else is on trial and all its records are in order.
pub(super) fn proven(world: &World) -> Option<Option<Abi>> {
    let OverrideRecords { values, rejected, .. } = &world.records;
    let committed = values.committed.of(world.next_slot);
    let is_at_rest = !values.update_window
        && values.relay == Field::Empty
        && (values.arm == *committed || values.arm == Field::Empty)
        && values.named().all(|abi| !rejected.contains(abi));
    let kernel = committed.abi().filter(|abi| world.claims.contains(*abi)).cloned();
    is_at_rest.then_some(kernel)
}

/// Values that the initial worlds have beside a fresh device.
pub(super) fn malformed() -> BlockValues {
    BlockValues { arm: Field::Malformed, trial: Some(TRIAL_LIMIT), ..BlockValues::default() }
}
