//! An unrelated process. It blocks every signal, so that a signal sent to it remains pending, which `/proc`
//! shows. SIGKILL cannot be blocked, but ends it, which shows as well.
#![expect(unsafe_code, reason = "the signal mask is set between fork and exec")]

use crate::proc_fs::Process;
use crate::processes::pid_of;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Set for a process that is a bystander.
pub(crate) const BYSTANDER: &str = "STRESS_BYSTANDER";
/// The pid that was given out last in this namespace (proc_sys_kernel(5)).
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Two ticks of the clock that start times are counted in.
const TICKS: Duration = Duration::from_millis(20);

pub(crate) struct Bystander {
    pid: Pid,
    start_time: u64,
}

/// The bystander itself. It locks its standard input, if that is a directory.
pub(crate) fn main() -> ExitCode {
    let stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned().expect("dup"));
    let locked = Flock::lock(stdin, FlockArg::LockExclusive);
    loop {
        // All signals are blocked: nothing but SIGKILL ends this.
        std::thread::park();
        std::hint::black_box(&locked);
    }
}

/// The command line of the proxy of container `id`.
pub(crate) fn proxy_line(id: &str) -> Vec<String> {
    ["balena-extension-runtime", "proxy", "--id", id].map(str::to_owned).to_vec()
}

impl Bystander {
    /// Starts a bystander with any pid.
    pub(crate) fn anywhere(line: &[String]) -> Result<Self, String> {
        Self::spawn(Stdio::null(), line)
    }

    /// Starts a bystander that soon locks `folder`.
    pub(crate) fn that_locks(folder: File, line: &[String]) -> Result<Self, String> {
        Self::spawn(folder.into(), line)
    }

    /// Starts a bystander with `pid`. Kills the process that has the pid now.
    pub(crate) fn in_place_of(pid: i32, line: &[String]) -> Result<Self, String> {
        let dead = Pid::from_raw(pid);
        let _ = kill(dead, Signal::SIGKILL);
        // ECHILD: it had died already and was reaped.
        let _ = waitpid(dead, Some(WaitPidFlag::__WALL));
        // The start times of the two must differ. No system gives out all its pids in so little time.
        std::thread::sleep(TICKS);
        // A thread of this process may take the pid in between, and releases it again.
        for _ in 0..1000 {
            std::fs::write(LAST_PID, (pid - 1).to_string())
                .map_err(|error| format!("{LAST_PID}: {error}"))?;
            let bystander = Self::spawn(Stdio::null(), line)?;
            if bystander.pid() == pid {
                return Ok(bystander);
            }
            bystander.end();
        }
        Err(format!("the kernel does not give out the pid {pid} again"))
    }

    fn spawn(stdin: Stdio, line: &[String]) -> Result<Self, String> {
        let (name, arguments) = line.split_first().ok_or("a process has a name")?;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg0(name).args(arguments).env_clear().env(BYSTANDER, "1");
        command.stdin(stdin).stdout(Stdio::null()).process_group(0);
        // SAFETY: sigprocmask(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(|| SigSet::all().thread_block().map_err(std::io::Error::from));
        }
        let child = command.spawn().map_err(|error| format!("a bystander: {error}"))?;
        let pid = pid_of(&child);
        Ok(Self { pid, start_time: Process(pid.as_raw()).start_time() })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub(crate) fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Fails if it has ended or has a pending signal.
    pub(crate) fn is_untouched(&self) -> Result<(), String> {
        let pid = self.pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let value = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
        };
        if status.is_empty() || value("State:").starts_with(['Z', 'X', 'T']) {
            return Err(format!("the bystander {pid} was ended or stopped: {:?}", value("State:")));
        }
        for pending in ["SigPnd:", "ShdPnd:"] {
            if u64::from_str_radix(value(pending), 16) != Ok(0) {
                return Err(format!(
                    "the bystander {pid} got a signal: {pending} {}",
                    value(pending)
                ));
            }
        }
        if Process(pid.as_raw()).start_time() != self.start_time {
            return Err(format!("the bystander {pid} is gone and its pid another's"));
        }
        Ok(())
    }

    pub(crate) fn end(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, Some(WaitPidFlag::__WALL));
    }
}
