//! The tracer: runs a command under ptrace(2), counts the system calls of one of its processes, and acts at one
//! of them. The other processes run untraced, at full speed.
#![expect(unsafe_code, reason = "PTRACE_TRACEME has to be called between fork and exec")]

use crate::capture::{Output, describe};
use crate::finished::End;
use crate::processes::{LIMIT, Watchdog, pid_of};
pub(crate) use crate::strike::{Action, Stepped, Traced, When};
use crate::system_calls::{self, Call};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

struct Tracer<'a> {
    main: Pid,
    stepped: Stepped,
    when: When,
    action: Action<'a>,
    children: usize,
    target: Option<Pid>,
    /// Processes that have not had their first stop yet.
    newborn: HashSet<Pid>,
    /// Processes that had it before their parent's event.
    early: HashSet<Pid>,
    calls: Vec<Call>,
    hit: Option<Call>,
    strikes: usize,
    hit_at: usize,
    pending: Option<Errno>,
    child: Option<String>,
    others: Vec<(Pid, End)>,
}

/// Runs `command` and performs `action` at `when`.
pub(crate) fn trace(
    command: &mut Command,
    stepped: Stepped,
    when: When,
    action: Action<'_>,
) -> Traced {
    let output = Output::of(command);
    let what = describe(command);
    // SAFETY: ptrace(2) is one plain system call, which may be made between fork and exec.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from)) };
    let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let main = pid_of(&child);
    let first = waitpid(main, Some(WaitPidFlag::__WALL));
    assert_eq!(first, Ok(WaitStatus::Stopped(main, Signal::SIGTRAP)), "{what}: the stop at exec");
    // A second execve, as prlimit(1) makes it, is an event and not a SIGTRAP.
    let mut options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACEEXEC;
    let mut target = Some(main);
    if stepped != Stepped::Main {
        options |= Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE;
        target = None;
    }
    ptrace::setoptions(main, options).expect("PTRACE_SETOPTIONS");
    let mut tracer = Tracer {
        main,
        stepped,
        when,
        action,
        children: 0,
        target,
        newborn: HashSet::new(),
        early: HashSet::new(),
        calls: Vec::new(),
        hit: None,
        strikes: 0,
        hit_at: 0,
        pending: None,
        child: None,
        others: Vec::new(),
    };
    tracer.resume(main, None);
    let watch = Watchdog::over(main, LIMIT);
    let end = watch.judge(tracer.follow());
    tracer.release();
    let Tracer { hit, strikes, hit_at, calls, child, others, .. } = tracer;
    Traced { finished: output.finish(what, end), hit, strikes, hit_at, calls, child, others }
}

