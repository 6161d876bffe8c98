//! No signal ever reaches a process that is not the container's proxy: if the kernel has reused the proxy's pid
//! before or during the verb, if `state.json` is forged, and if an unrelated process holds the lock.

use crate::bystander::{Bystander, proxy_line};
use crate::container::{Call, Container};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::proc_fs::Process;
use crate::processes;
use crate::report::Report;
use crate::swept_verbs::Verb;
use crate::tracer::{Action, Stepped, When, trace};
use crate::trials::Extent;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::time::{Duration, Instant};

/// The verbs that may send a signal.
const VERBS: [Call; 5] =
    [Call::Kill("TERM"), Call::KillAll("KILL"), Call::Start, Call::Delete, Call::ForceDelete];

/// The command lines of the bystander.
const GUISES: [Guise; 2] = [Guise::Other, Guise::Proxy];

/// More calls than any verb makes. It ends a sweep in which nothing works.
const MOST_CALLS: usize = 2000;

/// How long a forced delete may wait for a lock that it cannot break.
const LOCK_LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guise {
    /// A command line of its own.
    Other,
    /// The command line of the container's proxy.
    Proxy,
}

impl Guise {
    fn line(self, container: &Container) -> Vec<String> {
        match self {
            Self::Other => vec!["innocent".to_owned()],
            Self::Proxy => proxy_line(&container.id),
        }
    }
}

/// The proxy has died and another process has its pid before the verb is called.
pub(crate) fn recycled(_: Extent, report: &mut Report) {
    let mut points = 0;
    for kind in [Kind::Bare, Kind::Full, Kind::Sandbox] {
        let mut container = Container::new("w", kind);
        for started in [false, true] {
            for (call, guise) in
                VERBS.into_iter().flat_map(|call| GUISES.map(|guise| (call, guise)))
            {
                points += 1;
                let outcome = recycle_before(&mut container, started, call, guise);
                report.judge(format_args!("{call:?} × {kind:?}, {guise:?}, {started}"), outcome);
            }
        }
    }
    report.note(format_args!(
        "a pid that was recycled before the verb: {points} points, with the very pid each time"
    ));
}

fn recycle_before(
    container: &mut Container,
    started: bool,
    call: Call,
    guise: Guise,
) -> Result<(), String> {
    let pid = create(container)?;
    if started {
        container.run(Call::Start).success()?;
    }
    let bystander = Bystander::in_place_of(pid, &guise.line(container))?;
    container.reported()?.one_of(&["stopped"])?;
    let finished = container.run(call);
    bystander.is_untouched()?;
    let words = match call {
        Call::Kill(_) => "container not running",
        Call::Start => "cannot start a container that has stopped",
        _ => "",
    };
    if words.is_empty() {
        finished.success()?;
    } else {
        crate::swept_verbs::refused(&finished, words)?;
    }
    afterwards(container, bystander)
}

/// The proxy dies and its pid is reused while the verb is paused at one of its system calls, at each in turn.
pub(crate) fn recycled_meanwhile(extent: Extent, report: &mut Report) {
    let kinds = match extent {
        Extent::Short => [Kind::Bare].as_slice(),
        Extent::Full => &[Kind::Bare, Kind::Full, Kind::Sandbox],
    };
    for &kind in kinds {
        let mut container = Container::new("w", kind);
        for verb in [Verb::Kill, Verb::Start, Verb::ForceDelete] {
            let mut points = 0;
            for at in 1..MOST_CALLS {
                let point = format!("{verb:?} × {kind:?}: the pid is recycled before call {at}");
                let outcome = recycle_during(&mut container, verb, at);
                if outcome == Ok(false) {
                    break;
                }
                points += 1;
                report.judge(point, outcome.map(|_| ()));
            }
            report.note(format_args!(
                "{} × {}: the pid recycled at every call: {points} points",
                verb.name(),
                kind.name()
            ));
        }
    }
}

/// `Ok(false)` if the verb makes fewer calls.
fn recycle_during(container: &mut Container, verb: Verb, at: usize) -> Result<bool, String> {
    let pid = create(container)?;
    let line = if at % 2 == 0 { Guise::Other } else { Guise::Proxy }.line(container);
    let mut born = None;
    let mut command = container.command(verb.call());
    let mut act = || born = Some(Bystander::in_place_of(pid, &line));
    let traced = trace(&mut command, Stepped::Main, When::Before(at), Action::Meanwhile(&mut act));
    let Some(call) = traced.hit else { return Ok(false) };
    let bystander = born.ok_or("nothing happened")??;
    bystander.is_untouched().map_err(|why| format!("{call}: {why}"))?;
    has_ended_well(&traced.finished)?;
    afterwards(container, bystander)?;
    Ok(true)
}

