//! Kernel overrides: load → decide → carry out. `model/kernel/transition.rs` has the decisions. This file loads the
//! records of a device and carries the steps out; each command has a file of its own.

pub(super) mod call;
pub(super) mod fabricate;
pub(super) mod activate;
pub(super) mod health;
pub(super) mod validate;
pub(super) mod hup;
pub(super) mod override_command;
pub(super) mod history;
pub(super) mod play;
pub(super) mod simulate;
mod simulated_boot;

use super::{Failure, Session};
use crate::host::engine::claims;
use crate::host::kernel::block::{self, BlockFile, BlockRepair};
use crate::host::kernel::history as history_file;
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::kernel::override_store::{self, OverrideStore};
use crate::host::kernel::slot;
use crate::host::os::clock;
use crate::host::os::host_root::HostRoot;
use crate::model::extension::claim::abi_of;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block_change::Applied;
use crate::model::kernel::history::HistoryEntry;
use crate::model::kernel::records::OverrideRecords;
use crate::model::kernel::transition::{Event, OverrideStep, RefusedOverride, Transition, decide};
use crate::model::kernel::verdict::OverrideVerdict;
use crate::model::text::cause::{chain, in_words};
use health::HealthError;
use std::io;

/// Why a command about kernel overrides failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    #[error(transparent)]
    Block(#[from] block::Error),
    #[error(transparent)]
    Store(#[from] override_store::Error),
    #[error(transparent)]
    Slot(#[from] slot::UnknownSlot),
    #[error("cannot determine which kernel runs: {why}")]
    Running { why: String },
    #[error(transparent)]
    Refused(#[from] RefusedOverride),
    #[error(transparent)]
    Health(#[from] HealthError),
    #[error("this device has no boot environment block, so it has no kernel overrides")]
    NoOverrides,
    #[error("the history of kernel overrides cannot be read: {why}")]
    History { why: String },
    #[error("the verdict is recorded, but some records of the kernel remain: {why}")]
    Leftovers { why: String },
    /// Only a command that `simulate` plays ends so.
    #[error("the power was cut")]
    PowerCut,
}

/// A device that can have kernel overrides: it has a boot environment block.
pub(super) struct Device<'a> {
    session: &'a Session,
    store: OverrideStore<'a>,
    block: BlockFile<'a>,
    reboot: Reboot,
    /// The name of the command in the history.
    by: &'static str,
}

/// Whether a verdict may reboot the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reboot {
    Allowed,
    /// The caller reboots, or the records are those of another machine.
    Left,
}

/// What was decided and done.
pub(super) struct Settled {
    pub(super) verdict: OverrideVerdict,
    /// The exit status of the program that reboots, if it was called.
    pub(super) reboot: Option<u8>,
    /// Why records that decide nothing any more could not be removed.
    pub(super) left: Vec<String>,
}

impl Settled {
    fn nothing(verdict: OverrideVerdict) -> Self {
        Self { verdict, reboot: None, left: Vec::new() }
    }

    /// # Errors
    /// Some records could not be removed.
    pub(super) fn complete(self) -> Result<Self, KernelError> {
        match self.left.is_empty() {
            true => Ok(self),
            false => Err(KernelError::Leftovers { why: self.left.join("; ") }),
        }
    }
}

impl<'a> Device<'a> {
    /// Opens the records, and repairs a write of the block that was interrupted. `None` if the device has no block, and
    /// so no overrides.
    pub(super) fn open(
        session: &'a Session,
        by: &'static str,
        reboot: Reboot,
    ) -> Result<Option<Self>, KernelError> {
        let store = OverrideStore::new(&session.host);
        let Some(block) = BlockFile::find(&session.host)? else {
            session
                .log
                .info("this device has no boot environment block, so it has no kernel overrides");
            return Ok(None);
        };
        if block.repair()? == BlockRepair::Completed {
            session.log.warn("completed a write of the boot environment that was interrupted");
        }
        Ok(Some(Self { session, store, block, reboot, by }))
    }

    pub(super) fn load(&self) -> Result<OverrideRecords, KernelError> {
        Ok(OverrideRecords {
            values: self.block.read()?.values(),
            published: self.store.published()?.abis,
            rejected: self.store.rejected()?,
            running: running(&self.session.host)?,
        })
    }

    /// Decides what `event` leads to, and does it under the operation lock. The lock is not taken if there is nothing to
    /// do.
    pub(super) fn settle(&self, event: &Event<'_>) -> Result<Settled, Failure> {
        let Transition { verdict, steps } = self.decide(event)?;
        if steps.is_empty() {
            return Ok(Settled::nothing(verdict));
        }
        let _lock = self.lock()?;
        // Another program may have changed the records until now.
        let Transition { verdict, steps } = self.decide(event)?;
        self.carry_out(verdict, &steps)
    }

    /// Forgets every kernel that no deployed container claims. If the claims cannot be told, nothing is forgotten.
    pub(super) fn sweep(&self) -> Result<Settled, Failure> {
        let published = self.store.published().map_err(KernelError::from)?;
        for name in &published.others {
            self.session.log.warn(&format!(
                "{name:?} in /mnt/data/boot-by-abi is not the link of a kernel; it is kept"
            ));
        }
        let records = self.load()?;
        if records.recorded().is_empty() && published.unfinished.is_empty() {
            return Ok(Settled::nothing(OverrideVerdict::Nothing));
        }
        let _lock = self.lock()?;
        // A trial that ends without a verdict has added to it, too.
        self.shorten_history();
        let records = self.load()?;
        // Links are only made under the lock, so these were left by a crash.
        for abi in &self.store.published().map_err(KernelError::from)?.unfinished {
            if let Err(error) = self.store.remove_unfinished(abi) {
                self.session.log.warn(&chain(&error));
            }
        }
        // After the records: a kernel that is deployed meanwhile is not among them.
        let claims = match claims::load_claims(&self.session.host) {
            Ok(claims) => claims,
            Err(error) => {
                self.session.log.warn(&format!("{}; no kernel is forgotten", chain(&error)));
                return Ok(Settled::nothing(OverrideVerdict::Nothing));
            }
        };
        let decision = decide(&records, &Event::Sweep { claims: &claims });
        let Transition { verdict, steps } = decision.map_err(KernelError::from)?;
        self.carry_out(verdict, &steps)
    }

    fn lock(&self) -> Result<OperationLock, Failure> {
        let limit = &self.session.limit;
        Ok(OperationLock::acquire(&self.session.host, limit.deadline, &limit.stop)?)
    }

    fn decide(&self, event: &Event<'_>) -> Result<Transition, KernelError> {
        Ok(decide(&self.load()?, event)?)
    }

    /// Carries steps out in order, each durable before the next.
    fn carry_out(
        &self,
        verdict: OverrideVerdict,
        steps: &[OverrideStep],
    ) -> Result<Settled, Failure> {
        if steps.is_empty() {
            return Ok(Settled::nothing(verdict));
        }
        let (mut arm_moved, mut left, mut reboot) = (false, Vec::new(), None);
        for step in steps {
            if arm_moved && step.belongs_to_the_arm() {
                continue;
            }
            if let Some(play) = &self.session.play {
                play.spend_step()?;
            }
            self.session.log.debug(|| format!("step: {step:?}"));
            if *step == OverrideStep::Reboot {
                // Nothing is certain to be written after it.
                self.report_verdict(&verdict);
            }
            match self.carry_out_one(step, &mut arm_moved, &mut reboot) {
                Ok(()) => {}
                Err(error) if step.may_fail() => left.push(chain(&error)),
                Err(error) => return Err(error),
            }
        }
        if !steps.contains(&OverrideStep::Reboot) {
            self.report_verdict(&verdict);
        }
        self.shorten_history();
        if arm_moved {
            self.session
                .log
                .warn("another kernel was armed meanwhile; what is recorded about it is unchanged");
        }
        Ok(Settled { verdict, reboot, left })
    }

    fn carry_out_one(
        &self,
        step: &OverrideStep,
        arm_moved: &mut bool,
        reboot: &mut Option<u8>,
    ) -> Result<(), Failure> {
        let store = &self.store;
        let done = match step {
            OverrideStep::Block(change) => {
                let written = self.block.change(|now| {
                    let Applied { values, arm_moved: moved } = change.apply(now);
                    *arm_moved = moved;
                    Some(values)
                });
                return written.map(drop).map_err(|error| KernelError::from(error).into());
            }
            OverrideStep::Publish { abi, target } => store.publish(abi, target),
            OverrideStep::Unpublish(abi) => store.unpublish(abi),
            OverrideStep::SavePrestate => store.save_prestate(),
            OverrideStep::RemovePrestate => store.remove_prestate(),
            OverrideStep::AppendRejected(abi) => store.append_rejected(abi),
            OverrideStep::RemoveRejected(abi) => store.remove_rejected(abi),
            OverrideStep::Audit(audit) => store.write_audit(audit),
            OverrideStep::Reboot => {
                *reboot = Some(self.reboot()?);
                return Ok(());
            }
        };
        done.map_err(|error| KernelError::from(error).into())
    }

    /// Says what was decided, once it is carried out, and adds it to the history.
    fn report_verdict(&self, verdict: &OverrideVerdict) {
        self.session.log.info(&verdict.to_string());
        let entries = HistoryEntry::all_of_verdict(&clock::now_in_seconds(), self.by, verdict);
        entries.iter().for_each(|entry| self.record(entry));
    }

    /// Appends to the history. No verdict depends on it.
    pub(super) fn record(&self, entry: &HistoryEntry) {
        self.warn_of_history(history_file::append(&self.session.host, entry));
    }

    fn shorten_history(&self) {
        self.warn_of_history(history_file::shorten(&self.session.host));
    }

    fn warn_of_history(&self, written: io::Result<()>) {
        if let Err(error) = written {
            let path = history_file::path(&self.session.host);
            self.session
                .log
                .warn(&format!("cannot write the history {path:?}: {}", in_words(&error)));
        }
    }

    fn reboot(&self) -> Result<u8, Failure> {
        if let Some(play) = &self.session.play {
            play.reboot();
            return Ok(0);
        }
        match self.reboot {
            Reboot::Left => {
                self.session
                    .log
                    .info("the device must be rebooted now (this call does not reboot it)");
                Ok(0)
            }
            Reboot::Allowed => Ok(health::reboot(self.session).map_err(KernelError::from)?),
        }
    }
}

/// The override that runs; `None` if it is the stock kernel.
fn running(host: &HostRoot) -> Result<Option<Abi>, KernelError> {
    let cmdline = host.read("/proc/cmdline").map_err(|why| KernelError::Running { why })?;
    Ok(abi_of(&cmdline).and_then(|abi| Abi::parse(&abi)))
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum KernelError {
        Block(..), Store(..), Slot(..), Running { why }, Refused(..), Health(..), NoOverrides, History { why }, Leftovers { why },
        PowerCut,
    }
}