impl Tracer<'_> {
    /// Resumes `pid`, unless it has been killed meanwhile.
    fn resume(&self, pid: Pid, signal: Option<Signal>) {
        let result = if self.target == Some(pid) {
            ptrace::syscall(pid, signal)
        } else {
            ptrace::cont(pid, signal)
        };
        assert!(matches!(result, Ok(()) | Err(Errno::ESRCH)), "resume {pid}: {result:?}");
    }

    /// Handles events until the main process has ended.
    fn follow(&mut self) -> End {
        loop {
            if let Some(end) = self.step() {
                return end;
            }
        }
    }

    fn step(&mut self) -> Option<End> {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => return None,
            status => status.expect("waitpid"),
        };
        if let Some((pid, end)) = End::of(status) {
            return self.ended(pid, end);
        }
        match status {
            WaitStatus::PtraceSyscall(pid) => self.at_stop(pid),
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 {
                    self.name(pid);
                } else if let Ok(child) = ptrace::getevent(pid) {
                    self.born(pid, Pid::from_raw(i32::try_from(child).unwrap()));
                }
                self.resume(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                if self.newborn.remove(&pid) {
                    self.begin(pid);
                } else if pid == self.main || Some(pid) == self.target {
                    self.resume(pid, Some(signal));
                } else {
                    self.early.insert(pid);
                }
            }
            _ => {}
        }
        None
    }

    fn ended(&mut self, pid: Pid, end: End) -> Option<End> {
        if self.target == Some(pid) && pid != self.main {
            self.target = None;
        }
        if pid != self.main {
            self.others.push((pid, end));
        }
        (pid == self.main).then_some(end)
    }

    /// `parent` has a new child. Only the child to step remains traced.
    fn born(&mut self, parent: Pid, child: Pid) {
        if parent == self.main {
            self.children += 1;
            if self.stepped == Stepped::Child(self.children) {
                self.target = Some(child);
            }
        }
        if self.early.remove(&child) {
            self.begin(child);
        } else {
            self.newborn.insert(child);
        }
    }

    fn begin(&mut self, child: Pid) {
        if self.target == Some(child) {
            self.resume(child, None);
        } else {
            let _ = ptrace::detach(child, None);
        }
    }

    fn name(&mut self, pid: Pid) {
        if self.target == Some(pid) && pid != self.main {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            self.child = Some(String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned());
        }
    }

    /// The stepped process enters or leaves a call.
    fn at_stop(&mut self, pid: Pid) {
        let entering =
            ptrace::syscall_info(pid).map(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        match entering {
            Ok(true) => self.entering(pid),
            Ok(false) => self.leaving(pid),
            // It has just been killed.
            Err(_) => {}
        }
        self.resume(pid, None);
    }

    fn entering(&mut self, pid: Pid) {
        let call = match Call::at_entry(pid) {
            Ok(call) => call,
            Err(Errno::ESRCH) => return,
            Err(error) => panic!("read the registers of {pid} (only x86_64 is known): {error}"),
        };
        self.calls.push(call.clone());
        let number = self.calls.len();
        let strikes = match self.when {
            When::Before(at) => number == at,
            When::From(at) => number >= at,
            When::After(_) | When::Never => false,
        };
        if strikes {
            self.strike(pid, &call);
        }
    }

    fn leaving(&mut self, pid: Pid) {
        if let (Action::Observe(observe), Some(call)) = (&mut self.action, self.calls.last()) {
            observe(pid, call, system_calls::result(pid).expect("the result of a call"));
        }
        if let Some(errno) = self.pending.take() {
            let _ = system_calls::fail(pid, errno);
        }
        // The first exit belongs to the execve before the first counted call.
        if self.when == When::After(self.calls.len()) {
            if let Some(call) = self.calls.last().cloned() {
                self.strike(pid, &call);
            }
        }
    }

    fn strike(&mut self, pid: Pid, call: &Call) {
        match &mut self.action {
            Action::Kill => {
                let _ = kill(pid, Signal::SIGKILL);
            }
            Action::Fail(errno, applies) => {
                if !call.can_return(*errno) || !applies(call) {
                    return;
                }
                // close(2) releases the descriptor even if it reports an error.
                if call.is_close() || system_calls::cancel(pid).is_ok() {
                    self.pending = Some(*errno);
                }
            }
            Action::Meanwhile(act) => act(),
            Action::Observe(_) | Action::Nothing => {}
        }
        self.strikes += 1;
        if self.hit.is_none() {
            self.hit_at = self.calls.len();
        }
        self.hit.get_or_insert_with(|| call.clone());
    }

    /// Detaches a stepped child that outlives its parent, and its children.
    fn release(&mut self) {
        self.release_target();
        for pid in std::mem::take(&mut self.newborn) {
            if let Ok(WaitStatus::Stopped(..)) = waitpid(pid, Some(WaitPidFlag::__WALL)) {
                let _ = ptrace::detach(pid, None);
            }
        }
        for pid in std::mem::take(&mut self.early) {
            let _ = ptrace::detach(pid, None);
        }
    }

    fn release_target(&mut self) {
        let Some(target) = self.target.filter(|target| *target != self.main) else { return };
        self.when = When::Never;
        let _ = kill(target, Signal::SIGSTOP);
        loop {
            match waitpid(target, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Stopped(_, Signal::SIGSTOP)) => {
                    let _ = ptrace::detach(target, None);
                    return;
                }
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                    return;
                }
                Ok(WaitStatus::PtraceSyscall(pid)) => self.at_stop(pid),
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    if event == Event::PTRACE_EVENT_EXEC as i32 {
                        self.name(pid);
                    } else if let Ok(child) = ptrace::getevent(pid) {
                        self.newborn.insert(Pid::from_raw(i32::try_from(child).unwrap()));
                    }
                    self.resume(pid, None);
                }
                Ok(WaitStatus::Stopped(pid, signal)) => self.resume(pid, Some(signal)),
                _ => {}
            }
        }
    }
}
