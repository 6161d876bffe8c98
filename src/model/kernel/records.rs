//! The records of kernel overrides, as one value. `host/kernel/override_store.rs` loads them, and
//! `transition.rs` decides from them. docs/kernel-override.md describes each record.

use crate::model::kernel::abi::Abi;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// An armed kernel that its slot has not committed is booted this often.
pub(crate) const TRIAL_LIMIT: u32 = 3;

/// A root filesystem. The OS update installs into the one that does not run, and then switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    /// The slot of this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            _ => None,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// The ABI in a key of the boot environment block.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Field {
    /// The key is missing or has no value: the stock kernel.
    #[default]
    Empty,
    Abi(Abi),
    /// Anything else, also a key that has two different values. It is removed before any verdict.
    Malformed,
}

impl Field {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "" => Self::Empty,
            text => Abi::parse(text).map_or(Self::Malformed, Self::Abi),
        }
    }

    /// The ABI; `None` if the field is empty or malformed.
    pub(crate) fn abi(&self) -> Option<&Abi> {
        match self {
            Self::Abi(abi) => Some(abi),
            Self::Empty | Self::Malformed => None,
        }
    }

    pub(crate) fn names(&self, abi: &Abi) -> bool {
        self.abi() == Some(abi)
    }
}

impl From<Option<Abi>> for Field {
    fn from(abi: Option<Abi>) -> Self {
        abi.map_or(Self::Empty, Self::Abi)
    }
}

/// What each slot has proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Committed {
    pub(crate) a: Field,
    pub(crate) b: Field,
}

impl Committed {
    pub(crate) fn of(&self, slot: Slot) -> &Field {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    pub(crate) fn of_mut(&mut self, slot: Slot) -> &mut Field {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }
}

/// The values of the boot environment block that overrides are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockValues {
    /// What to boot next.
    pub(crate) arm: Field,
    pub(crate) committed: Committed,
    /// Boots spent on an arm that its slot has not committed. `None` if the key is missing; a value that is not a
    /// number counts as 0.
    pub(crate) trial: Option<u32>,
    /// The ABI that the next boot forgets.
    pub(crate) relay: Field,
    /// An OS update can still roll back. Never written.
    pub(crate) update_window: bool,
}

impl BlockValues {
    pub(crate) fn boots(&self) -> u32 {
        self.trial.unwrap_or_default()
    }

    /// Whether a kernel is armed that the slot has not committed.
    pub(crate) fn is_on_trial(&self, slot: Slot) -> bool {
        let arm = self.arm.abi();
        arm.is_some() && arm != self.committed.of(slot).abi()
    }

    /// The same in the running slot; `None` if that is unknown and counts.
    pub(crate) fn is_on_trial_in(&self, running: Option<Slot>) -> Option<bool> {
        let [in_a, in_b] = [Slot::A, Slot::B].map(|slot| self.is_on_trial(slot));
        running.map(|slot| self.is_on_trial(slot)).or((in_a == in_b).then_some(in_a))
    }

    /// The boots of the kernel on trial, 0 if none is: a count may be left over. `None` if it is unknown.
    pub(crate) fn trial_boots(&self, running: Option<Slot>) -> Option<u32> {
        self.is_on_trial_in(running).map(|is_on_trial| if is_on_trial { self.boots() } else { 0 })
    }

    /// The ABIs that are armed or committed.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Abi> {
        [&self.arm, &self.committed.a, &self.committed.b].into_iter().filter_map(Field::abi)
    }

    /// Empties the committed values that name `abi`.
    pub(crate) fn drop_committed(&mut self, abi: &Abi) {
        for field in [&mut self.committed.a, &mut self.committed.b] {
            if field.names(abi) {
                *field = Field::Empty;
            }
        }
    }
}

/// Everything that is recorded about overrides, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OverrideRecords {
    pub(crate) values: BlockValues,
    /// The ABIs that have a link, even a dangling one.
    pub(crate) published: BTreeSet<Abi>,
    pub(crate) rejected: BTreeSet<Abi>,
    /// The kernel that runs; `None` for the stock kernel.
    pub(crate) running: Option<Abi>,
}

impl OverrideRecords {
    /// The ABIs that are armed, committed or published.
    pub(crate) fn recorded(&self) -> BTreeSet<Abi> {
        self.values.named().chain(&self.published).cloned().collect()
    }
}
