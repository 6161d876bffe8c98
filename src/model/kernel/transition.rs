//! The decisions about kernel overrides: from the records and an event to the steps that follow. Each step is durable
//! before the next one begins, so a crash leaves the effects of a prefix of the list. The programs, `simulate` and the
//! model checker share these functions. docs/kernel-override.md has the same table for people.

use crate::model::kernel::abi::Abi;
use crate::model::kernel::block_change::BlockChange;
use crate::model::kernel::records::{BlockValues, OverrideRecords, Slot, TRIAL_LIMIT};
use crate::model::kernel::verdict::{Cause, OverrideVerdict};
use std::collections::BTreeSet;

/// What the records are judged for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A verb begins: malformed values are removed.
    Begin,
    /// A rollback has left an ABI to forget.
    Relay,
    /// These are all ABIs that deployed containers claim.
    Sweep { claims: &'a BTreeSet<Abi> },
    /// No update can roll back: judge the arm in the slot that runs. `tried` are the kernels whose rejection this call
    /// has completed as far as it can: a link that cannot be removed must not keep others from being judged.
    Judge { slot: Slot, tried: &'a BTreeSet<Abi> },
    /// The health check of the running kernel has ended.
    Checked { slot: Slot, abi: &'a Abi, health: Health },
    /// An extension with this kernel was started; its link leads to `target`.
    Activate { abi: &'a Abi, target: &'a str },
    /// The OS update has proven the slot that runs.
    HupCommit { slot: Slot },
    /// The OS update rolls back, away from the slot that runs.
    HupReject { slot: Slot },
    /// A person wants to be rid of the kernel.
    Forget { abi: &'a Abi },
    /// A person allows a rejected kernel again.
    Retry { abi: &'a Abi },
}

/// What a health check that ran has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Passed,
    Failed,
}

/// One line of the audit record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Audit {
    pub(crate) boots: Option<u32>,
    pub(crate) from: Abi,
    pub(crate) to: Option<Abi>,
    pub(crate) slot: Slot,
}

impl Audit {
    /// The line; `time` is RFC 3339.
    pub(crate) fn line(&self, time: &str) -> String {
        let Self { boots, from, to, slot } = self;
        let to = to.as_ref().map_or("none", Abi::as_str);
        match boots {
            None => format!("{time}: by=health from={from} to={to} slot={slot}\n"),
            Some(boots) => {
                format!("{time}: by=boots from={from} to={to} slot={slot} boots={boots}\n")
            }
        }
    }
}

/// One durable effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum OverrideStep {
    /// One write of the boot environment block.
    Block(BlockChange),
    Publish {
        abi: Abi,
        target: String,
    },
    Unpublish(Abi),
    SavePrestate,
    RemovePrestate,
    AppendRejected(Abi),
    RemoveRejected(Abi),
    Audit(Audit),
    Reboot,
}

impl OverrideStep {
    /// Whether the steps after it are carried out although this one failed. What it leaves, a later sweep removes.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self, Self::Unpublish(_) | Self::RemovePrestate)
    }

    /// Whether it is left out if another kernel was armed meanwhile: the prestate is that kernel's now.
    pub(crate) fn belongs_to_the_arm(&self) -> bool {
        matches!(self, Self::RemovePrestate)
    }
}

/// Why nothing may be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedOverride {
    #[error(
        "the kernel {abi} was tried and rejected, so it is not armed again (to allow it: balena-extension-manager \
         override retry {abi})"
    )]
    Rejected { abi: Abi },
    #[error("the kernel {abi} is not on the list of rejected kernels")]
    NotRejected { abi: Abi },
    #[error("nothing is recorded about the kernel {abi}: it is not armed, committed or published")]
    NotRecorded { abi: Abi },
}

/// A verdict, and the steps that carry it out.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Transition {
    pub(crate) verdict: OverrideVerdict,
    pub(crate) steps: Vec<OverrideStep>,
}

impl Transition {
    fn nothing(verdict: OverrideVerdict) -> Self {
        Self { verdict, steps: Vec::new() }
    }
}

/// Decides what an event leads to.
pub(crate) fn decide(
    records: &OverrideRecords,
    event: &Event<'_>,
) -> Result<Transition, RefusedOverride> {
    let values = &records.values;
    Ok(match event {
        Event::Begin => scrub(values),
        Event::Relay => match values.relay.abi() {
            Some(abi) => consume_relay(abi),
            None => Transition::nothing(OverrideVerdict::Nothing),
        },
        Event::Sweep { claims } => sweep(records, claims),
        Event::Judge { slot, tried } => judge(records, *slot, tried),
        Event::Checked { slot, abi, health } => checked(records, *slot, abi, *health),
        Event::Activate { abi, target } => activate(records, abi, target)?,
        Event::HupCommit { slot } => hup_commit(records, *slot),
        Event::HupReject { slot } => hup_reject(records, *slot),
        Event::Forget { abi } => {
            if !records.recorded().contains(*abi) {
                return Err(RefusedOverride::NotRecorded { abi: (*abi).clone() });
            }
            forget(values, abi)
        }
        Event::Retry { abi } => {
            if !records.rejected.contains(*abi) {
                return Err(RefusedOverride::NotRejected { abi: (*abi).clone() });
            }
            // What an interrupted rejection has left would condemn the kernel again.
            let is_left = records.recorded().contains(*abi);
            let mut steps = if is_left { forget(values, abi).steps } else { Vec::new() };
            steps.push(OverrideStep::RemoveRejected((*abi).clone()));
            Transition { verdict: OverrideVerdict::Allowed { abi: (*abi).clone() }, steps }
        }
    })
}

