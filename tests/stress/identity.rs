//! No signal ever reaches a process that is not the container's proxy: with a pid that the kernel has
//! really given to somebody else, before the verb or in the middle of it, with a forged `state.json`,
//! and with a lock that an innocent process holds.

use crate::bystander::{Bystander, proxy_line};
use crate::container::{Call, World};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::proc_fs::Process;
use crate::processes;
use crate::report::Report;
use crate::swept_verbs::Verb;
use crate::tracer::{Deed, When, Whom, trace};
use crate::trials::Extent;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::time::{Duration, Instant};

/// What may send a signal.
const VERBS: [Call; 5] =
    [Call::Kill("TERM"), Call::KillAll("KILL"), Call::Start, Call::Delete, Call::ForceDelete];

/// Whom the innocent process looks like.
const GUISES: [Guise; 2] = [Guise::Other, Guise::Proxy];

/// More than any of them makes: where nothing works, a sweep ends all the same.
const MOST_CALLS: usize = 2000;

/// How long a forced delete may wait for a lock that it cannot break.
const LOCK_LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guise {
    /// A command line of its own.
    Other,
    /// That of the container's proxy.
    Proxy,
}

impl Guise {
    fn line(self, world: &World) -> Vec<String> {
        match self {
            Self::Other => vec!["innocent".to_owned()],
            Self::Proxy => proxy_line(&world.id),
        }
    }
}

/// The proxy has died and its pid is another process's when the verb is called.
pub(crate) fn recycled(_: Extent, report: &mut Report) {
    let mut points = 0;
    for kind in [Kind::Bare, Kind::Full, Kind::Sandbox] {
        let mut world = World::new("w", kind);
        for started in [false, true] {
            for (call, guise) in
                VERBS.into_iter().flat_map(|call| GUISES.map(|guise| (call, guise)))
            {
                points += 1;
                let outcome = recycle_before(&mut world, started, call, guise);
                report.judge(format_args!("{call:?} × {kind:?}, {guise:?}, {started}"), outcome);
            }
        }
    }
    report.note(format_args!(
        "a pid that was recycled before the verb: {points} points, with the very pid each time"
    ));
}

fn recycle_before(
    world: &mut World,
    started: bool,
    call: Call,
    guise: Guise,
) -> Result<(), String> {
    let pid = create(world)?;
    if started {
        world.run(Call::Start).success()?;
    }
    let bystander = Bystander::in_place_of(pid, &guise.line(world))?;
    world.look()?.one_of(&["stopped"])?;
    let finished = world.run(call);
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
    afterwards(world, bystander)
}

