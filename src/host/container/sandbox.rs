//! How the proxy gives up its privileges before it waits, and how a process closes itself to inspection before that.
//! The manager does the second too, because its boot unit leaves it no capabilities: root of any container that shares
//! the PID namespace can enter a process of user 0 without capabilities through `/proc/PID/root`, `exe`, `fd` and
//! ptrace(2), unless that process is not dumpable (ptrace(2), "Ptrace access mode checking").

use crate::host::container::system_call_filter;
use crate::model::container::proxy::Step;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;

/// The highest capability number that a kernel could have. The kernel refuses the numbers that it does not have.
const LAST_CAPABILITY: u32 = 63;

/// Closes this process, until execve(2), to every process without CAP_SYS_PTRACE, and prevents core dumps. This must come
/// before the capabilities are dropped: as long as this process has them, the kernel refuses a process with fewer.
pub(crate) fn forbid_inspection() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Closes the manager in the same way, and gives up CAP_WAKE_ALARM. The manager's boot unit
/// (`dist/systemd/balena-extension-cleanup.service`) leaves it that one capability, which closes it from its first
/// instruction on. Any other capabilities are kept for the hooks.
pub(crate) fn close_manager() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut sets = rustix::thread::capabilities(None)?;
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(CapabilitySet::WAKE_ALARM);
    }
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// Gives up all privileges irrevocably: capabilities, the right to gain any, and most system calls.
pub(crate) fn enter() -> Result<(), (Step, io::Error)> {
    drop_capabilities().map_err(|error| (Step::Capabilities, error.into()))?;
    // The filter comes last, because it refuses the steps before it.
    system_call_filter::apply().map_err(|error| (Step::SystemCalls, error))
}

fn drop_capabilities() -> rustix::io::Result<()> {
    rustix::thread::clear_ambient_capability_set().or_else(tolerate_unsupported)?;
    for number in 0..=LAST_CAPABILITY {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // INVAL: the kernel has no more. PERM: the engine has no CAP_SETPCAP; because of no_new_privs this
            // process cannot gain a capability of the set anyway.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error),
        }
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    rustix::thread::set_no_new_privs(true)
}

/// Linux before 4.3 has no ambient set.
fn tolerate_unsupported(error: Errno) -> rustix::io::Result<()> {
    if error == Errno::INVAL { Ok(()) } else { Err(error) }
}
