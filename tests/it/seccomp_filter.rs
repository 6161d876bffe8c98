//! A seccomp filter that refuses a system call, like the profile of an engine or of systemd-nspawn, fails it
//! like a kernel that lacks the call (ENOSYS), or kills the process at it.

use std::process::Command;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::capture;
use crate::finished::Finished;

/// Runs `command` with this action at this system call.
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
            // It applies to this thread and its children.
            seccompiler::apply_filter(&program).unwrap();
            capture::run(command)
        });
        thread.join().unwrap()
    })
}
