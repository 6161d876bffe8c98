//! What the initramfs of the OS boots, and what it counts. It is another program, whose rules docs/kernel-override.md
//! lists; the model checker plays it by these functions.

use crate::model::kernel::abi::Abi;
use crate::model::kernel::records::{BlockValues, Slot, TRIAL_LIMIT};
use std::collections::BTreeSet;

/// While an update can roll back, the other slot is taken after this many boots.
const BOOT_LIMIT: u32 = 3;

/// What the initramfs sees.
#[derive(Clone, Debug)]
pub(crate) struct BootView<'a> {
    pub(crate) values: &'a BlockValues,
    /// The slot that is to be booted.
    pub(crate) slot: Slot,
    /// Boots since the update.
    pub(crate) boots: u32,
    /// The ABIs whose link leads to a kernel.
    pub(crate) bootable: &'a BTreeSet<Abi>,
    /// What deployed containers claim; empty if that cannot be told.
    pub(crate) claims: &'a BTreeSet<Abi>,
}

/// What it boots, and what it has written before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// `None` for the stock kernel.
    pub(crate) kernel: Option<Abi>,
    pub(crate) slot: Slot,
    pub(crate) boots: u32,
    pub(crate) values: BlockValues,
}

/// Decides the next boot.
pub(crate) fn boot(view: &BootView<'_>) -> Boot {
    let (mut values, mut slot, mut boots) = (view.values.clone(), view.slot, view.boots);
    if values.update_window {
        if boots >= BOOT_LIMIT {
            slot = slot.other();
            values.arm = values.committed.of(slot).clone();
            boots = 0;
        } else {
            boots += 1;
        }
    }
    let arm = values.arm.abi().cloned();
    let can_boot = |abi: &Abi| view.bootable.contains(abi) && view.claims.contains(abi);
    let kernel = arm.filter(|abi| can_boot(abi) && values.boots() < TRIAL_LIMIT);
    if let Some(abi) = &kernel {
        // Counted before the kernel is loaded, so that one that never boots is counted, too.
        if !values.committed.of(slot).names(abi) {
            values.trial = Some(values.boots() + 1);
        }
    }
    Boot { kernel, slot, boots, values }
}
