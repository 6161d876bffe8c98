//! Finds processes, checks their identity, signals them and waits for them, by pidfd. A bare pid is never signalled,
//! because the kernel may have given it to another process.
#![expect(unsafe_code, reason = "rustix has no safe type for signal 0 and the real-time signals")]

use crate::host::os::directory;
use crate::model::container::proxy::{self, Identity, Life, Stat};
use crate::model::container::signal::{self, Signal};
use crate::model::text::system_call;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Larger than any `stat`, and than the command line of a proxy, whose id has at most 1,024 characters.
const USUAL_LEN: usize = 2048;

/// A process that was alive when it was opened; its pidfd never refers to another one.
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// The result of waiting for the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Ended,
    StillThere,
}

/// Finds the proxy of container `id` by its recorded identity: same pid, same start time, and a
/// command line that names the container. `None` when it has ended, a zombie included, or when the
/// pid is another process's by now.
///
/// # Errors
/// `/proc` cannot be read or does not show the process, or the kernel has no pidfd; then nothing is known.
pub(crate) fn find_proxy(id: &str, identity: Identity) -> io::Result<Option<Process>> {
    check_proc()?;
    let Some(process) = open(identity.pid)? else { return Ok(None) };
    let Some(stat) = process.stat()? else { return Ok(None) };
    let Some(line) = process.shown(|pid| read_proc(pid, "cmdline"))? else { return Ok(None) };
    let is_recorded = stat.start_time == identity.start_time
        && stat.life == Life::Alive
        && line == proxy::command_line(id);
    // What was read is about this very process only if it is still there now.
    let is_there = process.wait_end(Duration::ZERO)? == Waited::StillThere;
    Ok((is_recorded && is_there).then_some(process))
}

/// Opens a process; `None` if there is none.
pub(crate) fn open(pid: i32) -> io::Result<Option<Process>> {
    open_pidfd(pid).map_err(|error| system_call::explained("pidfd_open", error.raw_os_error()))
}

/// The same, with the error of pidfd_open(2) itself.
pub(crate) fn open_pidfd(pid: i32) -> rustix::io::Result<Option<Process>> {
    // A forged state may contain any number; a negative one would be a process group.
    let Some(pid) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else { return Ok(None) };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(Process { pid, pidfd })),
        // A thread, not a process: EINVAL, and since Linux 6.15 ENOENT.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Checks that `/proc` is mounted and shows this process's PID namespace. Otherwise every process would seem to have
/// ended, or to be another one.
pub(crate) fn check_proc() -> io::Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    match rustix::fs::readlink("/proc/self", Vec::new()) {
        Ok(link) if link.as_bytes() == own.as_bytes() => Ok(()),
        Ok(_) | Err(_) => Err(io::Error::other(
            "/proc is not the proc filesystem of this process's PID namespace; mount that there",
        )),
    }
}

/// The start time, parent and life of `pid`; `None` if `/proc` does not show such a process.
pub(crate) fn read_stat(pid: i32) -> io::Result<Option<Stat>> {
    let Some(bytes) = read_proc(pid, "stat")? else { return Ok(None) };
    let not_a_stat = || io::Error::other(format!("/proc/{pid}/stat has an unknown format"));
    proxy::parse_stat(&bytes).map(Some).ok_or_else(not_a_stat)
}

/// The processes whose parent is this one, zombies included, by a walk of `/proc`. A process that moves here
/// meanwhile, because its parent has ended, may be missed.
pub(crate) fn find_children() -> io::Result<Vec<Pid>> {
    check_proc()?;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut children = Vec::new();
    for pid in pids()? {
        let stat = match read_stat(pid) {
            // Mounted with hidepid=1: a process that this one may not look at.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            read => read?,
        };
        if stat.is_some_and(|stat| stat.parent == own) {
            children.extend(Pid::from_raw(pid));
        }
    }
    Ok(children)
}

/// The processes that `/proc` shows.
pub(crate) fn pids() -> io::Result<Vec<i32>> {
    Ok(directory::numbers("/proc")?)
}