/// `state.json` names another process: with the right or a wrong start time, as a process group, or as all
/// processes.
pub(crate) fn forged(extent: Extent, report: &mut Report) {
    let forgeries: [(&str, Forgery); 10] = [
        ("its pid, its start time", |it| (it.pid().into(), it.start_time())),
        ("its pid, a start time later", |it| (it.pid().into(), it.start_time() + 1)),
        ("its pid, no start time", |it| (it.pid().into(), 0)),
        ("its process group", |it| (-i64::from(it.pid()), it.start_time())),
        ("everybody", |it| (-1, it.start_time())),
        ("the own group", |it| (0, it.start_time())),
        ("process 1", |_| (1, Process(1).start_time())),
        ("process 1, no start time", |_| (1, 0)),
        ("the lowest number", |it| (i32::MIN.into(), it.start_time())),
        ("no 32-bit number", |it| ((1 << 32) + i64::from(it.pid()), it.start_time())),
    ];
    let statuses = match extent {
        Extent::Short => ["created", "stopped"].as_slice(),
        Extent::Full => &["creating", "created", "running", "stopped"],
    };
    let mut points = 0;
    for kind in [Kind::Bare, Kind::Sandbox] {
        let mut container = Container::new("w", kind);
        for (what, forgery) in forgeries {
            for call in VERBS {
                for &status in statuses {
                    points += 1;
                    let outcome = forge(&mut container, call, forgery, status);
                    report.judge(format_args!("{call:?} of a {status}: {what}"), outcome);
                }
            }
        }
    }
    report.note(format_args!("forged state.json: {points} points"));
}

/// The pid and start time that a forged state names.
type Forgery = fn(&Bystander) -> (i64, u64);

fn forge(
    container: &mut Container,
    call: Call,
    forgery: Forgery,
    status: &str,
) -> Result<(), String> {
    create(container)?;
    processes::kill_all();
    let mut bystander = Bystander::anywhere(&Guise::Other.line(container))?;
    let (pid, start_time) = forgery(&bystander);
    if pid == i64::from(bystander.pid()) && start_time != bystander.start_time() {
        // Then only the start time differs from the proxy's.
        bystander = Bystander::in_place_of(bystander.pid(), &Guise::Proxy.line(container))?;
        let (_, again) = forgery(&bystander);
        write_forged(container, pid, again, status)?;
    } else {
        write_forged(container, pid, start_time, status)?;
    }
    let finished = container.run(call);
    bystander.is_untouched().map_err(|why| format!("{why} after {finished}"))?;
    has_ended_well(&finished)?;
    afterwards(container, bystander)
}

fn write_forged(
    container: &Container,
    pid: i64,
    start_time: u64,
    status: &str,
) -> Result<(), String> {
    let mut state = container.recorded().ok_or("no state to forge")?;
    state["pid"] = pid.into();
    state["pidStartTime"] = start_time.into();
    state["status"] = status.into();
    std::fs::write(container.state_folder().join("state.json"), state.to_string())
        .map_err(|error| error.to_string())
}

/// Another process that has locked the container's directory is not killed, whatever its command line is.
pub(crate) fn lock_holders(extent: Extent, report: &mut Report) {
    let mut container = Container::new("w", Kind::Bare);
    let runtime = crate::trial_process::runtime().to_string_lossy().into_owned();
    let start = ["start".to_owned(), container.id.clone()];
    let lines: [Vec<String>; 3] = [
        vec!["innocent".to_owned()],
        proxy_line(&container.id),
        [runtime].into_iter().chain(start).collect(),
    ];
    // Each waits for seconds. The short run only has the most likely to be mistaken for a verb.
    let skipped = if extent == Extent::Short { lines.len() - 1 } else { 0 };
    for line in &lines[skipped..] {
        match hold_and_force(&mut container, line) {
            Ok((finished, took)) => report.note(format_args!(
                "{line:?} holds the lock: untouched; delete --force ended after {took:.0?} with {:?} {:?}",
                finished.end,
                finished.err.trim_end()
            )),
            Err(why) => report.violation(format_args!("{line:?} holds the lock: {why}")),
        }
    }
}

fn hold_and_force(
    container: &mut Container,
    line: &[String],
) -> Result<(Finished, Duration), String> {
    create(container)?;
    let open = || File::open(container.state_folder()).map_err(|error| error.to_string());
    let bystander = Bystander::that_locks(open()?, line)?;
    let deadline = Instant::now() + processes::LIMIT;
    while Flock::lock(open()?, FlockArg::LockExclusiveNonblock).is_ok() {
        if Instant::now() > deadline {
            return Err("the bystander does not take the lock".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let since = Instant::now();
    let finished = processes::run_within(&mut container.command(Call::ForceDelete), LOCK_LIMIT);
    let took = since.elapsed();
    bystander.is_untouched()?;
    if !finished.succeeded() {
        crate::swept_verbs::refused(&finished, "is locked by another program")?;
    }
    afterwards(container, bystander)?;
    Ok((finished, took))
}

/// Creates a container and returns the pid of its proxy.
fn create(container: &mut Container) -> Result<i32, String> {
    Verb::Start.prepare(container)?;
    match container.settle()? {
        crate::checks::Reported::Document { pid, .. } => Ok(pid),
        crate::checks::Reported::Absent => Err("create left nothing".to_owned()),
    }
}

/// Fails if the verb was killed or panicked.
fn has_ended_well(finished: &Finished) -> Result<(), String> {
    if matches!(finished.end, End::Status(0 | 1)) && !finished.err.contains("panicked") {
        return Ok(());
    }
    Err(finished.to_string())
}

/// Ends the bystander and checks that everything works as usual.
fn afterwards(container: &Container, bystander: Bystander) -> Result<(), String> {
    bystander.end();
    container.force_delete()?;
    container.full_life()
}
