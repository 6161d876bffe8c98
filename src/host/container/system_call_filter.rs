//! The proxy's seccomp filter: a constant program that allows the system calls of a process that waits for a signal
//! and ends, and refuses every other one.

#![expect(unsafe_code, reason = "seccomp(2) has no safe wrapper")]

use nix::libc;
use rustix::io::Errno;
use std::io;

/// The system calls of waiting and ending, and of a stop and continue in between.
const ALLOWED: [libc::c_long; 11] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// rt_sigtimedwait_time64, with which 32-bit C libraries try to wait first. Its number is the same on all 32-bit
/// machines, and on 64-bit machines it belongs to no call.
const WAIT_WITH_64_BIT_TIME: libc::c_long = 421;

/// The machine as a filter sees it (`AUDIT_ARCH_…` in linux/audit.h): the number of ELF with a bit for 64-bit and
/// a bit for little-endian machines. Another ABI of the same machine has another value.
const ARCHITECTURE: u32 = {
    let elf_machine = if cfg!(target_arch = "x86") {
        3
    } else if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "arm") {
        40
    } else if cfg!(target_arch = "aarch64") {
        183
    } else if cfg!(target_arch = "riscv64") {
        243
    } else if cfg!(target_arch = "loongarch64") {
        258
    } else if cfg!(target_arch = "powerpc64") {
        21
    } else if cfg!(target_arch = "s390x") {
        22
    } else {
        panic!("add the ELF number of this machine (EM_… in linux/elf-em.h)")
    };
    let wide = if cfg!(target_pointer_width = "64") { 0x8000_0000 } else { 0 };
    let little_endian = if cfg!(target_endian = "little") { 0x4000_0000 } else { 0 };
    elf_machine | wide | little_endian
};

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const INSTRUCTION_POINTER: u32 = 8;
/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K` and `BPF_RET | BPF_K` (linux/filter.h).
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A refused call fails with EPERM: if it killed the proxy, the container would get a wrong exit status.
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | Errno::PERM.raw_os_error().unsigned_abs();

/// Applies the filter to this process, which must not be able to gain privileges (`no_new_privs`). A kernel without
/// seccomp(2), or without filters, is no error: the capabilities are given up all the same.
pub(crate) fn apply() -> io::Result<()> {
    let mut instructions = program(ARCHITECTURE, &ALLOWED);
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        filter: instructions.as_mut_ptr(),
    };
    let no_flags: libc::c_uint = 0;
    // SAFETY: `program` and the instructions that it points to are valid during the call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            no_flags,
            std::ptr::from_ref(&program),
        )
    };
    let error = io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        _ if result == 0 => Ok(()),
        Some(Errno::NOSYS | Errno::INVAL) => Ok(()),
        _ => Err(error),
    }
}

/// Makes the filter that allows the calls `allowed` of one architecture.
fn program(architecture: u32, allowed: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let instruction = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let numbers: Vec<u32> = allowed
        .iter()
        .chain(cfg!(target_pointer_width = "32").then_some(&WAIT_WITH_64_BIT_TIME))
        .filter_map(|number| u32::try_from(*number).ok())
        .collect();
    let compared = u8::try_from(numbers.len()).unwrap_or_default();
    let mut program = vec![
        // Not needed for the decision. From Linux 5.11 on the kernel first executes a filter for every number of
        // every ABI, to remember which calls it always allows, but not if it reads anything other than number and
        // architecture. That takes 20 µs and more, and this process makes five calls.
        instruction(LOAD, INSTRUCTION_POINTER),
        instruction(LOAD, ARCH),
        // Over the loading and comparing of the number, to the refusal.
        libc::sock_filter { jf: compared + 1, ..instruction(JUMP_IF_EQUAL, architecture) },
        instruction(LOAD, NUMBER),
    ];
    // Each over the comparisons behind it and the refusal.
    let jumps = (1..=compared).rev();
    program.extend(
        numbers
            .iter()
            .zip(jumps)
            .map(|(number, jt)| libc::sock_filter { jt, ..instruction(JUMP_IF_EQUAL, *number) }),
    );
    program.push(instruction(RETURN, REFUSE));
    program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel returns for a call.
    fn verdict(architecture: u32, number: u32) -> u32 {
        let program = program(ARCHITECTURE, &ALLOWED);
        let (mut at, mut value) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD => {
                    value = match k {
                        NUMBER => number,
                        ARCH => architecture,
                        _ => 0,
                    }
                }
                JUMP_IF_EQUAL => at += usize::from(if value == k { jt } else { jf }),
                _ => return k,
            }
        }
    }

    #[test]
    fn the_calls_of_waiting_and_ending_are_allowed_and_no_others() {
        for number in 0..1024 {
            let known = libc::c_long::from(u16::try_from(number).unwrap());
            let waits = cfg!(target_pointer_width = "32") && known == WAIT_WITH_64_BIT_TIME;
            let allowed = ALLOWED.contains(&known) || waits;
            let expected = if allowed { libc::SECCOMP_RET_ALLOW } else { REFUSE };
            assert_eq!(verdict(ARCHITECTURE, number), expected, "{number}");
        }
        // The ABI x32 sets a bit in the number.
        let x32 = 0x4000_0000 | u32::try_from(libc::SYS_read).unwrap();
        assert_eq!(verdict(ARCHITECTURE, x32), REFUSE);
    }

    #[test]
    fn every_call_of_another_abi_is_refused() {
        for number in 0..1024 {
            assert_eq!(verdict(ARCHITECTURE ^ 0x8000_0000, number), REFUSE, "{number}");
        }
    }
}