/// The signals that this process ignores, as [`signal::ignored`] has them; `None` if that cannot be known.
pub(crate) fn ignored_signals() -> Option<u64> {
    read_proc("self", "status").ok().flatten().and_then(|status| signal::ignored(&status))
}

/// Raises a negative `oom_score_adj` (proc_pid_oom_score_adj(5)) of this process to 0, which its children
/// inherit. Engines protect themselves with a negative value, but the kernel must be able to kill a hook that uses up
/// the memory.
pub(crate) fn give_up_oom_protection() -> io::Result<()> {
    raise_to_zero("/proc/self/oom_score_adj")
}

fn raise_to_zero(path: &str) -> io::Result<()> {
    if std::fs::read(path)?.starts_with(b"-") {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        rustix::io::write(rustix::fs::open(path, flags, Mode::empty())?, b"0")?;
    }
    Ok(())
}

/// Reads a file in the `/proc` directory of a process; `None` if the process has ended.
pub(crate) fn read_proc(pid: impl std::fmt::Display, file: &str) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(USUAL_LEN);
    let opened = File::open(format!("/proc/{pid}/{file}"));
    // Through `take`, which does not ask for the length first: these files have none.
    match opened.and_then(|file| file.take(u64::MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        // ESRCH: it ended between open and read.
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Process {
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The start time, parent and life; `None` if it has ended.
    pub(crate) fn stat(&self) -> io::Result<Option<Stat>> {
        self.shown(read_stat)
    }

    /// What `read` finds in `/proc`; `None` if the process has ended.
    fn shown<T>(&self, read: impl FnOnce(i32) -> io::Result<Option<T>>) -> io::Result<Option<T>> {
        if let Some(found) = read(self.pid())? {
            return Ok(Some(found));
        }
        self.ask(|pid| {
            Err(io::Error::other(format!(
                "process {pid} is running, but /proc does not show it (is /proc mounted with hidepid?)"
            )))
        })
    }

    /// The answer to a `question` about the process, which is asked by its pid. `None` if it has ended: what was found,
    /// or why nothing was found, may then be about another process. `None` also if there is no answer because the process
    /// is exiting: the kernel takes its program, files and namespaces away before it reports the end.
    pub(crate) fn ask<T>(
        &self,
        question: impl FnOnce(i32) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let answer = question(self.pid());
        // Before the look at the end: of a process that has ended, the number may be another's.
        let is_exiting = answer.is_err() && self.is_exiting();
        match self.wait_end(Duration::ZERO)? {
            Waited::Ended => Ok(None),
            Waited::StillThere if is_exiting => Ok(None),
            Waited::StillThere => answer.map(Some),
        }
    }

    /// Whether it is exiting or has ended; false if `/proc` does not show that.
    fn is_exiting(&self) -> bool {
        matches!(read_stat(self.pid()), Ok(Some(stat)) if stat.life != Life::Alive)
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(signal::KILL)
    }

    /// Sends `signal`. A process that has ended is not an error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.send(signal.number()) {
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(match error.raw_os_error() {
                Some(errno) => system_call::explained("pidfd_send_signal", errno),
                None => error,
            }),
            Ok(()) => Ok(()),
        }
    }

    fn send(&self, number: i32) -> io::Result<()> {
        // SAFETY: plain numbers and a null siginfo, which the call accepts; no memory is written.
        let result = unsafe {
            nix::libc::syscall(
                nix::libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                number,
                std::ptr::null::<nix::libc::siginfo_t>(),
                0,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until the process has ended, a zombie included, or `limit` is over.
    pub(crate) fn wait_end(&self, limit: Duration) -> io::Result<Waited> {
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], limit)?;
        Ok(if ended == 0 { Waited::StillThere } else { Waited::Ended })
    }

    /// Waits until the parent has read the exit status of an ended process, or `limit` is over.
    pub(crate) fn wait_reaped(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.send(0).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The effective user id.
pub(crate) fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// poll(2) with a limit; it continues after a signal.
pub(crate) fn poll(descriptors: &mut [PollFd<'_>], limit: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left)
            .map_err(|_| io::Error::other("a wait of more than 2^63 seconds"))?;
        match rustix::event::poll(descriptors, Some(&left)) {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a plain file, since lowering the kernel's takes CAP_SYS_RESOURCE, which not every machine grants.
    #[test]
    fn a_negative_adjustment_becomes_zero_and_any_other_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (before, after) in [("-900\n", "0"), ("0\n", "0\n"), ("300\n", "300\n")] {
            std::io::Write::write_all(&mut file.reopen().unwrap(), before.as_bytes()).unwrap();
            raise_to_zero(file.path().to_str().unwrap()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
        }
        assert!(raise_to_zero("/proc/self/none").is_err());
    }

    /// A process is in this state for some microseconds, between giving back its program and its end. One whose first
    /// thread has exited is in it for as long as another thread runs.
    #[test]
    fn of_an_exiting_process_a_missing_program_is_no_error() {
        // SAFETY: the child only starts a thread, and exits.
        let child = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { child } => child,
            nix::unistd::ForkResult::Child => {
                std::thread::spawn(|| std::thread::sleep(Duration::from_secs(100)));
                // SAFETY: ends this thread only.
                unsafe { nix::libc::syscall(nix::libc::SYS_exit, 0) };
                unreachable!()
            }
        };
        let process = open(child.as_raw()).unwrap().unwrap();
        let program = |pid| std::fs::read_link(format!("/proc/{pid}/exe"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while program(child.as_raw()).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let missing = program(child.as_raw()).map_err(|error| error.kind());
        let answers = (process.ask(program), process.ask(|_| Ok(7)));
        let end = process.wait_end(Duration::ZERO).unwrap();
        process.kill().unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
        assert_eq!((missing, end), (Err(io::ErrorKind::NotFound), Waited::StillThere));
        assert_eq!((answers.0.unwrap(), answers.1.unwrap()), (None, Some(7)));
    }

    #[test]
    fn a_thread_is_no_process() {
        let thread = std::thread::spawn(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            open(thread).map(|opened| opened.is_none())
        });
        assert!(thread.join().unwrap().unwrap());
    }

    #[test]
    fn children_are_found_whichever_thread_has_started_them() {
        let mut children = [1, 2].map(|_| {
            let start = || std::process::Command::new("sleep").arg("100").spawn().unwrap();
            std::thread::spawn(start).join().unwrap()
        });
        let found = find_children().unwrap();
        for child in &mut children {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            assert!(found.contains(&pid));
            assert!(!found.contains(&rustix::process::getpid()));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn only_the_recorded_process_with_the_recorded_command_line_is_found() {
        let sleep = || {
            use std::os::unix::process::CommandExt as _;
            let mut command = std::process::Command::new("sleep");
            command.arg0("balena-extension-runtime").arg("100").spawn().unwrap()
        };
        let mut child = sleep();
        let pid = i32::try_from(child.id()).unwrap();
        let start_time = read_stat(pid).unwrap().unwrap().start_time;
        // The right pid and start time, but another program: forged state must not kill it.
        assert!(find_proxy("x", Identity { pid, start_time }).unwrap().is_none());
        assert!(find_proxy("x", Identity { pid, start_time: start_time + 1 }).unwrap().is_none());
        let process = open(pid).unwrap().unwrap();
        assert_eq!(process.wait_end(Duration::ZERO).unwrap(), Waited::StillThere);
        process.kill().unwrap();
        assert_eq!(process.wait_end(Duration::from_secs(10)).unwrap(), Waited::Ended);
        // A zombie has ended, and a signal to it is not an error.
        process.kill().unwrap();
        child.wait().unwrap();
        process.kill().unwrap();
        assert!(open(pid).unwrap().is_none());
        for pid in [0, -1, i32::MAX] {
            assert!(open(pid).unwrap().is_none(), "{pid}");
        }
    }
}
