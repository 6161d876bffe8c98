//! What each decision changes in the boot environment block. `transition.rs` decides; `host/kernel/block.rs` applies a
//! change to the values that the block has when it is written, under the block's lock.

use crate::model::kernel::abi::Abi;
use crate::model::kernel::records::{BlockValues, Field, Slot};
use std::collections::BTreeSet;

/// A change of the block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum BlockChange {
    Scrub,
    ConsumeRelay(Abi),
    Forget(BTreeSet<Abi>),
    /// Arms what the slot has committed, and ends the trial of what was armed before.
    Restore(Slot),
    Commit {
        slot: Slot,
        abi: Abi,
    },
    Reject {
        slot: Slot,
        abi: Abi,
    },
    /// Removes all of these, which are rejected, and arms what the slot has committed if one of them was armed.
    FinishRejection {
        slot: Slot,
        abis: BTreeSet<Abi>,
    },
    Arm(Abi),
    /// `to` is what the other slot boots; the relay is for an arm that only the slot that is left has run.
    RollBack {
        from: Abi,
        to: Option<Abi>,
        relay: bool,
    },
}

/// What a change makes of the block's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The same values if there is nothing to write.
    pub(crate) values: BlockValues,
    /// Whether the arm is not the one any more that the decision was about. It owns its own boot.
    pub(crate) arm_moved: bool,
}

impl BlockChange {
    pub(crate) fn apply(&self, now: &BlockValues) -> Applied {
        let mut values = now.clone();
        let mut arm_moved = false;
        match self {
            Self::Scrub => {
                if values.arm == Field::Malformed {
                    values.trial = None;
                }
                let BlockValues { arm, committed, relay, .. } = &mut values;
                for field in [arm, &mut committed.a, &mut committed.b, relay] {
                    if *field == Field::Malformed {
                        *field = Field::Empty;
                    }
                }
            }
            Self::ConsumeRelay(abi) => {
                if values.relay.names(abi) {
                    if values.arm.names(abi) {
                        values.arm = Field::Empty;
                    }
                    values.drop_committed(abi);
                    values.trial = None;
                    values.relay = Field::Empty;
                }
            }
            Self::Forget(abis) => {
                match values.arm.abi() {
                    Some(arm) if abis.contains(arm) => {
                        values.arm = Field::Empty;
                        values.trial = None;
                    }
                    arm => arm_moved = arm.is_some(),
                }
                abis.iter().for_each(|abi| values.drop_committed(abi));
            }
            Self::Restore(slot) => {
                let committed = values.committed.of(*slot);
                if values.arm == Field::Empty || values.arm == *committed {
                    values.arm = committed.clone();
                    values.trial = None;
                } else {
                    arm_moved = true;
                }
            }
            Self::Commit { slot, abi } if values.arm.names(abi) => {
                *values.committed.of_mut(*slot) = Field::Abi(abi.clone());
                values.trial = None;
            }
            Self::Reject { slot, abi } if values.arm.names(abi) => {
                values.drop_committed(abi);
                values.trial = None;
                values.arm = values.committed.of(*slot).clone();
            }
            Self::Commit { .. } | Self::Reject { .. } => arm_moved = true,
            Self::FinishRejection { slot, abis } => {
                abis.iter().for_each(|abi| values.drop_committed(abi));
                match values.arm.abi() {
                    Some(arm) if abis.contains(arm) => {
                        values.trial = None;
                        values.arm = values.committed.of(*slot).clone();
                    }
                    arm => arm_moved = arm.is_some(),
                }
            }
            Self::Arm(abi) => {
                if !values.arm.names(abi) {
                    values.arm = Field::Abi(abi.clone());
                    values.trial = None;
                }
            }
            Self::RollBack { from, to, relay } => {
                if values.arm.names(from) {
                    let to = Field::from(to.clone());
                    if *relay {
                        // The trial count goes with the relay.
                        values.relay = Field::Abi(from.clone());
                    } else if values.arm != to {
                        // It would count against a kernel that was not booted, and condemn it.
                        values.trial = None;
                    }
                    values.arm = to;
                } else {
                    arm_moved = true;
                }
            }
        }
        Applied { values, arm_moved }
    }
}