fn scrub(values: &BlockValues) -> Transition {
    if BlockChange::Scrub.apply(values).values == *values {
        return Transition::nothing(OverrideVerdict::Nothing);
    }
    Transition {
        verdict: OverrideVerdict::Scrubbed,
        steps: vec![OverrideStep::Block(BlockChange::Scrub)],
    }
}

fn consume_relay(abi: &Abi) -> Transition {
    let steps = vec![
        OverrideStep::Block(BlockChange::ConsumeRelay(abi.clone())),
        OverrideStep::Unpublish(abi.clone()),
        OverrideStep::RemovePrestate,
    ];
    Transition { verdict: OverrideVerdict::RelayConsumed { abi: abi.clone() }, steps }
}

fn sweep(records: &OverrideRecords, claims: &BTreeSet<Abi>) -> Transition {
    let abis: BTreeSet<Abi> = records.recorded().difference(claims).cloned().collect();
    if abis.is_empty() {
        return Transition::nothing(OverrideVerdict::Nothing);
    }
    let mut steps = Vec::new();
    if records.values.named().any(|abi| abis.contains(abi)) {
        steps.push(OverrideStep::Block(BlockChange::Forget(abis.clone())));
    }
    steps.extend(records.published.intersection(&abis).cloned().map(OverrideStep::Unpublish));
    if records.values.arm.abi().is_some_and(|arm| abis.contains(arm)) {
        steps.push(OverrideStep::RemovePrestate);
    }
    Transition { verdict: OverrideVerdict::Swept { abis }, steps }
}

/// The decision table. The rows are in the order in which they are tried.
fn judge(records: &OverrideRecords, slot: Slot, tried: &BTreeSet<Abi>) -> Transition {
    let OverrideRecords { values, published, rejected, running } = records;
    if values.update_window {
        // It was opened since the call began.
        return Transition::nothing(OverrideVerdict::Nothing);
    }
    // D3: a crash after the record of a rejection has left the kernel in the block, or its link.
    let mut unfinished: BTreeSet<Abi> =
        records.recorded().intersection(rejected).cloned().collect();
    unfinished.retain(|abi| !tried.contains(abi));
    if !unfinished.is_empty() {
        return finish_rejection(records, slot, unfinished);
    }
    let (arm, committed) = (values.arm.abi(), values.committed.of(slot).abi());
    match (arm, committed) {
        // The count of another kernel, or of the other slot: the initramfs boots no arm once it is 3.
        (Some(arm), Some(committed)) if arm == committed && values.trial.is_some() => {
            restore(slot, committed)
        }
        (Some(arm), Some(committed)) if arm == committed => {
            Transition::nothing(OverrideVerdict::Nothing)
        }
        (None, None) => Transition::nothing(OverrideVerdict::Nothing),
        (None, Some(committed)) => restore(slot, committed),
        (Some(arm), _) if running.as_ref() == Some(arm) => {
            Transition::nothing(OverrideVerdict::Trial { abi: arm.clone() })
        }
        (Some(arm), _) if !published.contains(arm) => forget(values, arm),
        (Some(arm), _) if values.boots() < TRIAL_LIMIT => {
            Transition::nothing(OverrideVerdict::Pending {
                abi: arm.clone(),
                boots: values.boots(),
            })
        }
        (Some(arm), _) => reject(values, slot, arm, Cause::Boots(values.boots())),
    }
}

fn restore(slot: Slot, committed: &Abi) -> Transition {
    let verdict = OverrideVerdict::Restored { abi: committed.clone(), slot };
    Transition { verdict, steps: vec![OverrideStep::Block(BlockChange::Restore(slot))] }
}

fn finish_rejection(records: &OverrideRecords, slot: Slot, abis: BTreeSet<Abi>) -> Transition {
    let is_one = |abi: Option<&Abi>| abi.is_some_and(|abi| abis.contains(abi));
    let mut steps = Vec::new();
    if records.values.named().any(|abi| abis.contains(abi)) {
        steps.push(OverrideStep::Block(BlockChange::FinishRejection { slot, abis: abis.clone() }));
    }
    steps.extend(abis.iter().cloned().map(OverrideStep::Unpublish));
    if is_one(records.values.arm.abi()) {
        steps.push(OverrideStep::RemovePrestate);
    }
    if is_one(records.running.as_ref()) {
        steps.push(OverrideStep::Reboot);
    }
    Transition { verdict: OverrideVerdict::RejectionFinished { abis }, steps }
}

