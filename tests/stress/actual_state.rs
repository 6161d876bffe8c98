//! Compares what the verbs report about a container with its actual state: the recorded state, and whether the
//! recorded proxy is alive. They are compared at every system call of a start: while the start is paused there,
//! and after it was killed there. Some of these starts succeed, some have a hook that fails, and some refuse
//! the extension.

use crate::capture::{Output, describe};
use crate::checks::{self, Reported};
use crate::container::{Call, Container};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::processes::{self, LIMIT, pid_of};
use crate::report::Report;
use crate::sweep;
use crate::swept_verbs::refused;
use crate::tracer::{Action, Stepped, When, trace};
use crate::trials::Extent;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long the answers may need to find a container that does not change.
const SETTLE: Duration = Duration::from_secs(2);
const NOT_RUNNING: &str = "container not running";

/// The actual state of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ActualState {
    Absent,
    /// `pid` is 0 without a proxy. `ends` if the proxy has nothing to wait for any more.
    Container {
        status: &'static str,
        pid: i32,
        ends: bool,
    },
}

impl ActualState {
    pub(crate) fn of(container: &Container) -> Self {
        let Some(recorded) = container.recorded() else { return Self::Absent };
        let pid = i32::try_from(recorded["pid"].as_i64().unwrap_or_default()).unwrap_or_default();
        let proxy = format!("balena-extension-runtime proxy --id {}", container.id);
        let alive = processes::all().contains(&(pid, proxy));
        let completing = recorded["phase"] == "completing";
        let written = recorded["status"].as_str().unwrap_or_default();
        let status = match (written, alive) {
            ("creating", _) => "creating",
            ("created", true) => "created",
            ("created", false) if completing => "creating",
            ("stopped" | "running", true) => "running",
            _ => "stopped",
        };
        let pid = if alive { pid } else { 0 };
        Self::Container { status, pid, ends: written == "stopped" }
    }

    /// Whether a plain delete has to accept the container.
    fn is_deletable(&self) -> bool {
        matches!(
            self,
            Self::Container { status: "stopped", .. } | Self::Container { ends: true, .. }
        )
    }

    /// Fails if `call` should not have ended as `passed`, given that this was the state when it began. `still`
    /// if the state did not change until it ended.
    pub(crate) fn allows(&self, call: Call, passed: &Finished, still: bool) -> Result<(), String> {
        match (self, call) {
            (Self::Container { pid: 0, .. }, Call::Kill(_)) => refused(passed, NOT_RUNNING),
            // The proxy of a start may end by itself.
            (Self::Container { ends: false, .. }, Call::Kill(_))
                if still && !passed.succeeded() =>
            {
                Err(format!("{self:?}, but {passed}"))
            }
            (Self::Container { .. }, Call::Delete)
                if self.is_deletable() && !passed.succeeded() =>
            {
                Err(format!("{self:?}, but {passed}"))
            }
            (Self::Container { .. }, Call::Delete) if !self.is_deletable() && still => {
                refused(passed, "that is not stopped")
            }
            _ => Ok(()),
        }
    }
}

/// Runs all queries, and compares their answers with the actual state.
pub(crate) fn compare(container: &Container) -> Result<ActualState, String> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let actual = ActualState::of(container);
        let agreed = ask_all(container, &actual);
        // Otherwise the state has changed meanwhile, because a proxy has ended.
        if ActualState::of(container) == actual {
            return agreed.map(|()| actual);
        }
        if Instant::now() >= deadline {
            return Err(format!("{actual:?} does not last"));
        }
    }
}

fn ask_all(container: &Container, actual: &ActualState) -> Result<(), String> {
    let wrong = |said: &dyn std::fmt::Debug| Err(format!("{actual:?}, but {said:?}"));
    let seen = checks::parse_state(&ask(container, Call::State))?;
    let listed = ask(container, Call::List).success()?;
    let list: Vec<Value> = serde_json::from_str(&listed.out).map_err(|why| why.to_string())?;
    let (ps, signal) = (ask(container, Call::Ps), ask(container, Call::Kill("0")));
    let ActualState::Container { status, pid, .. } = actual else {
        if seen != Reported::Absent || !list.is_empty() {
            return wrong(&(seen, list));
        }
        refused(&ps, "does not exist")?;
        return refused(&signal, "does not exist");
    };
    if seen != (Reported::Document { status: (*status).to_owned(), pid: *pid }) {
        return wrong(&seen);
    }
    match list.as_slice() {
        [one] if one["status"] == *status && one["pid"] == *pid => {}
        other => return wrong(&other),
    }
    let pids: Vec<i32> = serde_json::from_str(&ps.success()?.out).map_err(|why| why.to_string())?;
    if pids != Some(*pid).filter(|pid| *pid != 0).as_slice() {
        return wrong(&("ps", pids));
    }
    match pid {
        0 => refused(&signal, NOT_RUNNING),
        _ => signal.success().map(|_| ()),
    }
}

