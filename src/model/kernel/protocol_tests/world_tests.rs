//! The device as the model sees it, and how a program carries a decision out on it.

use super::properties::{self, Past};
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block_change::{Applied, BlockChange};
use crate::model::kernel::initramfs::{self, BootView};
use crate::model::kernel::records::{BlockValues, OverrideRecords, Slot};
use crate::model::kernel::transition::{
    Event, Health, OverrideStep, RefusedOverride, Transition, decide,
};
use crate::model::kernel::verdict::OverrideVerdict;
use std::collections::BTreeSet;

/// The functions under test. A planted fault replaces one of them.
#[derive(Clone, Copy)]
pub(super) struct Functions {
    pub(super) decide: fn(&OverrideRecords, &Event<'_>) -> Result<Transition, RefusedOverride>,
    pub(super) apply: fn(&BlockChange, &BlockValues) -> Applied,
    /// The slot that a program believes to run.
    pub(super) slot: fn(Slot) -> Slot,
    /// What the end of a health check means; `None` is an error, after which nothing is written.
    pub(super) health: fn(CheckEnd) -> Option<Health>,
}

impl Functions {
    /// Those of the programs.
    pub(super) const OURS: Self = Self {
        decide,
        apply: BlockChange::apply,
        slot: |slot| slot,
        health: |end| match end {
            CheckEnd::Passed => Some(Health::Passed),
            CheckEnd::Failed => Some(Health::Failed),
            CheckEnd::Stopped => None,
        },
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckEnd {
    Passed,
    Failed,
    /// The unit was stopped, or the check could not run.
    Stopped,
}

/// What a kernel does when it is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Nature {
    Healthy,
    /// It boots, and every health check fails.
    Unhealthy,
    /// It boots, and a health check may end either way.
    Fickle,
    /// The machine resets before userspace runs.
    NeverBoots,
    /// kexec refuses it, so the initramfs boots the stock kernel after it has counted.
    CannotLoad,
}

/// The kernels that can be deployed.
pub(super) const KERNELS: usize = 2;

/// The ABI of a kernel.
pub(super) fn abi(kernel: usize) -> Abi {
    Abi::parse(&["a", "b"][kernel].repeat(64)).unwrap()
}

/// The kernel with this ABI.
pub(super) fn kernel(abi: &Abi) -> usize {
    usize::from(abi.as_str().starts_with('b'))
}

/// How far one call of `validate` has come: the stage that is next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Begin,
    Relay,
    Sweep,
    Judge,
    /// The health check of this kernel runs, without the operation lock.
    Health(Abi),
}

/// An OS update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Update {
    /// The slot that it has installed into.
    pub(super) slot: Slot,
    pub(super) progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    Installed,
    /// `hup reject` has run.
    Rejected,
    /// The old slot was booted again.
    Left,
}

/// How many more events of each kind may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EventsLeft {
    /// An extension is started, removed or deployed again, or a person gives an order.
    pub(super) changes: u8,
    pub(super) updates: u8,
    /// A program is killed between two of its steps. (Power may be cut at any time.)
    pub(super) kills: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) records: OverrideRecords,
    pub(super) prestate: bool,
    pub(super) claims: BTreeSet<Abi>,
    pub(super) is_on: bool,
    /// The slot that runs.
    pub(super) slot: Slot,
    /// The slot that the next boot takes.
    pub(super) next_slot: Slot,
    /// Boots in the update window.
    pub(super) boots: u32,
    /// The OS update whose window is open.
    pub(super) update: Option<Update>,
    pub(super) validates: Vec<Stage>,
    /// Whether `validate` has judged since the boot. An update begins only after that: `validate` is ordered after the
    /// program of the OS that closes the window of an update that has failed.
    pub(super) is_validated: bool,
    pub(super) natures: [Nature; KERNELS],
    pub(super) left: EventsLeft,
    pub(super) past: Past,
}

impl World {
    /// A device that runs the stock kernel of slot A. Both extensions are deployed, and neither was started.
    pub(super) fn new(natures: [Nature; KERNELS], left: EventsLeft, validates: usize) -> Self {
        Self {
            records: OverrideRecords::default(),
            prestate: false,
            claims: (0..KERNELS).map(abi).collect(),
            is_on: true,
            slot: Slot::A,
            next_slot: Slot::A,
            boots: 0,
            update: None,
            validates: vec![Stage::Begin; validates],
            is_validated: false,
            natures,
            left,
            past: Past::default(),
        }
    }

    pub(super) fn nature(&self, abi: &Abi) -> Nature {
        self.natures[kernel(abi)]
    }

    /// The power goes, or the device reboots: what is not durable is lost.
    pub(super) fn turn_off(&mut self) {
        self.is_on = false;
        self.records.running = None;
        self.validates.fill(Stage::Begin);
        self.is_validated = false;
    }

    /// One boot by the initramfs. A kernel that never boots leaves the device off.
    pub(super) fn boot(&mut self, claims: Claims) {
        let none = BTreeSet::new();
        let view = BootView {
            values: &self.records.values,
            slot: self.next_slot,
            boots: self.boots,
            bootable: &self.records.published,
            claims: match claims {
                Claims::Known => &self.claims,
                Claims::Unknown => &none,
            },
        };
        let boot = initramfs::boot(&view);
        let kernel = boot.kernel.ok();
        let before = std::mem::replace(&mut self.records.values, boot.values);
        (self.slot, self.next_slot, self.boots) = (boot.slot, boot.slot, boot.boots);
        if let Some(update) = self.update.as_mut().filter(|update| update.slot != boot.slot) {
            update.progress = Progress::Left;
        }
        self.past.note_boot(&before, &self.records.values, boot.slot, kernel.as_ref());
        let nature = kernel.as_ref().map(|abi| self.nature(abi));
        self.is_on = nature != Some(Nature::NeverBoots);
        self.records.running = kernel.filter(|_| self.is_on && nature != Some(Nature::CannotLoad));
    }

