//! System calls as the tracer sees them: their names, the files they work on, and how to make them fail.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use std::os::unix::fs::FileExt as _;

/// One system call at its entry.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
    /// The path or the descriptor's file, where there is one.
    pub(crate) target: String,
}

impl std::fmt::Display for Call {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}({})", name(self.number), self.target)
    }
}

/// The names of the calls that the programs make with either C library; others show their number.
macro_rules! names {
    ($($name:ident),* $(,)?) => { &[$((libc::$name, stringify!($name))),*] };
}

#[cfg(target_arch = "x86_64")]
const OLD: &[(i64, &str)] = names! {
    SYS_open, SYS_poll, SYS_stat, SYS_lstat, SYS_pipe, SYS_fork, SYS_vfork, SYS_unlink, SYS_mkdir,
    SYS_rmdir, SYS_link, SYS_rename, SYS_readlink, SYS_access, SYS_arch_prctl, SYS_dup2,
};
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(i64, &str)] = &[];

const NAMES: &[(i64, &str)] = names! {
    SYS_read, SYS_write, SYS_close, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_ppoll, SYS_lseek,
    SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk, SYS_mremap, SYS_madvise, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_ioctl,
    SYS_pread64, SYS_readv, SYS_writev, SYS_pipe2, SYS_dup, SYS_dup3, SYS_nanosleep,
    SYS_clock_nanosleep, SYS_getpid, SYS_gettid, SYS_tgkill, SYS_tkill, SYS_kill, SYS_socket,
    SYS_socketpair, SYS_connect, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_clone,
    SYS_clone3, SYS_execve, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_uname, SYS_fcntl,
    SYS_flock, SYS_fdatasync, SYS_fsync, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_openat,
    SYS_openat2, SYS_mkdirat, SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_linkat,
    SYS_readlinkat, SYS_faccessat, SYS_faccessat2, SYS_statfs, SYS_fstatfs, SYS_umask, SYS_geteuid,
    SYS_getuid, SYS_setsid, SYS_prctl, SYS_capset, SYS_seccomp, SYS_set_tid_address,
    SYS_set_robust_list, SYS_rseq, SYS_prlimit64, SYS_getrandom, SYS_memfd_create, SYS_close_range,
    SYS_unshare, SYS_setns, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pidfd_getfd,
    SYS_sched_getaffinity, SYS_futex, SYS_clock_gettime, SYS_restart_syscall, SYS_pwrite64,
    SYS_ftruncate, SYS_fchmod, SYS_symlinkat, SYS_sendfile, SYS_copy_file_range, SYS_syncfs,
};

pub(crate) fn name(number: i64) -> String {
    let known = NAMES.iter().chain(OLD).find(|(known, _)| *known == number);
    known.map_or_else(
        || format!("call {number}"),
        |(_, name)| name.trim_start_matches("SYS_").to_owned(),
    )
}

impl Call {
    /// A call that never returns has no result to fake.
    pub(crate) fn can_fail(&self) -> bool {
        ![libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn].contains(&self.number)
    }

    /// Whether it may return `errno`. The kernel does not interrupt calls that manage memory.
    pub(crate) fn can_return(&self, errno: Errno) -> bool {
        self.can_fail() && (errno != Errno::EINTR || !self.arranges_memory())
    }

    /// Whether an allocator makes this call.
    pub(crate) fn arranges_memory(&self) -> bool {
        let calls = ["mmap", "munmap", "mremap", "mprotect", "madvise", "brk"];
        calls.contains(&name(self.number).as_str())
    }

    /// Whether it closes a descriptor.
    pub(crate) fn is_close(&self) -> bool {
        self.number == libc::SYS_close
    }

    /// Whether it stores something on a filesystem, so that it fails on a full disk.
    pub(crate) fn stores(&self) -> bool {
        let creates = |flags: u64| flags & 0o100 != 0 || flags & 0o20_000_000 != 0;
        match name(self.number).as_str() {
            "mkdir" | "mkdirat" | "fdatasync" | "fsync" | "rename" | "renameat" | "linkat" => true,
            // Pipes, sockets and memory files are not on a disk.
            "write" => self.target.starts_with('/') && !self.target.starts_with("/memfd:"),
            "open" => creates(self.arguments[1]),
            "openat" => creates(self.arguments[2]),
            _ => false,
        }
    }

