//! What the proxy gives up before it waits: capabilities, the right to gain any, and every system
//! call but the few that waiting and ending take. And what must come before that, also in the manager,
//! which its boot unit leaves without capabilities: a process of user 0 without capabilities is open, through
//! `/proc/PID/root`, `exe`, `fd` and ptrace(2), to root of any container that shares the PID namespace, unless
//! it is not dumpable (ptrace(2), "Ptrace access mode checking").

use crate::model::container::proxy::Step;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;

/// The highest capability number a kernel could have; those it does not have are refused.
const LAST_CAPABILITY: u32 = 63;

/// Closes this process to every other one without CAP_SYS_PTRACE, and lets it leave no core. It must come
/// before the capabilities go: until then the kernel refuses whoever has fewer of them. Until execve(2).
///
/// # Errors
/// prctl(2)'s or setrlimit(2)'s.
pub(crate) fn forbid_inspection() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Closes the manager in the same way, and gives up the one capability that its boot unit leaves it, so that
/// it is closed from its first instruction on (`dist/systemd/balena-extension-cleanup.service`). All other
/// capabilities stay for the hooks.
///
/// # Errors
/// Those of prctl(2), capget(2) and capset(2).
pub(crate) fn close_manager() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut sets = rustix::thread::capabilities(None)?;
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(CapabilitySet::WAKE_ALARM);
    }
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// Gives up privileges for good.
///
/// # Errors
/// The step that the kernel refused.
pub(crate) fn enter() -> Result<(), (Step, io::Error)> {
    drop_capabilities().map_err(|error| (Step::Capabilities, error.into()))?;
    // The filter comes last: it would refuse the steps before it.
    filter_system_calls().map_err(|error| (Step::SystemCalls, error))
}

fn drop_capabilities() -> rustix::io::Result<()> {
    rustix::thread::clear_ambient_capability_set().or_else(tolerate_unsupported)?;
    for number in 0..=LAST_CAPABILITY {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // INVAL: the kernel has no more. PERM: the engine has no CAP_SETPCAP; what is in the set cannot be
            // gained all the same, because of no_new_privs.
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

/// What waiting, ending, and a stop and continue in between call.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const NEEDED: [i64; 11] = [
    nix::libc::SYS_read,
    nix::libc::SYS_write,
    nix::libc::SYS_close,
    nix::libc::SYS_rt_sigtimedwait,
    nix::libc::SYS_rt_sigprocmask,
    nix::libc::SYS_rt_sigreturn,
    nix::libc::SYS_restart_syscall,
    nix::libc::SYS_sigaltstack,
    nix::libc::SYS_munmap,
    nix::libc::SYS_exit,
    nix::libc::SYS_exit_group,
];

/// Everything else fails with EPERM: killing the proxy instead would give the container a wrong exit
/// status.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn filter_system_calls() -> io::Result<()> {
    use seccompiler::Error::{Prctl, Seccomp};
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let refuse = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let rules = NEEDED.into_iter().map(|call| (call, Vec::new())).collect();
    let program: BpfProgram = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture)
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)?;
    match seccompiler::apply_filter(&program) {
        // A kernel without seccomp(2), or without filters: the capabilities are gone all the same.
        Err(Seccomp(error)) if is_one_of(&error, [Errno::NOSYS, Errno::INVAL]) => Ok(()),
        Err(Seccomp(error) | Prctl(error)) => Err(error),
        result => result.map_err(io::Error::other),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn is_one_of(error: &io::Error, errnos: [Errno; 2]) -> bool {
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// seccompiler knows no other machines; there the capabilities alone are given up.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn filter_system_calls() -> io::Result<()> {
    Ok(())
}
