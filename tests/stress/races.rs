//! Concurrent verbs on one container. In every order, each verb succeeds or is refused with a known message,
//! `state` is whole, and nothing is left in the end.

use crate::checks;
use crate::concurrent_calls::{ConcurrentCalls, Ended};
use crate::container::{Call, Container};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::processes;
use crate::report::Report;
use crate::trials::Extent;
use nix::sys::signal::{Signal, kill};
use std::process::Command;
use std::time::{Duration, Instant};

const CREATES: usize = 16;

/// The messages with which a verb may be refused because another one was faster.
const REFUSALS: [&str; 12] = [
    "already exists",
    "does not exist",
    "container not running",
    "is busy",
    "is locked by another program",
    "cannot start a container that has stopped",
    "cannot start an already running",
    "while it is creating",
    "it is being deleted",
    "that is not stopped",
    // From a create that undoes its work because a kill has reached its proxy.
    "before it was ready",
    "exited before create was complete",
];

fn rounds(extent: Extent, full: usize) -> usize {
    match extent {
        Extent::Short => full.div_ceil(40),
        Extent::Full => full,
    }
}

/// Exactly one of many creates of an id succeeds, and the others do not touch its container.
pub(crate) fn creates(extent: Extent, report: &mut Report) {
    let rounds = rounds(extent, 200);
    for kind in [Kind::Bare, Kind::Full] {
        let mut container = Container::new("w", kind);
        for round in 0..rounds {
            container.reset();
            // In every second round there is a dead create to take over.
            if round % 2 == 1 {
                leave_a_dead_create(&container);
            }
            let outcome = race_of_creates(&container);
            report.judge(format_args!("{CREATES} creates × {}", kind.name()), outcome);
        }
        report.note(format_args!(
            "{CREATES} creates of one id × {} at once, {rounds} rounds, every other one over a dead create",
            kind.name()
        ));
    }
}

/// Kills a create while its state is `creating`.
fn leave_a_dead_create(container: &Container) {
    use crate::tracer::{Action, Stepped, When, trace};
    for at in 1.. {
        let traced = trace(
            &mut container.command(Call::Create),
            Stepped::Main,
            When::Before(at),
            Action::Kill,
        );
        if traced.hit.is_none() || container.recorded().is_some() {
            return;
        }
    }
}

fn race_of_creates(container: &Container) -> Result<(), String> {
    let mut calls = ConcurrentCalls::default();
    calls.start_together((0..CREATES).map(|_| container.command(Call::Create)).collect());
    let ended = calls.all();
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
    container.is_created()?;
    container.start_and_delete()
}

/// The calls that prepare the container, and the verbs that start at the same instant.
pub(crate) fn pairs(extent: Extent, report: &mut Report) {
    use Call::{Create, Delete, ForceDelete, Kill, KillAll, Start, State};
    let rounds = rounds(extent, 100);
    let created: &[Call] = &[Create];
    let started: &[Call] = &[Create, Start];
    let pairings: [(&[Call], &[Call]); 13] = [
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
        let mut container = Container::new("w", kind);
        for (before, at_once) in pairings {
            for _ in 0..rounds {
                let outcome = meet(&mut container, before, at_once);
                report.judge(format_args!("{at_once:?} after {before:?}"), outcome);
            }
        }
        let (kind, pairings) = (kind.name(), pairings.len());
        report.note(format_args!("{pairings} pairings of verbs × {kind}, {rounds} rounds each"));
    }
}

fn meet(container: &mut Container, before: &[Call], at_once: &[Call]) -> Result<(), String> {
    container.reset();
    for &call in before {
        container.run(call).success()?;
    }
    let mut calls = ConcurrentCalls::default();
    calls.start_together(at_once.iter().map(|&call| container.command(call)).collect());
    for Ended { key, finished, .. } in calls.all() {
        is_known_outcome(at_once[key], &finished)?;
    }
    container.settle()?;
    container.force_delete()?;
    container.full_life()
}

/// Fails unless the call succeeded or was refused with a known message, or `state` printed a whole document.
pub(crate) fn is_known_outcome(call: Call, finished: &Finished) -> Result<(), String> {
    if call == Call::State {
        return checks::parse_state(finished).map(|_| ());
    }
    let refused = REFUSALS.iter().any(|words| finished.err.contains(words));
    match finished.end {
        End::Status(0) => Ok(()),
        // A forced delete kills other verbs, which cannot report that.
        End::Killed(Signal::SIGKILL) if call != Call::ForceDelete => Ok(()),
        End::Status(1) if refused && call != Call::ForceDelete => Ok(()),
        _ => Err(format!("unexpected: {finished}")),
    }
}

