//! What is decided about kernel overrides, in words for people and for the history. `transition.rs` decides.

use crate::model::kernel::abi::Abi;
use crate::model::kernel::records::{Slot, TRIAL_LIMIT};
use std::collections::BTreeSet;
use std::fmt;

/// What is decided, for people and for the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OverrideVerdict {
    Nothing,
    Scrubbed,
    RelayConsumed {
        abi: Abi,
    },
    Swept {
        abis: BTreeSet<Abi>,
    },
    /// The slot's committed kernel is armed again.
    Restored {
        abi: Abi,
        slot: Slot,
    },
    /// The arm has no kernel to boot.
    Forgotten {
        abi: Abi,
    },
    /// The arm was not booted yet.
    Pending {
        abi: Abi,
        boots: u32,
    },
    /// The arm runs, and its health check is due.
    Trial {
        abi: Abi,
    },
    Committed {
        abi: Abi,
        slot: Slot,
    },
    Rejected {
        abi: Abi,
        by: Cause,
        to: Option<Abi>,
    },
    /// A rejection that was interrupted is completed.
    RejectionFinished {
        abis: BTreeSet<Abi>,
    },
    Armed {
        abi: Abi,
    },
    RolledBack {
        from: Abi,
        to: Option<Abi>,
    },
    Allowed {
        abi: Abi,
    },
}

impl fmt::Display for OverrideVerdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => formatter.write_str("no kernel override is on trial"),
            Self::Scrubbed => formatter.write_str(
                "removed values from the boot environment that are not ABIs (64 lowercase hex digits)",
            ),
            Self::RelayConsumed { abi } => {
                write!(formatter, "forgot the kernel {abi}, because the OS update rolled back")
            }
            Self::Swept { abis } => {
                write!(formatter, "forgot kernels that no deployed extension claims: {}", list(abis))
            }
            Self::Restored { abi, slot } => {
                write!(formatter, "armed the kernel {abi} again, which slot {slot} has committed")
            }
            Self::Forgotten { abi } => {
                write!(formatter, "forgot the kernel {abi}; it is no longer armed, committed or published")
            }
            Self::Pending { abi, boots } => write!(
                formatter,
                "the armed kernel {abi} does not run; it was booted {boots} of {TRIAL_LIMIT} times, and a reboot tries \
                 it"
            ),
            Self::Trial { abi } => write!(formatter, "the kernel {abi} is on trial"),
            Self::Committed { abi, slot } => {
                write!(formatter, "committed the kernel {abi} in slot {slot}")
            }
            Self::Rejected { abi, by, to } => {
                let to = to.as_ref().map_or("the stock kernel", Abi::as_str);
                match by {
                    Cause::Health => write!(
                        formatter,
                        "rejected the kernel {abi}: its health check failed; the next boot has {to}"
                    ),
                    Cause::Boots(boots) => write!(
                        formatter,
                        "rejected the kernel {abi}: it was booted {boots} times and does not run; the next boot has {to}"
                    ),
                }
            }
            Self::RejectionFinished { abis } => {
                write!(formatter, "completed the rejection of the kernel {}", list(abis))
            }
            Self::Armed { abi } => write!(formatter, "armed the kernel {abi}; the next boot tries it"),
            Self::RolledBack { from, to } => {
                let to = to.as_ref().map_or("the stock kernel", Abi::as_str);
                write!(formatter, "the OS update rolls back: the next boot has {to} in place of {from}")
            }
            Self::Allowed { abi } => {
                write!(formatter, "the kernel {abi} is no longer rejected; deploy its extension again to arm it")
            }
        }
    }
}

fn list(abis: &BTreeSet<Abi>) -> String {
    abis.iter().map(Abi::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a kernel was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its health check failed, or the OS update rolls back.
    Health,
    /// It was booted this often and never ran.
    Boots(u32),
}
