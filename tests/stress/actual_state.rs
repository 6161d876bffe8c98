//! What the verbs say of a container beside what is so: what is recorded, and whether the recorded proxy
//! is there. Asked at every system call of a start: while the start stands still there, and after it was
//! killed there. Starts that succeed, starts whose hook fails, starts that refuse the extension.

use crate::capture::{Output, describe};
use crate::checks::{self, Seen};
use crate::container::{Call, World};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::processes::{self, LIMIT, pid_of};
use crate::report::Report;
use crate::swept_verbs::refused;
use crate::tracer::{Deed, When, Whom, trace};
use crate::trials::Extent;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A verb is through when it was not struck this often in a row: calls per run vary a little.
const UNTOUCHED: usize = 3;
/// How long the answers may need to find a container that does not change.
const SETTLE: Duration = Duration::from_secs(2);
const NOT_RUNNING: &str = "container not running";

/// What is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    Absent,
    /// `pid` is 0 without a proxy; `ends` if the proxy has nothing to wait for any more.
    Container {
        status: &'static str,
        pid: i32,
        ends: bool,
    },
}

impl Truth {
    pub(crate) fn of(world: &World) -> Self {
        let Some(recorded) = world.recorded() else { return Self::Absent };
        let pid = i32::try_from(recorded["pid"].as_i64().unwrap_or_default()).unwrap_or_default();
        let proxy = format!("balena-extension-runtime proxy --id {}", world.id);
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

    /// Whether `passed` is what `call` has to say of a container of which this was so when it began.
    /// `still` if this was so until it ended.
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

/// Asks everything that can be asked, and compares.
pub(crate) fn compare(world: &World) -> Result<Truth, String> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let truth = Truth::of(world);
        let agreed = ask_all(world, &truth);
        // Otherwise it has changed meanwhile: a proxy has ended.
        if Truth::of(world) == truth {
            return agreed.map(|()| truth);
        }
        if Instant::now() >= deadline {
            return Err(format!("{truth:?} does not last"));
        }
    }
}

fn ask_all(world: &World, truth: &Truth) -> Result<(), String> {
    let wrong = |said: &dyn std::fmt::Debug| Err(format!("{truth:?}, but {said:?}"));
    let seen = checks::parse_state(&ask(world, Call::State))?;
    let listed = ask(world, Call::List).success()?;
    let list: Vec<Value> = serde_json::from_str(&listed.out).map_err(|why| why.to_string())?;
    let (ps, signal) = (ask(world, Call::Ps), ask(world, Call::Kill("0")));
    let Truth::Container { status, pid, .. } = truth else {
        if seen != Seen::Absent || !list.is_empty() {
            return wrong(&(seen, list));
        }
        refused(&ps, "does not exist")?;
        return refused(&signal, "does not exist");
    };
    if seen != (Seen::Document { status: (*status).to_owned(), pid: *pid }) {
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

/// Runs a verb that waits for nobody, and reaps nobody else, who may be traced.
fn ask(world: &World, call: Call) -> Finished {
    let mut command = world.command_without_a_log(call);
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

/// What the hook of a start is: none, one that fails, or whatever a kind of bundle has.
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
    // Those of the last take as long as all others together.
    let cases = if extent == Extent::Full { CASES.as_slice() } else { &CASES[..4] };
    for &case in cases {
        let mut world = World::new("w", case.kind);
        if let Some(script) = case.hook {
            world.bundle.hook("start", script);
        }
        let asked = sweep(&mut world, case, stand_still, report);
        let killed = sweep(&mut world, case, kill_there, report);
        let name = case.name;
        report.note(format_args!(
            "start × {name}: asked at {asked} calls under way, at {killed} after a SIGKILL"
        ));
    }
}

/// What is done at a call of a start; `None` if the start has fewer calls.
type Point = fn(&World, usize) -> Option<(String, Result<(), String>)>;

fn sweep(world: &mut World, case: Case, point: Point, report: &mut Report) -> usize {
    let (mut points, mut untouched) = (0, 0);
    for at in 1.. {
        world.reset();
        if let Err(why) = world.run(Call::Create).success() {
            report.violation(format_args!("creating: {why}"));
            return points;
        }
        let Some((call, outcome)) = point(world, at) else {
            untouched += 1;
            if untouched == UNTOUCHED {
                break;
            }
            continue;
        };
        (points, untouched) = (points + 1, 0);
        let name = case.name;
        report.judge(format_args!("start × {name}, at call {at}, {call}"), outcome);
    }
    points
}

fn stand_still(world: &World, at: usize) -> Option<(String, Result<(), String>)> {
    let mut asked = Ok(Truth::Absent);
    let mut act = || asked = compare(world);
    let (mut command, deed) = (world.command(Call::Start), Deed::Meanwhile(&mut act));
    let traced = trace(&mut command, Whom::Main, When::Before(at), deed);
    let call = traced.hit?.to_string();
    Some((call, asked.and_then(|_| is_deleted(world))))
}

fn kill_there(world: &World, at: usize) -> Option<(String, Result<(), String>)> {
    let mut command = world.command(Call::Start);
    let traced = trace(&mut command, Whom::Main, When::Before(at), Deed::Kill);
    let call = traced.hit?.to_string();
    Some((call, world.settle().and_then(|_| is_deleted(world))))
}

/// Nobody works on the container: all is asked, and then a plain delete does what it has to.
fn is_deleted(world: &World) -> Result<(), String> {
    let truth = compare(world)?;
    let deleted = world.run(Call::Delete);
    truth.allows(Call::Delete, &deleted, true)?;
    match deleted.succeeded() {
        true => world.nothing_is_left(),
        false => world.force(),
    }
}
