//! What must hold after whatever has happened: no process but the recorded proxy, no file but the
//! known ones, no mount, no cgroup, and a `state` that tells the truth about all of that.

use crate::container::{Call, World, mounts, names};
use crate::finished::{End, Finished};
use crate::leftovers;
use crate::processes;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long what belongs to a killed command may take to end.
const SETTLE: Duration = Duration::from_secs(2);

/// What `state` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Absent,
    Document { status: String, pid: i32 },
}

impl Seen {
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

/// Everything that is left over, told when something should not be.
fn fail<T>(why: impl std::fmt::Display) -> Result<T, String> {
    Err(why.to_string())
}

impl World {
    /// Asks `state`.
    pub(crate) fn look(&self) -> Result<Seen, String> {
        parse_state(&self.run(Call::State))
    }

    /// Waits until processes and state agree, and checks the files.
    pub(crate) fn settle(&self) -> Result<Seen, String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            processes::reap();
            let seen = self.look()?;
            // Asked again: what ended in between may have changed it.
            let agreed = self.agree(&seen).and_then(|()| match self.look()? {
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

    /// Whether the processes are those that `seen` speaks of.
    fn agree(&self, seen: &Seen) -> Result<(), String> {
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
            Seen::Document { status, pid } if status == "created" || status == "running" => {
                let alive: Vec<i32> = processes.iter().map(|(pid, _)| *pid).collect();
                if alive != [*pid] {
                    return fail(format_args!("{seen:?}, but the processes are {processes:?}"));
                }
            }
            Seen::Document { .. } | Seen::Absent => {
                if !processes.is_empty() {
                    return fail(format_args!("{seen:?}, but the processes are {processes:?}"));
                }
            }
        }
        Ok(())
    }

    /// No file is half-written, and none is there that should not be.
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
        // A prepared file would have a name with a dot in front.
        if beside.iter().any(|name| name.starts_with('.')) {
            return fail(format_args!("beside the pid file: {beside:?}"));
        }
        if let Ok(text) = fs::read_to_string(self.pid_file())
            && (text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return fail(format_args!("the pid file is half-written: {text:?}"));
        }
        if mounts() != self.mounts {
            return fail("the mount table has changed");
        }
        records()
    }

    /// The container is created, and the pid file says so.
    pub(crate) fn is_created(&self) -> Result<(), String> {
        let seen = self.settle()?;
        seen.one_of(&["created"])?;
        let Seen::Document { pid, .. } = seen else { return Ok(()) };
        let text = fs::read_to_string(self.pid_file()).unwrap_or_default();
        if text == pid.to_string() { Ok(()) } else { fail(format_args!("the pid file: {text:?}")) }
    }

    /// Nothing of the container is left: no state, no process, no cgroup, no mount.
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

    /// Besides, a create that failed leaves no pid file.
    pub(crate) fn was_never_there(&self) -> Result<(), String> {
        self.nothing_is_left()?;
        let left = names(self.pid_file().parent().unwrap_or(Path::new("/")));
        if left.is_empty() { Ok(()) } else { fail(format_args!("left at the pid file: {left:?}")) }
    }

    /// `delete --force` cleans up, whatever there is, and says nothing.
    pub(crate) fn force(&self) -> Result<(), String> {
        let finished = self.run(Call::ForceDelete).success()?;
        if !(finished.out.is_empty() && finished.err.is_empty()) {
            return fail(format_args!("not silent: {finished}"));
        }
        self.nothing_is_left()
    }

    /// A container of the same id lives a whole life.
    pub(crate) fn lives_again(&self) -> Result<(), String> {
        self.run(Call::Create).success()?;
        self.is_created()?;
        self.goes_on()
    }

    /// A created container is started and deleted.
    pub(crate) fn goes_on(&self) -> Result<(), String> {
        self.run(Call::Start).success()?;
        self.ends()
    }

    /// A started container is deleted: a sandbox is stopped first.
    pub(crate) fn ends(&self) -> Result<(), String> {
        if self.settle()?.status() == "running" {
            self.run(Call::Kill("TERM")).success()?;
            self.becomes_stopped()?;
        }
        self.run(Call::Delete).success()?;
        self.nothing_is_left()
    }

    /// The proxy ends on the signal that it was sent.
    pub(crate) fn becomes_stopped(&self) -> Result<(), String> {
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

/// Reads an answer of `state`. There are two: a whole document, or that there is no such container.
pub(crate) fn parse_state(finished: &Finished) -> Result<Seen, String> {
    if finished.end == End::Status(1)
        && finished.out.is_empty()
        && finished.err.contains("does not exist")
    {
        return Ok(Seen::Absent);
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
    Ok(Seen::Document { status, pid: i32::try_from(pid).unwrap_or(-1) })
}

/// The steps of the container's record, as far as there is one.
pub(crate) fn recorded_steps(world: &World) -> Vec<serde_json::Value> {
    let path = crate::trial_process::records().join(format!("{}.json", world.id));
    let text = fs::read_to_string(path).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    record["steps"].as_array().cloned().unwrap_or_default()
}

/// Every record of a deploy is whole, also one that a kill left under the name it was prepared under, and
/// there is nothing else beside them.
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
