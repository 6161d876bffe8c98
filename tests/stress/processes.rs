//! Processes as process 1 of a namespace has them: all of them are its descendants, and all orphans
//! its children. It waits for whichever ends, so that no zombie keeps a verb waiting.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Nothing that the runtime is asked here takes longer, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Status(i32),
    Killed(Signal),
    /// It had to be killed, after [`LIMIT`] mostly.
    Hung,
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) what: String,
    pub(crate) end: End,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Finished {
    pub(crate) fn succeeded(&self) -> bool {
        self.end == End::Status(0)
    }

    /// The error of a program that should have succeeded.
    pub(crate) fn ok(self) -> Result<Self, String> {
        if self.succeeded() { Ok(self) } else { Err(format!("{self}")) }
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, end, out, err } = self;
        write!(formatter, "{what}: {end:?}, stdout {out:?}, stderr {err:?}")
    }
}

/// Files in memory that take the output of a program: a pipe would stay open as long as the proxy.
pub(crate) struct Output {
    out: File,
    err: File,
}

impl Output {
    /// Lets `command` write here.
    pub(crate) fn of(command: &mut Command) -> Self {
        let file = |name| {
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            File::from(rustix::fs::memfd_create(name, flags).expect("memfd_create"))
        };
        let (out, err) = (file("out"), file("err"));
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(err.try_clone().unwrap());
        Self { out, err }
    }

    pub(crate) fn finish(&self, what: String, end: End) -> Finished {
        Finished { what, end, out: read(&self.out), err: read(&self.err) }
    }
}

/// Reads from the start, whatever the position that others share is.
fn read(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Finished {
    run_within(command, LIMIT)
}

/// Runs `command` to its end, or for as long as `limit`.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Finished {
    let output = Output::of(command);
    let what = describe(command);
    let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let pid = pid_of(&child);
    let end = await_end(pid, limit);
    output.finish(what, end)
}

pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Waits for `pid`, reaping whatever else ends.
pub(crate) fn await_end(pid: Pid, limit: Duration) -> End {
    let watch = Watchdog::over(pid, limit);
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(ended, status)) if ended == pid => {
                return watch.judge(End::Status(status));
            }
            Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => {
                return watch.judge(End::Killed(signal));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("waiting for {pid}: {error}"),
        }
    }
}

/// Reaps every orphan that has ended.
pub(crate) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// Every process but this one: pid and command line. Zombies are left out.
pub(crate) fn all() -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        if pid == 1 || rest.starts_with(" Z") || rest.starts_with(" X") {
            continue;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
        found.push((pid, if line.is_empty() { format!("{name})") } else { line }));
    }
    found
}

/// When `pid` was started, in clock ticks after boot; 0 if there is none (proc_pid_stat(5)).
pub(crate) fn start_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// Kills every process but this one, for the next point to start from nothing.
pub(crate) fn kill_all() {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = all();
        if left.is_empty() {
            return;
        }
        for (pid, _) in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        reap();
        assert!(Instant::now() < deadline, "processes that cannot be killed: {left:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills a process that hangs, from another thread.
pub(crate) struct Watchdog {
    watched: std::sync::Arc<(Mutex<Watch>, Condvar)>,
}

enum Watch {
    Waiting,
    Bitten,
    Over,
}

impl Watchdog {
    pub(crate) fn over(pid: Pid, limit: Duration) -> Self {
        let watched = std::sync::Arc::new((Mutex::new(Watch::Waiting), Condvar::new()));
        let shared = std::sync::Arc::clone(&watched);
        std::thread::spawn(move || {
            let (watch, changed) = &*shared;
            let guard = watch.lock().unwrap();
            let waiting = |watch: &mut Watch| matches!(watch, Watch::Waiting);
            let (mut watch, outcome) = changed.wait_timeout_while(guard, limit, waiting).unwrap();
            if outcome.timed_out() {
                *watch = Watch::Bitten;
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self { watched }
    }

    /// The process has ended: by itself, or by this.
    pub(crate) fn judge(&self, end: End) -> End {
        let (watch, changed) = &*self.watched;
        let mut watch = watch.lock().unwrap();
        if matches!(*watch, Watch::Bitten) {
            return End::Hung;
        }
        *watch = Watch::Over;
        changed.notify_all();
        end
    }
}
