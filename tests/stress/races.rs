//! Verbs of one container at the same instant. Whatever the order turns out to be, each verb succeeds or
//! is refused with its known words, `state` is whole, and nothing is left in the end.

use crate::checks;
use crate::concurrent_calls::{Crowd, Ended};
use crate::container::{Call, World};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::processes;
use crate::report::Report;
use crate::trials::Extent;
use nix::sys::signal::{Signal, kill};
use std::process::Command;
use std::time::{Duration, Instant};

const CREATES: usize = 16;

/// The words with which a verb may be refused because another one was quicker.
const REFUSALS: [&str; 12] = [
    "already exists",
    "does not exist",
    "container not running",
    "is busy",
    "is held by a process",
    "cannot start a container that has stopped",
    "cannot start an already running",
    "while it is creating",
    "it is being deleted",
    "that is not stopped",
    // Of a create whose proxy a kill has reached: it takes everything back.
    "before it was ready",
    "exited before create was complete",
];

fn rounds(extent: Extent, full: usize) -> usize {
    match extent {
        Extent::Short => full.div_ceil(40),
        Extent::Full => full,
    }
}

/// Of many creates of one id, one wins, and the others leave it alone.
pub(crate) fn creates(extent: Extent, report: &mut Report) {
    let rounds = rounds(extent, 200);
    for kind in [Kind::Bare, Kind::Full] {
        let mut world = World::new("w", kind);
        for round in 0..rounds {
            world.reset();
            // Every other time there is something to take over.
            if round % 2 == 1 {
                leave_a_dead_create(&world);
            }
            let outcome = race_of_creates(&world);
            report.judge(format_args!("{CREATES} creates × {}", kind.name()), outcome);
        }
        report.note(format_args!(
            "{CREATES} creates of one id × {} at once, {rounds} rounds, every other one over a dead create",
            kind.name()
        ));
    }
}

/// A create that is killed while its state says `creating`.
fn leave_a_dead_create(world: &World) {
    use crate::tracer::{Deed, When, Whom, trace};
    for at in 1.. {
        let traced =
            trace(&mut world.command(Call::Create), Whom::Main, When::Before(at), Deed::Kill);
        if traced.hit.is_none() || world.recorded().is_some() {
            return;
        }
    }
}

fn race_of_creates(world: &World) -> Result<(), String> {
    let mut crowd = Crowd::default();
    crowd.start_together((0..CREATES).map(|_| world.command(Call::Create)).collect());
    let ended = crowd.all();
    let (won, lost): (Vec<_>, Vec<_>) =
        ended.into_iter().map(|ended| ended.finished).partition(Finished::succeeded);
    if won.len() != 1 {
        return Err(format!("{} creates have won", won.len()));
    }
    let wrong = |lost: &&Finished| {
        lost.end != End::Status(1) || !lost.err.contains("container with given ID already exists")
    };
    if let Some(lost) = lost.iter().find(wrong) {
        return Err(format!("lost in another way: {lost}"));
    }
    world.is_created()?;
    world.goes_on()
}

/// Verbs that meet in the same instant, and what the container was before.
pub(crate) fn pairs(extent: Extent, report: &mut Report) {
    use Call::{Create, Delete, ForceDelete, Kill, KillAll, Start, State};
    let rounds = rounds(extent, 100);
    let created: &[Call] = &[Create];
    let started: &[Call] = &[Create, Start];
    let meetings: [(&[Call], &[Call]); 13] = [
        (&[], &[Create, Kill("TERM"), State, State]),
        (&[], &[Create, KillAll("KILL"), KillAll("KILL"), State]),
        (&[], &[Create, ForceDelete, State, State]),
        (&[], &[Create, ForceDelete, ForceDelete, Create]),
        (created, &[Start, Kill("KILL"), State, State]),
        (created, &[Start, Kill("TERM"), Delete, State]),
        (created, &[Start, Start, State, State]),
        (created, &[Start, ForceDelete, State, State]),
        (created, &[ForceDelete, ForceDelete, State, Create]),
        (started, &[Delete, Delete, State, State]),
        (started, &[Delete, ForceDelete, State, State]),
        (started, &[Delete, Delete, Create, Create]),
        (created, &[Kill("TERM"), Kill("KILL"), ForceDelete, State]),
    ];
    for kind in [Kind::Bare, Kind::Hooks] {
        let mut world = World::new("w", kind);
        for (before, at_once) in meetings {
            for _ in 0..rounds {
                let outcome = meet(&mut world, before, at_once);
                report.judge(format_args!("{at_once:?} after {before:?}"), outcome);
            }
        }
        let (kind, meetings) = (kind.name(), meetings.len());
        report.note(format_args!("{meetings} meetings of verbs × {kind}, {rounds} rounds each"));
    }
}

fn meet(world: &mut World, before: &[Call], at_once: &[Call]) -> Result<(), String> {
    world.reset();
    for &call in before {
        world.run(call).success()?;
    }
    let mut crowd = Crowd::default();
    crowd.start_together(at_once.iter().map(|&call| world.command(call)).collect());
    for Ended { key, finished, .. } in crowd.all() {
        is_known_outcome(at_once[key], &finished)?;
    }
    world.settle()?;
    world.force()?;
    world.lives_again()
}