    /// Whether it reports the outcome of a verb: to standard error or to the log.
    pub(crate) fn reports(&self, log: &str) -> bool {
        let writes = self.number == libc::SYS_write;
        self.target == log
            || (writes && self.arguments[0] == 2)
            || self.target.contains("memfd:err")
    }

    /// Reads the call that `pid` is about to make.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn at_entry(pid: Pid) -> nix::Result<Self> {
        let registers = nix::sys::ptrace::getregs(pid)?;
        let number = i64::from_ne_bytes(registers.orig_rax.to_ne_bytes());
        let arguments = [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ];
        let target = target(pid, &name(number), arguments);
        Ok(Self { number, arguments, target })
    }
}

/// The text in the memory of `pid` that ends with a zero byte.
pub(crate) fn text(pid: Pid, address: u64) -> Option<String> {
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = [0; 256];
    let len = memory.read_at(&mut bytes, address).ok()?;
    let end = bytes[..len].iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok().map(str::to_owned)
}

/// The file that the call works on, if known.
fn target(pid: Pid, name: &str, arguments: [u64; 6]) -> String {
    let text = |address: u64| text(pid, address);
    let file = |number: u64| {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    let target = match name {
        "open" | "stat" | "lstat" | "mkdir" | "rmdir" | "unlink" | "access" | "execve"
        | "chdir" | "statfs" | "readlink" => text(arguments[0]),
        "openat" | "openat2" | "mkdirat" | "unlinkat" | "renameat" | "linkat" | "newfstatat"
        | "statx" | "faccessat" | "readlinkat" => text(arguments[1]),
        "read" | "write" | "close" | "fstat" | "fcntl" | "flock" | "fsync" | "fdatasync"
        | "pwrite64" | "ftruncate" | "fchmod" | "sendfile" | "getdents64" | "ioctl" | "lseek"
        | "recvfrom" | "sendto" | "sendmsg" | "setns" | "pidfd_send_signal" | "pidfd_getfd" => {
            file(arguments[0])
        }
        "symlinkat" => text(arguments[2]),
        "copy_file_range" => file(arguments[2]),
        _ => None,
    };
    target.unwrap_or_default()
}

/// The result of the call that `pid` is leaving.
#[cfg(target_arch = "x86_64")]
pub(crate) fn result(pid: Pid) -> nix::Result<i64> {
    Ok(i64::from_ne_bytes(nix::sys::ptrace::getregs(pid)?.rax.to_ne_bytes()))
}

/// Skips the call that `pid` is entering.
#[cfg(target_arch = "x86_64")]
pub(crate) fn cancel(pid: Pid) -> nix::Result<()> {
    let mut registers = nix::sys::ptrace::getregs(pid)?;
    registers.orig_rax = u64::MAX;
    nix::sys::ptrace::setregs(pid, registers)
}

/// Makes the call that `pid` is leaving return `-errno`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn fail(pid: Pid, errno: Errno) -> nix::Result<()> {
    let mut registers = nix::sys::ptrace::getregs(pid)?;
    let result = -i64::from(errno as i32);
    registers.rax = u64::from_ne_bytes(result.to_ne_bytes());
    nix::sys::ptrace::setregs(pid, registers)
}

/// On other architectures a sweep reports that it cannot run, and fails.
#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use super::Errno;
    use super::{Call, Pid};

    impl Call {
        pub(crate) fn at_entry(_: Pid) -> nix::Result<Self> {
            Err(Errno::ENOTSUP)
        }
    }

    pub(crate) fn cancel(_: Pid) -> nix::Result<()> {
        Err(Errno::ENOTSUP)
    }

    pub(crate) fn fail(_: Pid, _: Errno) -> nix::Result<()> {
        Err(Errno::ENOTSUP)
    }

    pub(crate) fn result(_: Pid) -> nix::Result<i64> {
        Err(Errno::ENOTSUP)
    }
}
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use elsewhere::{cancel, fail, result};
