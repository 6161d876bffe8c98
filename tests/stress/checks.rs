//! The invariants that hold after any disturbance: there is no process except the recorded proxy, no unknown
//! file, no mount and no cgroup, and `state` reports the actual.

use crate::container::{Call, Container, mounts, names};
use crate::finished::{End, Finished};
use crate::leftovers;
use crate::processes;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the processes of a killed command may take to end.
const SETTLE: Duration = Duration::from_secs(2);

/// The answer of `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reported {
    Absent,
    Document { status: String, pid: i32 },
}

impl Reported {
    /// The status, `absent` if there is no container.
    pub(crate) fn status(&self) -> &str {
        match self {
            Self::Absent => "absent",
            Self::Document { status, .. } => status,
        }
    }

    /// Fails unless the status is one of `allowed`.
    pub(crate) fn one_of(&self, allowed: &[&str]) -> Result<(), String> {
        if allowed.contains(&self.status()) {
            return Ok(());
        }
        Err(format!("state says {}, expected one of {allowed:?}", self.status()))
    }
}

fn fail<T>(why: impl std::fmt::Display) -> Result<T, String> {
    Err(why.to_string())
}

impl Container {
    /// Calls `state`.
    pub(crate) fn reported(&self) -> Result<Reported, String> {
        parse_state(&self.run(Call::State))
    }

