//! Processes as an engine handles them: started by posix_spawn, and waited for even when they are the
//! orphans of another process. Also the scratch directory, and the handling of Ctrl-C.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Result;

/// The directory that everything is made in. It is emptied at the end, also after an error.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `path`, and makes this process the parent of every orphan among its descendants: containers outlive
    /// the command that creates them, and must be waited for.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        stop_signals().thread_block()?;
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, and reports when that fails, which `drop` cannot.
    pub(crate) fn remove(self) -> Result<()> {
        no_child_left()?;
        clear(&self.path)?;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a failure: a child that still runs is a container's process, which only this one knows of.
        for pid in children() {
            let _gone_already = nix::sys::signal::kill(pid, Signal::SIGKILL);
            let _reaped = waitpid(pid, None);
        }
        let _reported_by_remove = clear(&self.path);
    }
}

/// Empties a directory, but keeps it: it may be a mount point.
fn clear(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Runs this process and its children on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

/// The path of a program, so that the search for it is not part of the time.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{program}: not found on PATH").into())
}

/// A command line, ready to be started without another allocation.
pub(crate) struct Argv(Vec<CString>);

impl Argv {
    pub(crate) fn new<Word: AsRef<std::ffi::OsStr>>(
        words: impl IntoIterator<Item = Word>,
    ) -> Result<Self> {
        let words = words.into_iter().map(|word| CString::new(word.as_ref().as_bytes()));
        Ok(Self(words.collect::<std::result::Result<_, _>>()?))
    }

    /// The same command under another one, such as a tracer.
    pub(crate) fn under(&self, wrapper: &[&str]) -> Result<Self> {
        let mut words = Self::new(wrapper)?.0;
        words.extend(self.0.iter().cloned());
        Ok(Self(words))
    }

    /// Runs it to its end, which must be a success.
    pub(crate) fn run(&self) -> Result<()> {
        wait(self.spawn()?).map_err(|error| format!("{self}: {error}").into())
    }

    pub(crate) fn spawn(&self) -> Result<Pid> {
        // A process group of its own: Ctrl-C must reach only the benchmark, which then cleans up, and must not
        // leave a half-made container behind.
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        attributes.set_sigmask(&SigSet::empty())?;
        let program = self.0.first().ok_or("an empty command line")?;
        let environment = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
        posix_spawn::<_, CString, &CStr>(
            program.as_c_str(),
            &PosixSpawnFileActions::init()?,
            &attributes,
            &self.0,
            &environment,
        )
        .map_err(|error| format!("{self}: {error}").into())
    }
}

impl std::fmt::Display for Argv {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = self.0.iter().map(|word| word.to_string_lossy()).collect();
        out.write_str(&words.join(" "))
    }
}

/// Waits for every child; each has been sent a signal that ends it.
pub(crate) fn reap() -> Result<()> {
    loop {
        match waitpid(None, None) {
            Err(Errno::ECHILD) => return Ok(()),
            outcome => drop(outcome?),
        }
    }
}

/// Waits for a child, or an adopted orphan, to exit with status 0.
pub(crate) fn wait(pid: Pid) -> Result<()> {
    let status = waitpid(pid, None)?;
    if status == WaitStatus::Exited(pid, 0) {
        Ok(())
    } else {
        Err(format!("ended with {status:?}").into())
    }
}

/// Fails when a child is left: a process that was not waited for, or outlived its container.
pub(crate) fn no_child_left() -> Result<()> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Err(Errno::ECHILD) => Ok(()),
        other => Err(format!("a process is left over: {other:?}").into()),
    }
}

/// The CPU time that all processes and the kernel have taken since boot, in seconds.
pub(crate) fn busy() -> Result<f64> {
    // proc_stat(5): user nice system idle iowait irq softirq steal guest guest_nice; the two guest
    // ones are part of user and nice.
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    Ok(ticks
        .iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .map(|(_, ticks)| ticks)
        .sum::<f64>()
        / TICKS_PER_SECOND)
}

/// The CPU time that this process has taken, with all children that it has waited for, in seconds.
pub(crate) fn own() -> Result<f64> {
    // proc_pid_stat(5): utime, stime, cutime and cstime are fields 14 to 17; the second field may
    // contain spaces, but ends with the last parenthesis.
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(')').ok_or("/proc/self/stat: no parenthesis")?;
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// USER_HZ, which is 100 on every architecture that Linux still has, whatever HZ is.
const TICKS_PER_SECOND: f64 = 100.0;

fn children() -> Vec<Pid> {
    let pid = std::process::id();
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    list.unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok().map(Pid::from_raw))
        .collect()
}

fn stop_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// An error once a signal has asked this process to stop. The signals are blocked, so that this process acts on
/// them between two containers and leaves no half-made one.
pub(crate) fn interrupted() -> Result<()> {
    std::thread_local! {
        static PENDING: std::cell::OnceCell<SignalFd> = const { std::cell::OnceCell::new() };
    }
    let signal = PENDING.with(|cell| {
        let open = || {
            SignalFd::with_flags(&stop_signals(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        };
        if cell.get().is_none() {
            let _first = cell.set(open()?);
        }
        cell.get().map_or(Ok(None), SignalFd::read_signal)
    })?;
    match signal {
        Some(_) => Err("stopped".into()),
        None => Ok(()),
    }
}