/// The proxy dies and its pid is recycled while the verb is at one of its system calls: each in turn.
pub(crate) fn recycled_meanwhile(extent: Extent, report: &mut Report) {
    let kinds = match extent {
        Extent::Short => [Kind::Bare].as_slice(),
        Extent::Full => &[Kind::Bare, Kind::Full, Kind::Sandbox],
    };
    for &kind in kinds {
        let mut world = World::new("w", kind);
        for verb in [Verb::Kill, Verb::Start, Verb::ForceDelete] {
            let mut points = 0;
            for at in 1..MOST_CALLS {
                let point = format!("{verb:?} × {kind:?}: the pid is recycled before call {at}");
                let outcome = recycle_during(&mut world, verb, at);
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

/// Whether the verb makes as many calls.
fn recycle_during(world: &mut World, verb: Verb, at: usize) -> Result<bool, String> {
    let pid = create(world)?;
    let line = if at.is_multiple_of(2) { Guise::Other } else { Guise::Proxy }.line(world);
    let mut born = None;
    let mut command = world.command(verb.call());
    let mut act = || born = Some(Bystander::in_place_of(pid, &line));
    let traced = trace(&mut command, Whom::Main, When::Before(at), Deed::Meanwhile(&mut act));
    let Some(call) = traced.hit else { return Ok(false) };
    let bystander = born.ok_or("nothing happened")??;
    bystander.is_untouched().map_err(|why| format!("{call}: {why}"))?;
    has_ended_well(&traced.finished)?;
    afterwards(world, bystander)?;
    Ok(true)
}

/// `state.json` names somebody else: with a right and a wrong start time, as a group, as everybody.
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
        let mut world = World::new("w", kind);
        for (what, forgery) in forgeries {
            for call in VERBS {
                for &status in statuses {
                    points += 1;
                    let outcome = forge(&mut world, call, forgery, status);
                    report.judge(format_args!("{call:?} of a {status}: {what}"), outcome);
                }
            }
        }
    }
    report.note(format_args!("forged state.json: {points} points"));
}

/// The pid and start time that a forged state names.
type Forgery = fn(&Bystander) -> (i64, u64);

fn forge(world: &mut World, call: Call, forgery: Forgery, status: &str) -> Result<(), String> {
    create(world)?;
    processes::kill_all();
    let mut bystander = Bystander::anywhere(&Guise::Other.line(world))?;
    let (pid, start_time) = forgery(&bystander);
    if pid == i64::from(bystander.pid()) && start_time != bystander.start_time() {
        // Then the start time alone tells it from the proxy.
        bystander = Bystander::in_place_of(bystander.pid(), &Guise::Proxy.line(world))?;
        let (_, again) = forgery(&bystander);
        write_forged(world, pid, again, status)?;
    } else {
        write_forged(world, pid, start_time, status)?;
    }
    let finished = world.run(call);
    bystander.is_untouched().map_err(|why| format!("{why} after {finished}"))?;
    has_ended_well(&finished)?;
    // A state that cannot be read is an error of every verb but a forced delete.
    afterwards(world, bystander)
}

fn write_forged(world: &World, pid: i64, start_time: u64, status: &str) -> Result<(), String> {
    let mut state = world.recorded().ok_or("no state to forge")?;
    state["pid"] = pid.into();
    state["pidStartTime"] = start_time.into();
    state["status"] = status.into();
    std::fs::write(world.state_folder().join("state.json"), state.to_string())
        .map_err(|error| error.to_string())
}

/// Who else has the container's folder locked is not ended for it, whatever it looks like.
pub(crate) fn lock_holders(extent: Extent, report: &mut Report) {
    let mut world = World::new("w", Kind::Bare);
    let runtime = crate::trial_process::runtime().to_string_lossy().into_owned();
    let start = ["start".to_owned(), world.id.clone()];
    let lines: [Vec<String>; 3] = [
        vec!["innocent".to_owned()],
        proxy_line(&world.id),
        [runtime].into_iter().chain(start).collect(),
    ];
    // Each waits for seconds; in short the likeliest to be mistaken is enough.
    let skipped = if extent == Extent::Short { lines.len() - 1 } else { 0 };
    for line in &lines[skipped..] {
        match hold_and_force(&mut world, line) {
            Ok((finished, took)) => report.note(format_args!(
                "{line:?} holds the lock: untouched; delete --force ended after {took:.0?} with {:?} {:?}",
                finished.end,
                finished.err.trim_end()
            )),
            Err(why) => report.violation(format_args!("{line:?} holds the lock: {why}")),
        }
    }
}

fn hold_and_force(world: &mut World, line: &[String]) -> Result<(Finished, Duration), String> {
    create(world)?;
    let open = || File::open(world.state_folder()).map_err(|error| error.to_string());
    let bystander = Bystander::that_locks(open()?, line)?;
    let deadline = Instant::now() + processes::LIMIT;
    while Flock::lock(open()?, FlockArg::LockExclusiveNonblock).is_ok() {
        if Instant::now() > deadline {
            return Err("the bystander does not take the lock".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let since = Instant::now();
    let finished = processes::run_within(&mut world.command(Call::ForceDelete), LOCK_LIMIT);
    let took = since.elapsed();
    bystander.is_untouched()?;
    if !finished.succeeded() {
        crate::swept_verbs::refused(&finished, "is held by a process")?;
    }
    afterwards(world, bystander)?;
    Ok((finished, took))
}

/// A new container; the pid of its proxy.
fn create(world: &mut World) -> Result<i32, String> {
    Verb::Start.prepare(world)?;
    match world.settle()? {
        crate::checks::Seen::Document { pid, .. } => Ok(pid),
        crate::checks::Seen::Absent => Err("create left nothing".to_owned()),
    }
}

/// By itself, and not with a panic.
fn has_ended_well(finished: &Finished) -> Result<(), String> {
    if matches!(finished.end, End::Status(0 | 1)) && !finished.err.contains("panicked") {
        return Ok(());
    }
    Err(finished.to_string())
}

/// Without the bystander, everything is as always.
fn afterwards(world: &World, bystander: Bystander) -> Result<(), String> {
    bystander.end();
    world.force()?;
    world.lives_again()
}
