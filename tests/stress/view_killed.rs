//! `try` is killed at every system call: the manager, and the process that makes the view and runs the command. Whatever
//! the moment, no process, no mount and no file is left.

use crate::finished::End;
use crate::processes::{self, reap};
use crate::report::Report;
use crate::support::host::bare;
use crate::support::overlay_store::OverlayStore;
use crate::support::recorded_store::labels;
use crate::system_calls::{Call, name as name_of};
use crate::tracer::{Action, Stepped, Traced, When, trace};
use crate::trials::Extent;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the kernel may take to end the processes of a view.
const END_LIMIT: Duration = Duration::from_secs(1);
/// What the command prints, and its exit status.
const PRINTED: &str = "of the image\n";
const STATUS: i32 = 5;

pub(crate) fn sweep(_: Extent, report: &mut Report) {
    let store = OverlayStore::new();
    store.file("image", "opt/view/a", PRINTED);
    store.image("ext", &labels(&[]), &["image"]);
    store.file("deployed", "opt/view/b", "");
    store.container("dddd1", &labels(&[]), &["deployed"]);
    let before = Remains::read();
    for (name, stepped) in [("manager", Stepped::Main), ("process 1", Stepped::Child(1))] {
        let whole = trace(&mut command(&store, 0), stepped, When::Never, Action::Nothing);
        let calls = whole.calls.len();
        let is_wait = |call: &Call| matches!(name_of(call.number).as_str(), "wait4" | "waitid");
        let waits = whole.calls.iter().rposition(is_wait).expect("it waits for its child");
        report.judge(
            format_args!("{name}, not killed"),
            completed(&whole).and_then(|()| before.are_all()),
        );
        for at in 1..=calls {
            // Until then the command would go on for longer than it may.
            let seconds = if at <= waits + 1 { 30 } else { 0 };
            let mut command = command(&store, seconds);
            let traced = trace(&mut command, stepped, When::Before(at), Action::Kill);
            let call = traced.hit.as_ref().map(ToString::to_string).unwrap_or_default();
            let outcome = killed(stepped, &traced).and_then(|()| before.are_all());
            report.judge(format_args!("{name}, killed at call {at} {call}"), outcome);
        }
        report.note(format_args!("{name}: killed at each of {calls} calls"));
    }
}

/// The command goes on for some seconds, and leaves a process running.
fn command(store: &OverlayStore, seconds: u32) -> Command {
    let script = format!(
        "sleep 100 & cat /opt/view/a; ls /opt/view/b >/dev/null && sleep {seconds} && exit {STATUS}"
    );
    let mut command = bare(&["try", "--host", "unix:///nonexistent/engine.sock", "ext"]);
    command.arg("--docker-root").arg(store.path()).args(["--writable", "--", "sh", "-c", &script]);
    command
}

fn completed(traced: &Traced) -> Result<(), String> {
    let finished = &traced.finished;
    match finished.code() == STATUS && finished.out == PRINTED && finished.err.is_empty() {
        true => Ok(()),
        false => Err(finished.to_string()),
    }
}

/// If the process of the view is killed, the manager reports that. One call may be the last.
fn killed(stepped: Stepped, traced: &Traced) -> Result<(), String> {
    let finished = &traced.finished;
    if traced.hit.is_none() {
        return completed(traced);
    }
    let expected = match stepped {
        Stepped::Main => End::Killed(Signal::SIGKILL),
        Stepped::Child(_) => End::Status(128 + Signal::SIGKILL as i32),
    };
    if finished.end == expected { Ok(()) } else { Err(finished.to_string()) }
}

/// What a machine has besides processes.
#[derive(PartialEq, Eq)]
struct Remains {
    mounts: String,
    files: BTreeSet<PathBuf>,
}

impl Remains {
    fn read() -> Self {
        let mut files = BTreeSet::new();
        for folder in [crate::trial_process::SCRATCH, "/run"] {
            add_files(Path::new(folder), &mut files);
        }
        Self { mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap(), files }
    }

    /// Whether there is nothing else, and no other process.
    fn are_all(&self) -> Result<(), String> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            reap();
            let left = processes::all();
            if left.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                processes::kill_all();
                return Err(format!("processes are left: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let now = Self::read();
        match now == *self {
            true => Ok(()),
            false => Err(format!(
                "left: {:?}; the mounts were {} and are {}",
                now.files.symmetric_difference(&self.files).collect::<Vec<_>>(),
                self.mounts,
                now.mounts
            )),
        }
    }
}

fn add_files(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            add_files(&entry.path(), files);
        }
        files.insert(entry.path());
    }
}