    /// Waits until processes and state agree, and checks the files.
    pub(crate) fn settle(&self) -> Result<Reported, String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            processes::reap();
            let seen = self.reported()?;
            // Call it again: a process that ended in between may have changed the state.
            let agreed = self.agree(&seen).and_then(|()| match self.reported()? {
                again if again == seen => Ok(()),
                again => fail(format_args!("{seen:?}, then {again:?}")),
            });
            match agreed {
                Ok(()) => {
                    self.files()?;
                    return Ok(seen);
                }
                Err(why) if Instant::now() >= deadline => {
                    return fail(format_args!("{why}, {SETTLE:?} later still"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Fails unless the processes match the state `seen`.
    fn agree(&self, seen: &Reported) -> Result<(), String> {
        let processes = processes::all();
        let proxy = format!("balena-extension-runtime proxy --id {}", self.id);
        let recorded = self.recorded().and_then(|state| state["pid"].as_i64()).unwrap_or_default();
        let is_proxy = |(pid, line): &&(i32, String)| *line == proxy && i64::from(*pid) == recorded;
        let mut others = processes.iter().filter(|process| !is_proxy(process)).peekable();
        if others.peek().is_some() {
            let others: Vec<_> = others.collect();
            return fail(format_args!("{seen:?} with the processes {others:?}"));
        }
        match seen {
            Reported::Document { status, pid } if status == "created" || status == "running" => {
                let alive: Vec<i32> = processes.iter().map(|(pid, _)| *pid).collect();
                if alive != [*pid] {
                    return fail(format_args!("{seen:?}, but the processes are {processes:?}"));
                }
            }
            Reported::Document { .. } | Reported::Absent => {
                if !processes.is_empty() {
                    return fail(format_args!("{seen:?}, but the processes are {processes:?}"));
                }
            }
        }
        Ok(())
    }

    /// Fails if a file is half-written or should not exist.
    fn files(&self) -> Result<(), String> {
        let roots = names(&self.root());
        if roots.iter().any(|name| *name != self.id) {
            return fail(format_args!("in the state root: {roots:?}"));
        }
        let known = [".state.json.tmp", "state.json"];
        let inside = names(&self.state_folder());
        if inside.iter().any(|name| !known.contains(&name.as_str())) {
            return fail(format_args!("in the state folder: {inside:?}"));
        }
        if inside.iter().any(|name| name == "state.json") && self.recorded().is_none() {
            let text = fs::read_to_string(self.state_folder().join("state.json"));
            return fail(format_args!("state.json is half-written: {text:?}"));
        }
        let beside = names(self.pid_file().parent().unwrap_or(Path::new("/")));
        // The name of a prepared file begins with a dot.
        if beside.iter().any(|name| name.starts_with('.')) {
            return fail(format_args!("beside the pid file: {beside:?}"));
        }
        let is_torn =
            |text: &String| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(text) = fs::read_to_string(self.pid_file()).ok().filter(is_torn) {
            return fail(format_args!("the pid file is half-written: {text:?}"));
        }
        if mounts() != self.mounts {
            return fail("the mount table has changed");
        }
        records()
    }

    /// Fails unless the container is created and the pid file has its pid.
    pub(crate) fn is_created(&self) -> Result<(), String> {
        let seen = self.settle()?;
        seen.one_of(&["created"])?;
        let Reported::Document { pid, .. } = seen else { return Ok(()) };
        let text = fs::read_to_string(self.pid_file()).unwrap_or_default();
        if text == pid.to_string() { Ok(()) } else { fail(format_args!("the pid file: {text:?}")) }
    }

    /// Fails if a state, process, cgroup or mount of the container is left.
    pub(crate) fn nothing_is_left(&self) -> Result<(), String> {
        self.settle()?.one_of(&["absent"])?;
        let left = names(&self.root());
        if !left.is_empty() {
            let inside = names(&self.state_folder());
            return fail(format_args!("left in the state root: {left:?}, with {inside:?}"));
        }
        let left = leftovers::cgroups(&self.cgroup);
        if left.is_empty() { Ok(()) } else { fail(format_args!("cgroups are left: {left:?}")) }
    }

    /// Fails if anything is left, including the pid file, which a failed create must remove.
    pub(crate) fn nothing_was_created(&self) -> Result<(), String> {
        self.nothing_is_left()?;
        let left = names(self.pid_file().parent().unwrap_or(Path::new("/")));
        if left.is_empty() { Ok(()) } else { fail(format_args!("left at the pid file: {left:?}")) }
    }

    /// `delete --force` cleans up in every state, and prints nothing.
    pub(crate) fn force_delete(&self) -> Result<(), String> {
        let finished = self.run(Call::ForceDelete).success()?;
        if !(finished.out.is_empty() && finished.err.is_empty()) {
            return fail(format_args!("not silent: {finished}"));
        }
        self.nothing_is_left()
    }

    /// A container with the same id can be created, started and deleted.
    pub(crate) fn full_life(&self) -> Result<(), String> {
        self.run(Call::Create).success()?;
        self.is_created()?;
        self.start_and_delete()
    }

    /// Starts and deletes a created container.
    pub(crate) fn start_and_delete(&self) -> Result<(), String> {
        self.run(Call::Start).success()?;
        self.stop_and_delete()
    }

    /// Deletes a started container. A sandbox is stopped first.
    pub(crate) fn stop_and_delete(&self) -> Result<(), String> {
        if self.settle()?.status() == "running" {
            self.run(Call::Kill("TERM")).success()?;
            self.await_stopped()?;
        }
        self.run(Call::Delete).success()?;
        self.nothing_is_left()
    }

    /// Waits until the proxy has ended on the signal that it was sent.
    pub(crate) fn await_stopped(&self) -> Result<(), String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let seen = self.settle()?;
            if seen.status() == "stopped" && processes::all().is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return fail(format_args!("{seen:?}, {SETTLE:?} after the signal"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Parses an answer of `state`: a whole document, or the error that the container does not exist.
pub(crate) fn parse_state(finished: &Finished) -> Result<Reported, String> {
    if finished.end == End::Status(1)
        && finished.out.is_empty()
        && finished.err.contains("does not exist")
    {
        return Ok(Reported::Absent);
    }
    let document: serde_json::Value = match serde_json::from_str(&finished.out) {
        Ok(document) if finished.succeeded() => document,
        _ => return fail(format_args!("no answer of state: {finished}")),
    };
    let status = document["status"].as_str().unwrap_or_default().to_owned();
    for field in ["ociVersion", "id", "bundle", "rootfs", "created", "annotations"] {
        if document[field].is_null() {
            return fail(format_args!("state has no {field}: {document}"));
        }
    }
    let pid = document["pid"].as_i64().unwrap_or_default();
    Ok(Reported::Document { status, pid: i32::try_from(pid).unwrap_or(-1) })
}

/// The steps of the container's deploy record, if there is one.
pub(crate) fn recorded_steps(container: &Container) -> Vec<serde_json::Value> {
    let path = crate::trial_process::records().join(format!("{}.json", container.id));
    let text = fs::read_to_string(path).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    record["steps"].as_array().cloned().unwrap_or_default()
}

/// Fails unless every deploy record is whole, including one that a killed verb left under its temporary name,
/// and the directory contains nothing else.
fn records() -> Result<(), String> {
    let folder = crate::trial_process::records();
    let file = |name: &String| folder.join(name).is_file();
    for name in names(&folder).into_iter().filter(file) {
        let text = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        let whole = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|it| it.is_object());
        let prepared = name.starts_with('.') && name.ends_with(".tmp");
        if !(whole && (prepared || name.ends_with(".json") && !name.starts_with('.'))) {
            return fail(format_args!("the record of a deploy {name:?} holds {text:?}"));
        }
    }
    Ok(())
}