/// All verbs on one container, eight at a time, in random order.
pub(crate) fn chaos(extent: Extent, report: &mut Report) {
    use Call::{Create, Delete, ForceDelete, Kill, KillAll, Start, State};
    let count = rounds(extent, 6000);
    let verbs =
        [Create, Create, Start, Start, Kill("TERM"), KillAll("KILL"), Delete, ForceDelete, State];
    for kind in [Kind::Bare, Kind::Full] {
        let mut container = Container::new("w", kind);
        let mut calls = ConcurrentCalls::default();
        // The sequence is fixed. Only the order in which the kernel runs the calls differs.
        let mut number = 12_345_usize;
        let mut under_way = Vec::new();
        for key in 0..count {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let call = verbs[(number >> 33) % verbs.len()];
            under_way.push(call);
            calls.start(key, container.command_keeping_the_log(call));
            while calls.len() >= 8 {
                let Some(ended) = calls.next() else { break };
                report.judge("chaos", is_known_outcome(under_way[ended.key], &ended.finished));
            }
        }
        for ended in calls.all() {
            report.judge("chaos", is_known_outcome(under_way[ended.key], &ended.finished));
        }
        report.judge("after the chaos", container.settle().map(|_| ()));
        report.judge(
            "after the chaos",
            container.force_delete().and_then(|()| container.full_life()),
        );
        report.note(format_args!("{count} verbs on one id × {}, eight at a time", kind.name()));
        container.reset();
    }
}

/// A hook that hangs, with a background child that ignores all signals that can be ignored.
const HANGING: &str = "trap '' TERM HUP INT
setsid sleep 1000 &
sleep 1000";

/// `delete --force` kills a hanging hook and does not wait for it.
pub(crate) fn hanging_hooks(extent: Extent, report: &mut Report) {
    let limits = [
        ("create", Duration::from_secs(2)),
        ("start", Duration::from_secs(2)),
        // A forced delete first gives a plain one some time. Engines allow it 5 s.
        ("delete", Duration::from_secs(5)),
    ];
    for (hook, limit) in limits {
        let mut container = Container::new("w", Kind::Hooks);
        container.bundle.hook(hook, HANGING);
        for _ in 0..rounds(extent, 10) {
            match end_hanging_hook(&mut container, hook, limit) {
                Ok(took) => report.note(format_args!(
                    "delete --force beside a hanging hooks/{hook}: all of it gone after {took:.0?}"
                )),
                Err(why) => report.violation(format_args!("a hanging hooks/{hook}: {why}")),
            }
        }
    }
}

fn end_hanging_hook(
    container: &mut Container,
    hook: &str,
    limit: Duration,
) -> Result<Duration, String> {
    container.reset();
    let under_way = match hook {
        "create" => Call::Create,
        "start" => Call::Start,
        _ => Call::Delete,
    };
    if under_way != Call::Create {
        container.run(Call::Create).success()?;
    }
    if under_way == Call::Delete {
        container.run(Call::Start).success()?;
    }
    let mut calls = ConcurrentCalls::default();
    calls.start(0, container.command(under_way));
    let deadline = Instant::now() + processes::LIMIT;
    while processes::all().iter().filter(|(_, line)| line == "sleep 1000").count() < 2 {
        if Instant::now() > deadline {
            return Err(format!("the hook does not run: {:?}", processes::all()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    container.reported()?;
    let started = Instant::now();
    calls.start(1, container.command_keeping_the_log(Call::ForceDelete));
    for ended in calls.all() {
        if ended.key == 1 {
            ended.finished.success()?;
            if ended.took > limit {
                return Err(format!("delete --force took {:?}", ended.took));
            }
        }
    }
    let took = started.elapsed();
    container.nothing_is_left()?;
    Ok(took)
}

/// `delete --force` at the same instant as a create dies.
pub(crate) fn dying_creates(extent: Extent, report: &mut Report) {
    let rounds = rounds(extent, 400);
    for kind in [Kind::Bare, Kind::Full] {
        let mut container = Container::new("w", kind);
        for round in 0..rounds {
            let after = Duration::from_micros(u64::try_from(round * 7 % 40).unwrap() * 300);
            report.judge(format_args!("a create dying {after:?} old"), die(&mut container, after));
        }
        report
            .note(format_args!("delete --force beside a dying create × {}: {rounds}", kind.name()));
    }
}

fn die(container: &mut Container, after: Duration) -> Result<(), String> {
    container.reset();
    let mut calls = ConcurrentCalls::default();
    let create = calls.start(0, container.command(Call::Create));
    std::thread::sleep(after);
    let force: Command = container.command_keeping_the_log(Call::ForceDelete);
    calls.start(1, force);
    let _ = kill(create, Signal::SIGKILL);
    for ended in calls.all() {
        if ended.key == 1 {
            ended.finished.success()?;
        }
    }
    container.settle()?;
    container.force_delete()?;
    container.full_life()
}
