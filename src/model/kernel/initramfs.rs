//! What the initramfs of the OS boots, and what it counts. It is another program, whose rules docs/kernel-override.md
//! lists; `simulate` and the model checker play it by these functions.

use crate::model::kernel::abi::Abi;
use crate::model::kernel::records::{BlockValues, Field, Slot, TRIAL_LIMIT};
use std::collections::BTreeSet;
use std::fmt;

/// While an update can roll back, the other slot is taken after this many boots.
pub(crate) const BOOT_LIMIT: u32 = 3;

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
    /// The override, or why the stock kernel is booted.
    pub(crate) kernel: Result<Abi, StockReason>,
    pub(crate) slot: Slot,
    pub(crate) boots: u32,
    pub(crate) values: BlockValues,
}

/// Why no override is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StockReason {
    NothingArmed,
    Malformed,
    NoKernel,
    Unclaimed,
    TrialOver,
}

impl fmt::Display for StockReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingArmed => formatter.write_str("no kernel is armed"),
            Self::Malformed => formatter.write_str("the armed value is malformed"),
            Self::NoKernel => formatter.write_str("the link of the armed kernel leads to no file"),
            Self::Unclaimed => formatter.write_str("no deployed extension claims the armed kernel"),
            Self::TrialOver => write!(formatter, "the trial count is not below {TRIAL_LIMIT}"),
        }
    }
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
    let kernel = choose(view, &values);
    if let Ok(abi) = &kernel {
        // Counted before the kernel is loaded, so that one that never boots is counted, too.
        if !values.committed.of(slot).names(abi) {
            values.trial = Some(values.boots() + 1);
        }
    }
    Boot { kernel, slot, boots, values }
}

fn choose(view: &BootView<'_>, values: &BlockValues) -> Result<Abi, StockReason> {
    let abi = match &values.arm {
        Field::Empty => return Err(StockReason::NothingArmed),
        Field::Malformed => return Err(StockReason::Malformed),
        Field::Abi(abi) => abi,
    };
    if !view.bootable.contains(abi) {
        return Err(StockReason::NoKernel);
    }
    if !view.claims.contains(abi) {
        return Err(StockReason::Unclaimed);
    }
    if values.boots() >= TRIAL_LIMIT {
        return Err(StockReason::TrialOver);
    }
    Ok(abi.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abi(digit: char) -> Abi {
        Abi::parse(&digit.to_string().repeat(64)).unwrap()
    }

    fn armed(trial: Option<u32>) -> BlockValues {
        BlockValues { arm: Field::Abi(abi('a')), trial, ..BlockValues::default() }
    }

    /// A boot of slot A on a device that has `a`, and on which it is deployed.
    fn boot_of(values: &BlockValues, boots: u32) -> Boot {
        let all = BTreeSet::from([abi('a')]);
        boot(&BootView { values, slot: Slot::A, boots, bootable: &all, claims: &all })
    }

    #[test]
    fn the_armed_kernel_is_booted_and_counted_unless_a_rule_forbids_it() {
        for (trial, after) in [(None, 1), (Some(0), 1), (Some(2), 3)] {
            let found = boot_of(&armed(trial), 0);
            assert_eq!((found.kernel, found.values.trial), (Ok(abi('a')), Some(after)));
        }
        let mut committed = armed(None);
        committed.committed.a = committed.arm.clone();
        let found = boot_of(&committed, 0);
        assert_eq!((found.kernel, found.values), (Ok(abi('a')), committed));
        let (all, none) = (BTreeSet::from([abi('a')]), BTreeSet::new());
        let malformed = BlockValues { arm: Field::Malformed, ..BlockValues::default() };
        for (values, bootable, claims, why) in [
            (BlockValues::default(), &all, &all, StockReason::NothingArmed),
            (malformed, &all, &all, StockReason::Malformed),
            (armed(None), &none, &all, StockReason::NoKernel),
            (armed(None), &all, &none, StockReason::Unclaimed),
            (armed(Some(3)), &all, &all, StockReason::TrialOver),
        ] {
            let view = BootView { values: &values, slot: Slot::A, boots: 0, bootable, claims };
            let found = boot(&view);
            assert_eq!((found.kernel, found.values), (Err(why), values));
        }
    }

    #[test]
    fn the_third_failed_boot_of_an_update_leads_back_to_what_the_other_slot_has_committed() {
        let mut values = BlockValues { update_window: true, ..armed(None) };
        let found = boot_of(&values, 2);
        assert_eq!((found.slot, found.boots, found.kernel), (Slot::A, 3, Ok(abi('a'))));
        let found = boot_of(&values, 3);
        assert_eq!((found.slot, found.boots), (Slot::B, 0));
        assert_eq!(found.kernel, Err(StockReason::NothingArmed));
        values.committed.b = Field::Abi(abi('a'));
        let found = boot_of(&values, 3);
        assert_eq!((found.kernel, found.values.trial), (Ok(abi('a')), None));
    }
}
