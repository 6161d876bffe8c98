//! A kernel that refuses a system call, by a seccomp filter: it stands for the profile of an engine or of
//! systemd-nspawn, for a kernel that lacks the call (ENOSYS), and for a SIGKILL at that very call.

use std::process::Command;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::capture;
use crate::finished::Finished;

/// Runs `command` with a kernel that does `what` to whoever makes this system call.
pub(crate) fn with_filter(
    call: libc::c_long,
    what: SeccompAction,
    command: &mut Command,
) -> Finished {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(call, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, what, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Of this thread alone, and of what it starts.
            seccompiler::apply_filter(&program).unwrap();
            capture::run(command)
        });
        thread.join().unwrap()
    })
}
