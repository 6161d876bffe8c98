//! `validate`, which the OS calls at every boot: remove what is malformed, forget what is not deployed any more, and
//! judge the kernel that runs.

use super::super::{Failure, ManagerExit, Session};
use super::health::{self, Attempt, Schedule};
use super::{Device, KernelError, Reboot, Settled};
use crate::cli::kernel::ValidateArguments;
use crate::host::kernel::slot;
use crate::host::os::clock;
use crate::host::os::privilege;
use crate::model::kernel::history::HistoryEntry;
use crate::model::kernel::transition::Event;
use crate::model::kernel::verdict::OverrideVerdict;
use std::collections::BTreeSet;

pub(in crate::manager) fn validate(
    session: &Session,
    request: &ValidateArguments,
) -> Result<ManagerExit, Failure> {
    privilege::check()?;
    let reboot = match request.no_reboot || session.is_of_another_host() {
        true => Reboot::Left,
        false => Reboot::Allowed,
    };
    let Some(device) = Device::open(session, "validate", reboot)? else {
        return Ok(ManagerExit::Done);
    };
    let schedule =
        Schedule { settle: request.settle, retry: request.retry, attempts: request.attempts };
    judge(&device, schedule)
}

/// Removes what is malformed or not deployed any more, and judges the kernel that runs. A record that decides nothing any
/// more and cannot be removed is an error at the end: the kernel that runs is judged all the same.
pub(super) fn judge(device: &Device<'_>, schedule: Schedule) -> Result<ManagerExit, Failure> {
    let mut left = BTreeSet::new();
    match judge_all(device, schedule, &mut left) {
        Ok(ManagerExit::Done) if !left.is_empty() => {
            let why = left.into_iter().collect::<Vec<_>>().join("; ");
            Err(KernelError::Leftovers { why }.into())
        }
        ended => {
            left.iter().for_each(|why| device.session.log.warn(why));
            ended
        }
    }
}

fn judge_all(
    device: &Device<'_>,
    schedule: Schedule,
    left: &mut BTreeSet<String>,
) -> Result<ManagerExit, Failure> {
    let session = device.session;
    let mut note = |mut settled: Settled| {
        left.extend(settled.left.drain(..));
        settled
    };
    note(device.settle(&Event::Begin)?);
    note(device.settle(&Event::Relay)?);
    if device.load()?.values.update_window {
        session
            .log
            .info("an OS update can still roll back, so it judges the kernel; nothing to validate");
        return Ok(ManagerExit::Done);
    }
    note(device.sweep()?);
    let slot = slot::running(&session.host).map_err(KernelError::from)?;
    let tried = BTreeSet::new();
    let mut settled = note(device.settle(&Event::Judge { slot, tried: &tried })?);
    if let (OverrideVerdict::RejectionFinished { abis }, None) = (&settled.verdict, settled.reboot)
    {
        // What the slot has committed is armed now.
        settled = note(device.settle(&Event::Judge { slot, tried: abis })?);
    }
    if let OverrideVerdict::Trial { abi } = &settled.verdict {
        session.log.info(&settled.verdict.to_string());
        device.record(&HistoryEntry {
            slot: Some(slot.to_string()),
            ..HistoryEntry::of_verdict(clock::now_in_seconds(), "validate", &settled.verdict)
        });
        let checked = |attempt: &Attempt| device.record(&attempt.entry(abi, slot));
        let health = health::check(device, schedule, checked).map_err(KernelError::from)?;
        settled = note(device.settle(&Event::Checked { slot, abi, health })?);
    }
    Ok(exit(session, &settled))
}

fn exit(session: &Session, settled: &Settled) -> ManagerExit {
    match (&settled.verdict, settled.reboot) {
        (_, Some(status)) => ManagerExit::OfProgram(status),
        (verdict @ (OverrideVerdict::Pending { .. } | OverrideVerdict::Nothing), None) => {
            session.log.info(&verdict.to_string());
            ManagerExit::Done
        }
        (_, None) => ManagerExit::Done,
    }
}
