//! Faults that are planted into the functions under test. The model must find each, by the property that it is named
//! with; so a property that cannot fail is noticed.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a fault changes one case, and leaves the others"
)]

use super::properties::*;
use super::world::{CheckEnd, EventsLeft, Functions, Nature, abi};
use super::{Protocol, protocol};
use crate::model::kernel::block_change::{Applied, BlockChange};
use crate::model::kernel::records::{BlockValues, Field, OverrideRecords};
use crate::model::kernel::transition::{
    Event, Health, OverrideStep, RefusedOverride, Transition, decide,
};
use crate::model::kernel::verdict::OverrideVerdict;
use Nature::{CannotLoad, Fickle, Healthy, NeverBoots, Unhealthy};
use stateright::{Checker as _, HasDiscoveries, Model as _};
use std::collections::BTreeSet;

type Decided = Result<Transition, RefusedOverride>;

const OURS: Functions = Functions::OURS;

fn deciding(decide: fn(&OverrideRecords, &Event<'_>) -> Decided) -> Functions {
    Functions { decide, ..OURS }
}

fn applying(apply: fn(&BlockChange, &BlockValues) -> Applied) -> Functions {
    Functions { apply, ..OURS }
}

/// Our decision, with its steps changed.
fn changed(
    records: &OverrideRecords,
    event: &Event<'_>,
    change: impl FnOnce(&mut Transition),
) -> Decided {
    let mut decision = decide(records, event)?;
    change(&mut decision);
    Ok(decision)
}

fn position(steps: &[OverrideStep], is_meant: impl Fn(&OverrideStep) -> bool) -> Option<usize> {
    steps.iter().position(is_meant)
}

/// Moves the first write of the block to the end.
fn block_last(decision: &mut Transition) {
    if let Some(block) = position(&decision.steps, |step| matches!(step, OverrideStep::Block(_))) {
        let step = decision.steps.remove(block);
        decision.steps.push(step);
    }
}

/// Moves the first write of the block to the start.
fn block_first(decision: &mut Transition) {
    if let Some(block) = position(&decision.steps, |step| matches!(step, OverrideStep::Block(_))) {
        let step = decision.steps.remove(block);
        decision.steps.insert(0, step);
    }
}

fn is_rejection(decision: &Transition) -> bool {
    matches!(decision.verdict, OverrideVerdict::Rejected { .. })
}

struct PlantedFault {
    name: &'static str,
    functions: Functions,
    natures: [Nature; 2],
    /// Changes, updates and kills.
    left: [u8; 3],
    validates: usize,
    property: &'static str,
}

fn fault(
    name: &'static str,
    functions: Functions,
    natures: [Nature; 2],
    left: [u8; 3],
    property: &'static str,
) -> PlantedFault {
    PlantedFault { name, functions, natures, left, validates: 1, property }
}

#[rustfmt::skip]
fn faults() -> Vec<PlantedFault> {
    vec![
        fault(
            "reject writes the block before the list",
            deciding(|records, event| changed(records, event, |decision| {
                if is_rejection(decision) {
                    block_first(decision);
                }
            })),
            [Unhealthy, NeverBoots], [2, 0, 1], P1,
        ),
        fault(
            "reject does not write the list",
            deciding(|records, event| changed(records, event, |decision| {
                decision.steps.retain(|step| !matches!(step, OverrideStep::AppendRejected(_)));
            })),
            [Unhealthy, NeverBoots], [2, 0, 0], P1,
        ),
        fault(
            "the sweep takes claims that cannot be determined for none",
            deciding(|records, event| match event {
                Event::Sweep { .. } => decide(records, &Event::Sweep { claims: &BTreeSet::new() }),
                event => decide(records, event),
            }),
            [Healthy, NeverBoots], [1, 0, 0], P2_LOST,
        ),
        fault(
            "the sweep clears the trial count of another kernel",
            applying(|change, now| {
                let mut applied = change.apply(now);
                if let BlockChange::Forget(_) = change {
                    applied.values.trial = None;
                }
                applied
            }),
            [Healthy, NeverBoots], [3, 0, 0], P3,
        ),
        fault(
            "the slot is taken for the other one",
            Functions { slot: |slot| slot.other(), ..OURS },
            [Healthy, NeverBoots], [1, 0, 0], P2_PROVEN,
        ),
        fault(
            "a stopped check is taken for an unhealthy kernel",
            Functions {
                health: |end| match end {
                    CheckEnd::Passed => Some(Health::Passed),
                    CheckEnd::Failed | CheckEnd::Stopped => Some(Health::Failed),
                },
                ..OURS
            },
            [Healthy, NeverBoots], [1, 0, 0], P3_CAUSE,
        ),
        fault(
            "a kernel that does not run is rejected before its third boot",
            deciding(|records, event| {
                let mut tried = records.clone();
                if let (Event::Judge { .. }, 1..) = (event, records.values.boots()) {
                    tried.values.trial = Some(3);
                }
                decide(&tried, event)
            }),
            [CannotLoad, Healthy], [1, 0, 0], P3_CAUSE,
        ),
        fault(
            "arming keeps the trial count of another kernel",
            applying(|change, now| {
                let mut applied = change.apply(now);
                if let BlockChange::Arm(_) = change {
                    applied.values.trial = now.trial;
                }
                applied
            }),
            [NeverBoots, Healthy], [2, 0, 0], P3_CAUSE,
        ),
        fault(
            "arming drops the trial count of the same kernel",
            applying(|change, now| {
                let mut applied = change.apply(now);
                if let BlockChange::Arm(_) = change {
                    applied.values.trial = None;
                }
                applied
            }),
            [Unhealthy, NeverBoots], [2, 0, 0], P3,
        ),
        fault(
            "commit does not check the arm",
            applying(|change, now| match change {
                BlockChange::Commit { slot, abi } => {
                    let mut values = now.clone();
                    *values.committed.of_mut(*slot) = Field::Abi(abi.clone());
                    Applied { values, arm_moved: false }
                }
                change => change.apply(now),
            }),
            [Healthy, NeverBoots], [2, 0, 0], P2_LINK,
        ),
        fault(
            "a kernel is armed before it is published",
            deciding(|records, event| changed(records, event, |decision| {
                if let OverrideVerdict::Armed { .. } = decision.verdict {
                    block_first(decision);
                }
            })),
            [Healthy, NeverBoots], [1, 0, 1], P2_LINK,
        ),
        fault(
            "the sweep removes the link before the values of the block",
            deciding(|records, event| changed(records, event, |decision| {
                if let OverrideVerdict::Swept { .. } = decision.verdict {
                    block_last(decision);
                }
            })),
            [Healthy, NeverBoots], [2, 0, 1], P2_LINK,
        ),
        fault(
            "a trial count remains beside a committed kernel",
            deciding(|records, event| match event {
                Event::Judge { slot, .. } if records.values.arm == *records.values.committed.of(*slot) => {
                    Ok(Transition { verdict: OverrideVerdict::Nothing, steps: Vec::new() })
                }
                event => decide(records, event),
            }),
            [Healthy, NeverBoots], [1, 1, 0], P2_BOOTS,
        ),
        fault(
            "a rejection that was interrupted is not finished",
            deciding(|records, event| match event {
                Event::Judge { .. } => {
                    decide(&OverrideRecords { rejected: BTreeSet::new(), ..records.clone() }, event)
                }
                event => decide(records, event),
            }),
            [Unhealthy, NeverBoots], [1, 0, 1], P5,
        ),
        fault(
            "a kernel is allowed again while its rejection is half done",
            deciding(|records, event| changed(records, event, |decision| {
                if let OverrideVerdict::Allowed { .. } = decision.verdict {
                    decision.steps.retain(|step| matches!(step, OverrideStep::RemoveRejected(_)));
                }
            })),
            [NeverBoots, Healthy], [2, 0, 1], P3_CAUSE,
        ),
        PlantedFault {
            validates: 2,
            ..fault(
                "a commit does not look at the list that another call has written",
                deciding(|records, event| match event {
                    Event::Checked { health: Health::Passed, .. } => {
                        decide(&OverrideRecords { rejected: BTreeSet::new(), ..records.clone() }, event)
                    }
                    event => decide(records, event),
                }),
                [Fickle, NeverBoots], [1, 0, 1], P1,
            )
        },
        PlantedFault {
            validates: 2,
            ..fault(
                "a check that fails rejects a kernel that another call has committed",
                deciding(|records, event| match event {
                    Event::Checked { slot, .. } => {
                        let mut before = records.clone();
                        *before.values.committed.of_mut(*slot) = Field::Empty;
                        decide(&before, event)
                    }
                    event => decide(records, event),
                }),
                [Fickle, NeverBoots], [1, 0, 0], P2_LOST,
            )
        },
        fault(
            "a malformed arm becomes an ABI",
            applying(|change, now| {
                let mut applied = change.apply(now);
                if let (BlockChange::Scrub, Field::Malformed) = (change, &now.arm) {
                    applied.values.arm = Field::Abi(abi(0));
                }
                applied
            }),
            [Healthy, NeverBoots], [0, 0, 0], P4,
        ),
        fault(
            "hup reject records the kernel as rejected",
            deciding(|records, event| changed(records, event, |decision| {
                if let OverrideVerdict::RolledBack { from, .. } = &decision.verdict {
                    decision.steps.push(OverrideStep::AppendRejected(from.clone()));
                }
            })),
            [Healthy, NeverBoots], [1, 1, 0], P7_HUP,
        ),
        fault(
            "a window that opened during the health check is not seen",
            deciding(|records, event| match event {
                Event::Checked { .. } => {
                    let mut closed = records.clone();
                    closed.values.update_window = false;
                    decide(&closed, event)
                }
                event => decide(records, event),
            }),
            [Healthy, NeverBoots], [1, 1, 0], P7_WINDOW,
        ),
        fault(
            "a verdict removes the prestate of a kernel that was armed meanwhile",
            applying(|change, now| Applied { arm_moved: false, ..change.apply(now) }),
            [Healthy, NeverBoots], [2, 0, 0], PRESTATE,
        ),
    ]
}

/// Faults that show only after many events.
#[rustfmt::skip]
fn deep_faults() -> Vec<PlantedFault> {
    vec![
        fault(
            "activation leaves a relay to the next validate",
            deciding(|records, event| changed(records, event, |decision| {
                if let OverrideVerdict::Armed { .. } = decision.verdict {
                    decision.steps.retain(|step| !matches!(
                        step,
                        OverrideStep::Block(BlockChange::ConsumeRelay(_)) | OverrideStep::Unpublish(_) | OverrideStep::RemovePrestate
                    ));
                }
            })),
            [Healthy, NeverBoots], [2, 1, 0], P3,
        ),
        fault(
            "a rollback leaves the trial count without a relay",
            applying(|change, now| {
                let mut applied = change.apply(now);
                if let BlockChange::RollBack { .. } = change {
                    applied.values.trial = now.trial;
                }
                applied
            }),
            [Healthy, Unhealthy], [2, 1, 0], P3_CAUSE,
        ),
    ]
}

fn planted(fault: &PlantedFault) -> Protocol {
    let [changes, updates, kills] = fault.left;
    let left = EventsLeft { changes, updates, kills };
    Protocol {
        natures: vec![fault.natures],
        validates: fault.validates,
        ..protocol(fault.functions, left)
    }
}

fn find(faults: Vec<PlantedFault>) {
    for fault in faults {
        let checker = planted(&fault)
            .checker()
            .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([fault.property])))
            .spawn_bfs()
            .join();
        let found = checker.discoveries();
        let names: Vec<_> = found.keys().collect();
        assert!(found.contains_key(fault.property), "{}: {names:?}", fault.name);
    }
}

#[test]
fn every_planted_fault_is_found_by_its_property() {
    find(faults());
}

#[test]
#[ignore = "explores many states: make model"]
fn every_deep_planted_fault_is_found_by_its_property() {
    find(deep_faults());
}

#[test]
fn every_property_was_seen_to_fail() {
    let seen: BTreeSet<_> = faults().iter().map(|fault| fault.property).collect();
    let fault = faults().remove(0);
    let all: BTreeSet<_> =
        planted(&fault).properties().iter().map(|property| property.name).collect();
    assert_eq!(seen, all);
}