fn forget(values: &BlockValues, abi: &Abi) -> Transition {
    let change = BlockChange::Forget(BTreeSet::from([abi.clone()]));
    let mut steps = vec![OverrideStep::Block(change), OverrideStep::Unpublish(abi.clone())];
    if values.arm.names(abi) {
        steps.push(OverrideStep::RemovePrestate);
    }
    Transition { verdict: OverrideVerdict::Forgotten { abi: abi.clone() }, steps }
}

/// The check took minutes, during which the records may have changed.
fn checked(records: &OverrideRecords, slot: Slot, abi: &Abi, health: Health) -> Transition {
    if records.values.update_window {
        return Transition::nothing(OverrideVerdict::Nothing);
    }
    match health {
        // By another call, which was killed before it has changed the block.
        Health::Passed if records.rejected.contains(abi) => {
            finish_rejection(records, slot, BTreeSet::from([abi.clone()]))
        }
        // By another call. What the slot has proven is not on trial, and without its prestate the check fails.
        Health::Passed | Health::Failed
            if records.values.committed.of(slot).names(abi) && !records.rejected.contains(abi) =>
        {
            Transition::nothing(OverrideVerdict::Nothing)
        }
        Health::Passed => commit(slot, abi),
        Health::Failed => reject(&records.values, slot, abi, Cause::Health),
    }
}

fn commit(slot: Slot, abi: &Abi) -> Transition {
    let change = BlockChange::Commit { slot, abi: abi.clone() };
    let steps = vec![OverrideStep::Block(change), OverrideStep::RemovePrestate];
    Transition { verdict: OverrideVerdict::Committed { abi: abi.clone(), slot }, steps }
}

/// The record comes first: whatever crash follows, the kernel is never tried again.
fn reject(values: &BlockValues, slot: Slot, abi: &Abi, by: Cause) -> Transition {
    let to = values.committed.of(slot).abi().filter(|to| *to != abi).cloned();
    let boots = match by {
        Cause::Boots(boots) => Some(boots),
        Cause::Health => None,
    };
    let audit = Audit { boots, from: abi.clone(), to: to.clone(), slot };
    let mut steps = vec![
        OverrideStep::AppendRejected(abi.clone()),
        OverrideStep::Audit(audit),
        OverrideStep::Block(BlockChange::Reject { slot, abi: abi.clone() }),
        OverrideStep::Unpublish(abi.clone()),
        OverrideStep::RemovePrestate,
    ];
    if by == Cause::Health {
        steps.push(OverrideStep::Reboot);
    }
    Transition { verdict: OverrideVerdict::Rejected { abi: abi.clone(), by, to }, steps }
}

fn activate(
    records: &OverrideRecords,
    abi: &Abi,
    target: &str,
) -> Result<Transition, RefusedOverride> {
    if records.rejected.contains(abi) {
        return Err(RefusedOverride::Rejected { abi: abi.clone() });
    }
    // A relay that is consumed later would drop the trial count and the prestate of this kernel.
    let relay = records.values.relay.abi().filter(|relay| *relay != abi);
    let mut steps = relay.map(|relay| consume_relay(relay).steps).unwrap_or_default();
    steps.extend([
        OverrideStep::Publish { abi: abi.clone(), target: target.to_owned() },
        OverrideStep::SavePrestate,
        OverrideStep::Block(BlockChange::Arm(abi.clone())),
    ]);
    Ok(Transition { verdict: OverrideVerdict::Armed { abi: abi.clone() }, steps })
}

/// The prestate remains: the window of the update is still open.
fn hup_commit(records: &OverrideRecords, slot: Slot) -> Transition {
    match records.values.arm.abi() {
        Some(arm) if records.running.as_ref() == Some(arm) && !records.rejected.contains(arm) => {
            let change = BlockChange::Commit { slot, abi: arm.clone() };
            let verdict = OverrideVerdict::Committed { abi: arm.clone(), slot };
            Transition { verdict, steps: vec![OverrideStep::Block(change)] }
        }
        Some(_) | None => Transition::nothing(OverrideVerdict::Nothing),
    }
}

/// Nothing is recorded as rejected: the root filesystem rolls back, the kernel was not proven bad.
fn hup_reject(records: &OverrideRecords, slot: Slot) -> Transition {
    let OverrideRecords { values, rejected, running, .. } = records;
    let Some(from) = values.arm.abi() else { return Transition::nothing(OverrideVerdict::Nothing) };
    let committed = values.committed.of(slot.other()).abi();
    let to = committed.filter(|abi| !rejected.contains(*abi)).cloned();
    let relay = to.as_ref() != Some(from) && running.as_ref() == Some(from);
    let audit = Audit { boots: None, from: from.clone(), to: to.clone(), slot: slot.other() };
    let change = BlockChange::RollBack { from: from.clone(), to: to.clone(), relay };
    let steps = vec![OverrideStep::Audit(audit), OverrideStep::Block(change)];
    Transition { verdict: OverrideVerdict::RolledBack { from: from.clone(), to }, steps }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum RefusedOverride {
        Rejected { abi }, NotRejected { abi }, NotRecorded { abi },
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
