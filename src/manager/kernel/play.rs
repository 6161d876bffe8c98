//! What is different for a command that `simulate` plays: the health check is a word of the script, power can be cut
//! between two durable steps, and a reboot is only noted.

use super::KernelError;
use super::health::HealthError;
use std::cell::Cell;

/// What the health check of a simulated device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlayedCheck {
    Passes,
    Fails,
    Missing,
}

/// One command of a script.
#[derive(Debug)]
pub(in crate::manager) struct Play {
    check: PlayedCheck,
    /// Before which step power is cut.
    cut: Option<u32>,
    /// The steps that were carried out.
    steps: Cell<u32>,
    is_cut: Cell<bool>,
    has_rebooted: Cell<bool>,
}

impl Play {
    pub(super) fn new(check: PlayedCheck, cut: Option<u32>) -> Self {
        let [is_cut, has_rebooted] = [(); 2].map(|()| Cell::new(false));
        Self { check, cut, steps: Cell::new(0), is_cut, has_rebooted }
    }

    pub(super) fn health_check(&self) -> Result<Result<(), String>, HealthError> {
        match self.check {
            PlayedCheck::Passes => Ok(Ok(())),
            PlayedCheck::Fails => Ok(Err("simulated".to_owned())),
            PlayedCheck::Missing => Err(HealthError::NoCheck),
        }
    }

    /// Counts a step that is about to be carried out.
    pub(super) fn spend_step(&self) -> Result<(), KernelError> {
        if self.cut == Some(self.steps.get()) {
            self.is_cut.set(true);
            return Err(KernelError::PowerCut);
        }
        self.steps.set(self.steps.get() + 1);
        Ok(())
    }

    pub(super) fn reboot(&self) {
        self.has_rebooted.set(true);
    }

    /// How far the command came.
    pub(super) fn progress(&self) -> String {
        let (steps, all) = (self.steps.get(), if self.is_cut.get() { "" } else { "all " });
        let unit = if steps == 1 { "step" } else { "steps" };
        format!("{all}{steps} {unit}")
    }

    pub(super) fn has_rebooted(&self) -> bool {
        self.has_rebooted.get()
    }
}