/// Success, or a refusal in known words; of `state` a whole document.
pub(crate) fn is_known_outcome(call: Call, finished: &Finished) -> Result<(), String> {
    if call == Call::State {
        return checks::parse_state(finished).map(|_| ());
    }
    let refused = REFUSALS.iter().any(|words| finished.err.contains(words));
    match finished.end {
        End::Status(0) => Ok(()),
        // Whoever is ended by a forced delete has no time to say so.
        End::Killed(Signal::SIGKILL) if call != Call::ForceDelete => Ok(()),
        End::Status(1) if refused && call != Call::ForceDelete => Ok(()),
        _ => Err(format!("unexpected: {finished}")),
    }
}

/// All verbs at once on one container, eight at a time, in no order at all.
pub(crate) fn chaos(extent: Extent, report: &mut Report) {
    use Call::{Create, Delete, ForceDelete, Kill, KillAll, Start, State};
    let calls = rounds(extent, 6000);
    let verbs =
        [Create, Create, Start, Start, Kill("TERM"), KillAll("KILL"), Delete, ForceDelete, State];
    for kind in [Kind::Bare, Kind::Full] {
        let mut world = World::new("w", kind);
        let mut crowd = Crowd::default();
        // A fixed sequence: what differs from run to run is the order in which the kernel runs them.
        let mut number = 12_345_usize;
        let mut under_way = Vec::new();
        for key in 0..calls {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let call = verbs[(number >> 33) % verbs.len()];
            under_way.push(call);
            crowd.start(key, world.command_keeping_the_log(call));
            while crowd.len() >= 8 {
                let Some(ended) = crowd.next() else { break };
                report.judge("chaos", is_known_outcome(under_way[ended.key], &ended.finished));
            }
        }
        for ended in crowd.all() {
            report.judge("chaos", is_known_outcome(under_way[ended.key], &ended.finished));
        }
        report.judge("after the chaos", world.settle().map(|_| ()));
        report.judge("after the chaos", world.force().and_then(|()| world.lives_again()));
        report.note(format_args!("{calls} verbs on one id × {}, eight at a time", kind.name()));
        world.reset();
    }
}

/// A hook that hangs, with a child in the background that ignores what can be ignored.
const HANGING: &str = "trap '' TERM HUP INT
setsid sleep 1000 &
sleep 1000";

/// `delete --force` beside a hook that hangs ends it, and does not wait for it.
pub(crate) fn hanging_hooks(extent: Extent, report: &mut Report) {
    let limits = [
        ("create", Duration::from_secs(2)),
        ("start", Duration::from_secs(2)),
        // A forced delete leaves a moment to a plain one; engines allow it 5 s.
        ("delete", Duration::from_secs(5)),
    ];
    for (hook, limit) in limits {
        let mut world = World::new("w", Kind::Hooks);
        world.bundle.hook(hook, HANGING);
        for _ in 0..rounds(extent, 10) {
            match end_hanging_hook(&mut world, hook, limit) {
                Ok(took) => report.note(format_args!(
                    "delete --force beside a hanging hooks/{hook}: all of it gone after {took:.0?}"
                )),
                Err(why) => report.violation(format_args!("a hanging hooks/{hook}: {why}")),
            }
        }
    }
}

fn end_hanging_hook(world: &mut World, hook: &str, limit: Duration) -> Result<Duration, String> {
    world.reset();
    let under_way = match hook {
        "create" => Call::Create,
        "start" => Call::Start,
        _ => Call::Delete,
    };
    if under_way != Call::Create {
        world.run(Call::Create).success()?;
    }
    if under_way == Call::Delete {
        world.run(Call::Start).success()?;
    }
    let mut crowd = Crowd::default();
    crowd.start(0, world.command(under_way));
    let deadline = Instant::now() + processes::LIMIT;
    while processes::all().iter().filter(|(_, line)| line == "sleep 1000").count() < 2 {
        if Instant::now() > deadline {
            return Err(format!("the hook does not run: {:?}", processes::all()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    world.look()?;
    let started = Instant::now();
    crowd.start(1, world.command_keeping_the_log(Call::ForceDelete));
    for ended in crowd.all() {
        if ended.key == 1 {
            ended.finished.success()?;
            if ended.took > limit {
                return Err(format!("delete --force took {:?}", ended.took));
            }
        }
    }
    let took = started.elapsed();
    world.nothing_is_left()?;
    Ok(took)
}

/// `delete --force` in the very moment in which a create dies.
pub(crate) fn dying_creates(extent: Extent, report: &mut Report) {
    let rounds = rounds(extent, 400);
    for kind in [Kind::Bare, Kind::Full] {
        let mut world = World::new("w", kind);
        for round in 0..rounds {
            let after = Duration::from_micros(u64::try_from(round * 7 % 40).unwrap() * 300);
            report.judge(format_args!("a create dying {after:?} old"), die(&mut world, after));
        }
        report
            .note(format_args!("delete --force beside a dying create × {}: {rounds}", kind.name()));
    }
}

fn die(world: &mut World, after: Duration) -> Result<(), String> {
    world.reset();
    let mut crowd = Crowd::default();
    let create = crowd.start(0, world.command(Call::Create));
    std::thread::sleep(after);
    let force: Command = world.command_keeping_the_log(Call::ForceDelete);
    crowd.start(1, force);
    let _ = kill(create, Signal::SIGKILL);
    for ended in crowd.all() {
        if ended.key == 1 {
            ended.finished.success()?;
        }
    }
    world.settle()?;
    world.force()?;
    world.lives_again()
}