/// Runs a query. Reaps no other process, because that may be traced.
fn ask(container: &Container, call: Call) -> Finished {
    let mut command = container.command_without_a_log(call);
    let (output, what) = (Output::of(&mut command), describe(&command));
    let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let (pid, deadline) = (pid_of(&child), Instant::now() + LIMIT);
    let end = loop {
        let status = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        if let Some((_, end)) = status.ok().and_then(End::of) {
            break end;
        }
        if Instant::now() >= deadline {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            break End::Hung;
        }
        std::thread::sleep(Duration::from_micros(100));
    };
    output.finish(what, end)
}

/// A start with a certain hook: none, a failing one, or the hooks of the kind.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    kind: Kind,
    hook: Option<&'static str>,
}

const CASES: [Case; 5] = [
    Case { name: "no hook", kind: Kind::Bare, hook: None },
    Case { name: "a hook that fails", kind: Kind::Bare, hook: Some("exit 3") },
    Case { name: "a kernel", kind: Kind::Kernel, hook: None },
    Case { name: "a sandbox", kind: Kind::Sandbox, hook: None },
    Case { name: "all hooks", kind: Kind::Full, hook: None },
];

pub(crate) fn starts(extent: Extent, report: &mut Report) {
    // The last case takes as long as all others together.
    let cases = if extent == Extent::Full { CASES.as_slice() } else { &CASES[..4] };
    for &case in cases {
        let mut container = Container::new("w", case.kind);
        if let Some(script) = case.hook {
            container.bundle.hook("start", script);
        }
        let asked = sweep_start(&mut container, case, stand_still, report);
        let killed = sweep_start(&mut container, case, kill_there, report);
        let name = case.name;
        report.note(format_args!(
            "start × {name}: asked at {asked} calls under way, at {killed} after a SIGKILL"
        ));
    }
}

/// Acts at one call of a start and checks the result. `None` if the start makes fewer calls.
type Point = fn(&Container, usize) -> Option<(String, Result<(), String>)>;

fn sweep_start(container: &mut Container, case: Case, point: Point, report: &mut Report) -> usize {
    sweep::each_call(|at| {
        container.reset();
        if let Err(why) = container.run(Call::Create).success() {
            report.violation(format_args!("creating: {why}"));
            return false;
        }
        let Some((call, outcome)) = point(container, at) else { return false };
        let name = case.name;
        report.judge(format_args!("start × {name}, at call {at}, {call}"), outcome);
        true
    })
}

fn stand_still(container: &Container, at: usize) -> Option<(String, Result<(), String>)> {
    let mut asked = Ok(ActualState::Absent);
    let mut act = || asked = compare(container);
    let (mut command, action) = (container.command(Call::Start), Action::Meanwhile(&mut act));
    let traced = trace(&mut command, Stepped::Main, When::Before(at), action);
    let call = traced.hit?.to_string();
    Some((call, asked.and_then(|_| is_deleted(container))))
}

fn kill_there(container: &Container, at: usize) -> Option<(String, Result<(), String>)> {
    let mut command = container.command(Call::Start);
    let traced = trace(&mut command, Stepped::Main, When::Before(at), Action::Kill);
    let call = traced.hit?.to_string();
    Some((call, container.settle().and_then(|_| is_deleted(container))))
}

/// With no other call running, compares all answers, and checks that a plain delete does its work.
fn is_deleted(container: &Container) -> Result<(), String> {
    let actual = compare(container)?;
    let deleted = container.run(Call::Delete);
    actual.allows(Call::Delete, &deleted, true)?;
    match deleted.succeeded() {
        true => container.nothing_is_left(),
        false => container.force_delete(),
    }
}