    fn carry_out(&mut self, step: &OverrideStep, functions: &Functions) -> ArmMoved {
        let records = &mut self.records;
        match step {
            OverrideStep::Block(change) => {
                let Applied { values, arm_moved } = (functions.apply)(change, &records.values);
                records.values = values;
                return ArmMoved(arm_moved);
            }
            OverrideStep::Publish { abi, .. } => drop(records.published.insert(abi.clone())),
            OverrideStep::Unpublish(abi) => drop(records.published.remove(abi)),
            OverrideStep::SavePrestate => self.prestate = true,
            OverrideStep::RemovePrestate => self.prestate = false,
            OverrideStep::AppendRejected(abi) => drop(records.rejected.insert(abi.clone())),
            OverrideStep::RemoveRejected(abi) => drop(records.rejected.remove(abi)),
            OverrideStep::Audit(_) => {}
            OverrideStep::Reboot => self.turn_off(),
        }
        ArmMoved(false)
    }
}

struct ArmMoved(bool);

/// A program that works on a world until it ends, or until it is killed.
pub(super) struct Call<'a> {
    pub(super) world: World,
    functions: &'a Functions,
    /// After how many steps it is killed.
    limit: Option<usize>,
    /// The steps that it has carried out.
    pub(super) steps: usize,
}

/// The program was killed.
pub(super) struct Killed;

impl<'a> Call<'a> {
    pub(super) fn new(world: World, functions: &'a Functions, limit: Option<usize>) -> Self {
        Self { world, functions, limit, steps: 0 }
    }

    /// Loads the records, decides, and carries the steps out, all under the operation lock (`manager/kernel/mod.rs`).
    pub(super) fn settle(&mut self, event: &Event<'_>) -> Result<OverrideVerdict, Killed> {
        let decision = (self.functions.decide)(&self.world.records, event);
        let Ok(Transition { verdict, steps }) = decision else {
            return Ok(OverrideVerdict::Nothing);
        };
        let mut arm_moved = false;
        for step in &steps {
            if arm_moved && step.belongs_to_the_arm() {
                continue;
            }
            if self.limit == Some(self.steps) {
                return Err(Killed);
            }
            self.steps += 1;
            let before = self.world.records.clone();
            let moved = self.world.carry_out(step, self.functions);
            if let OverrideStep::Block(_) = step {
                arm_moved = moved.0;
            }
            properties::note_step(&mut self.world, &before, event, &verdict, step);
        }
        Ok(verdict)
    }

    /// The next stage of one call of `validate` (`manager/kernel/validate.rs`).
    pub(super) fn validate(&mut self, which: usize, claims: Claims) -> Result<(), Killed> {
        let stage = self.world.validates[which].clone();
        let slot = (self.functions.slot)(self.world.slot);
        self.world.validates[which] = Stage::Begin;
        let next = match stage {
            Stage::Begin => {
                self.settle(&Event::Begin)?;
                Stage::Relay
            }
            Stage::Relay => {
                self.settle(&Event::Relay)?;
                match self.world.records.values.update_window {
                    true => Stage::Begin,
                    false => Stage::Sweep,
                }
            }
            Stage::Sweep => {
                if claims == Claims::Known {
                    let claims = self.world.claims.clone();
                    self.settle(&Event::Sweep { claims: &claims })?;
                }
                Stage::Judge
            }
            Stage::Judge => {
                self.world.is_validated = !self.world.records.values.update_window;
                let tried = BTreeSet::new();
                let mut verdict = self.settle(&Event::Judge { slot, tried: &tried })?;
                if let (OverrideVerdict::RejectionFinished { abis }, true) =
                    (&verdict, self.world.is_on)
                {
                    verdict = self.settle(&Event::Judge { slot, tried: abis })?;
                }
                if let OverrideVerdict::Trial { abi } = verdict {
                    Stage::Health(abi)
                } else {
                    Stage::Begin
                }
            }
            Stage::Health(abi) => Stage::Health(abi),
        };
        self.go_on(which, next);
        Ok(())
    }

    /// The health check of a call of `validate` has ended.
    pub(super) fn check_ends(&mut self, which: usize, end: CheckEnd) -> Result<(), Killed> {
        let Stage::Health(abi) = self.world.validates[which].clone() else { return Ok(()) };
        self.world.validates[which] = Stage::Begin;
        self.world.past.note_check(self.world.slot, &abi, end);
        if let Some(health) = (self.functions.health)(end) {
            let slot = (self.functions.slot)(self.world.slot);
            self.settle(&Event::Checked { slot, abi: &abi, health })?;
        }
        self.go_on(which, Stage::Begin);
        Ok(())
    }

    /// A reboot has ended the call if the device is off.
    fn go_on(&mut self, which: usize, next: Stage) {
        if self.world.is_on {
            self.world.validates[which] = next;
        }
    }

    /// `hup commit` or `hup reject` (`manager/kernel/hup.rs`).
    pub(super) fn hup(&mut self, event: &Event<'_>) -> Result<(), Killed> {
        self.settle(&Event::Begin)?;
        self.settle(event)?;
        if let (Event::HupReject { .. }, Some(update)) = (event, &mut self.world.update) {
            update.progress = Progress::Rejected;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claims {
    Known,
    /// They cannot be determined.
    Unknown,
}
