//! SIGKILL of a verb at every system call, before and after it; and of every process that the verb
//! starts, at every system call of that.

use crate::actual_state;
use crate::checks;
use crate::container::{Call, World};
use crate::fault;
use crate::finished::End;
use crate::kind::Kind;
use crate::report::Report;
use crate::swept_verbs::{Verb, refused};
use crate::tracer::{Deed, Traced, When, Whom, trace};
use crate::trials::Extent;
use serde_json::Value;

/// What is done after a crash.
#[derive(Clone, Copy, Debug)]
enum Recovery {
    /// `delete --force`, as engines do.
    Force,
    /// What a person may try first: the same id again, or a plain delete.
    Resume,
}

/// Calls per run vary a little: a hook's output is read in one piece or in two. So a sweep ends only
/// when the verb has completed untouched several times.
const UNTOUCHED: usize = 3;

pub(crate) fn sweep(verb: Verb, kind: Kind, extent: Extent, report: &mut Report) {
    let mut world = World::new("w", kind);
    // Point by point in turn, or both at every point.
    let turns: &[[Recovery; 2]] = match extent {
        Extent::Short => &[[Recovery::Force, Recovery::Resume]],
        Extent::Full => &[[Recovery::Force; 2], [Recovery::Resume; 2]],
    };
    let mut points = 0;
    for &recoveries in turns {
        points += sweep_main(&mut world, verb, recoveries, extent, report);
    }
    let (name, kind) = (verb.name(), kind.name());
    report.note(format_args!("{name} × {kind} × SIGKILL of the runtime: {points} points"));
    // Whoever only asks starts nobody.
    if extent.sweeps_children_of(verb) {
        for child in 1..=extent.children() {
            let Some((points, who)) = sweep_child(&mut world, verb, child, report) else { break };
            report.note(format_args!("{name} × {kind} × SIGKILL of {who}: {points} points"));
        }
    }
}

fn sweep_main(
    world: &mut World,
    verb: Verb,
    recoveries: [Recovery; 2],
    extent: Extent,
    report: &mut Report,
) -> usize {
    let (mut points, mut untouched) = (0, 0);
    for at in 1.. {
        let mut hit = false;
        let recovery = recoveries[at % recoveries.len()];
        // After one call is before the next, but for what other processes do in between.
        let afterwards = (extent == Extent::Full).then_some(When::After(at));
        for when in [When::Before(at)].into_iter().chain(afterwards) {
            if let Err(why) = verb.prepare(world) {
                report.violation(format_args!("preparing {verb:?}: {why}"));
                return points;
            }
            let told = checks::recorded_steps(world);
            let mut command = world.command(verb.call());
            let traced = trace(&mut command, Whom::Main, when, Deed::Kill);
            let Some(call) = traced.hit else { continue };
            hit = true;
            points += 1;
            let point = format!("{verb:?} killed, {when:?} {call}, then {recovery:?}");
            let kept = goes_on_from(&told, &checks::recorded_steps(world));
            report.judge(point, kept.and_then(|()| after_crash(world, verb, recovery)));
        }
        untouched = if hit { 0 } else { untouched + 1 };
        if untouched == UNTOUCHED {
            break;
        }
    }
    points
}

/// What earlier verbs have told is not lost with the one that is killed.
fn goes_on_from(told: &[Value], now: &[Value]) -> Result<(), String> {
    if now.starts_with(told) {
        return Ok(());
    }
    Err(format!("the record of the deploy was {told:?} and is {now:?}"))
}

fn after_crash(world: &World, verb: Verb, recovery: Recovery) -> Result<(), String> {
    let seen = world.settle()?;
    seen.one_of(verb.statuses_after_a_kill())?;
    actual_state::compare(world)?;
    match recovery {
        Recovery::Force => world.force()?,
        Recovery::Resume => resume(world, verb, seen.status())?,
    }
    world.lives_again()
}

