//! A seccomp filter that refuses a system call, like the profile of an engine or of systemd-nspawn, fails it
//! like a kernel that lacks the call (ENOSYS), or kills the process at it.
//!
//! The instructions are made here, because seccompiler has none for 32-bit ARM.

use std::process::Command;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, sock_filter};

use crate::capture;
use crate::finished::Finished;

/// Runs `command` with this action at this system call.
pub(crate) fn with_filter(
    call: libc::c_long,
    what: SeccompAction,
    command: &mut Command,
) -> Finished {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            apply(&[call], what);
            capture::run(command)
        });
        thread.join().unwrap()
    })
}

/// Applies a filter with this action at these system calls to this thread and its children.
pub(crate) fn apply(calls: &[libc::c_long], what: SeccompAction) {
    seccompiler::apply_filter(&program(calls, what.into())).unwrap();
}

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K` and `BPF_RET | BPF_K` (linux/filter.h).
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// The offset of the call's number in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;

fn program(calls: &[libc::c_long], what: u32) -> BpfProgram {
    let instruction = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    let mut program = vec![instruction(LOAD, 0, NUMBER)];
    for (left, call) in (1..=calls.len()).rev().zip(calls) {
        let (left, call) = (u8::try_from(left).unwrap(), u32::try_from(*call).unwrap());
        // Over the other comparisons and the permission.
        program.push(instruction(JUMP_IF_EQUAL, left, call));
    }
    program.push(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    program.push(instruction(RETURN, 0, what));
    program
}
