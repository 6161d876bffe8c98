//! `hup commit` and `hup reject`, which the OS update calls while it can still roll back.

use super::super::{Failure, ManagerExit, Session};
use super::{Device, KernelError, Reboot};
use crate::cli::kernel::HupCommand;
use crate::host::kernel::slot;
use crate::host::os::privilege;
use crate::model::kernel::transition::Event;
use crate::model::kernel::verdict::OverrideVerdict;

pub(in crate::manager) fn hup(
    session: &Session,
    request: &HupCommand,
) -> Result<ManagerExit, Failure> {
    privilege::check()?;
    let by = match request {
        HupCommand::Commit => "hup commit",
        HupCommand::Reject => "hup reject",
    };
    let Some(device) = Device::open(session, by, Reboot::Left)? else {
        return Ok(ManagerExit::Done);
    };
    // Before anything is written: a wrong slot would lose what it has proven.
    let slot = slot::running(&session.host).map_err(KernelError::from)?;
    device.settle(&Event::Begin)?.complete()?;
    let settled = device.settle(&match request {
        HupCommand::Commit => Event::HupCommit { slot },
        HupCommand::Reject => Event::HupReject { slot },
    })?;
    let settled = settled.complete()?;
    if settled.verdict == OverrideVerdict::Nothing {
        session.log.info(match request {
            HupCommand::Commit => {
                "nothing is committed: no kernel is armed that runs and is not rejected"
            }
            HupCommand::Reject => "nothing is rolled back: no kernel is armed",
        });
    }
    Ok(ManagerExit::Done)
}