/// Each status is taken by its word.
fn resume(world: &World, verb: Verb, status: &str) -> Result<(), String> {
    match status {
        "absent" | "creating" => {
            world.run(Call::Create).success()?;
            world.is_created()?;
            world.goes_on()
        }
        // A delete that had begun may be finished by the next create, which ends the proxy first.
        // Its proxy may be about to see that nobody completed it; or it was completed.
        "created" if phase(world) == "completing" => {
            let again = world.run(Call::Create);
            if again.succeeded() {
                return world.goes_on();
            }
            refused(&again, "already exists")?;
            if world.run(Call::Start).succeeded() {
                return world.ends();
            }
            world.settle()?.one_of(&["creating"])?;
            resume(world, verb, "creating")
        }
        "created" if ["ending", "deleting"].contains(&phase(world).as_str()) => {
            refused(&world.run(Call::Start), "is being deleted")?;
            world.run(Call::Create).success()?;
            world.goes_on()
        }
        "created" => {
            refused(&world.run(Call::Create), "already exists")?;
            // The proxy may have been told to end, or about to see that nobody completed it.
            let ending = !matches!(verb, Verb::Start | Verb::State);
            if ending && !world.run(Call::Start).succeeded() {
                world.settle()?.one_of(&["stopped"])?;
                return resume(world, verb, "stopped");
            }
            if ending { world.ends() } else { world.goes_on() }
        }
        "stopped" if matches!(verb, Verb::Delete | Verb::ForceDelete) => {
            // A delete that had begun may be finished by the next create.
            if world.run(Call::Create).succeeded() {
                return world.goes_on();
            }
            world.run(Call::Delete).success()?;
            world.nothing_is_left()
        }
        "running" if world.kind != Kind::Sandbox => {
            refused(&world.run(Call::Create), "already exists")?;
            refused(&world.run(Call::Start), "already running")?;
            world.run(Call::Delete).success()?;
            world.nothing_is_left()
        }
        "stopped" => {
            refused(&world.run(Call::Create), "already exists")?;
            refused(&world.run(Call::Start), "stopped")?;
            world.run(Call::Delete).success()?;
            world.nothing_is_left()
        }
        _ => world.ends(),
    }
}

/// How far the container is on its way in or out.
fn phase(world: &World) -> String {
    let state = world.recorded().unwrap_or_default();
    state["phase"].as_str().unwrap_or_default().to_owned()
}

/// Kills the `child`-th process that the verb starts; `None` if it starts fewer.
fn sweep_child(
    world: &mut World,
    verb: Verb,
    child: usize,
    report: &mut Report,
) -> Option<(usize, String)> {
    let (mut points, mut untouched, mut who) = (0, 0, None);
    for at in 1.. {
        if let Err(why) = verb.prepare(world) {
            report.violation(format_args!("preparing {verb:?}: {why}"));
            return None;
        }
        let mut command = world.command(verb.call());
        let traced = trace(&mut command, Whom::Child(child), When::Before(at), Deed::Kill);
        if traced.calls.is_empty() {
            return None;
        }
        who = who.or_else(|| traced.child.as_deref().map(role));
        let Some(call) = &traced.hit else {
            untouched += 1;
            if untouched == UNTOUCHED {
                break;
            }
            continue;
        };
        untouched = 0;
        points += 1;
        let point =
            format!("{verb:?}: child {child} ({who:?}) killed before its call {at}, {call}");
        report.judge(point, after_loss(world, verb, &traced));
    }
    Some((points, who.unwrap_or_default()))
}

/// The verb itself lives, so it has to cope: as with any fault.
fn after_loss(world: &World, verb: Verb, traced: &Traced) -> Result<(), String> {
    let finished = &traced.finished;
    match finished.end {
        // A proxy that is killed once create is complete leaves a stopped container, which is so.
        End::Status(0) if verb == Verb::Create => {
            world.settle()?.one_of(&["created", "stopped"])?;
        }
        End::Status(0) => verb.check_success(world)?,
        End::Status(1) => {
            fault::is_clear(world, traced)?;
            verb.check_failure(world)?;
        }
        _ => return Err(format!("{finished}")),
    }
    world.force()?;
    world.lives_again()
}

/// Which process a command line is: the proxy, or the guard of which hook.
pub(crate) fn role(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [_, "hook-guard", _, _, program, ..] => {
            let name = program.rsplit("/hooks/").next().unwrap_or(program);
            let name = if name.contains('/') { "a hook of the spec" } else { name };
            format!("the guard of {name}")
        }
        [_, "proxy", ..] => "the proxy".to_owned(),
        _ => line.to_owned(),
    }
}
