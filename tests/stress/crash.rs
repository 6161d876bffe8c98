//! Kills a verb at every one of its system calls, before and after the call, and every process that the verb
//! starts at every one of its calls.

use crate::actual_state;
use crate::checks;
use crate::container::{Call, Container};
use crate::fault;
use crate::finished::End;
use crate::kind::Kind;
use crate::report::Report;
use crate::sweep;
use crate::swept_verbs::{Verb, refused};
use crate::tracer::{Action, Stepped, Traced, When, trace};
use crate::trials::Extent;
use serde_json::Value;

/// How the container is recovered after a crash.
#[derive(Clone, Copy, Debug)]
enum Recovery {
    /// `delete --force`, as engines do.
    Force,
    /// With what a person may try first: create with the same id, or a plain delete.
    Resume,
}

pub(crate) fn sweep_verb(verb: Verb, kind: Kind, extent: Extent, report: &mut Report) {
    let mut container = Container::new("w", kind);
    // One of the two at each point in turn, or both at every point.
    let turns: &[[Recovery; 2]] = match extent {
        Extent::Short => &[[Recovery::Force, Recovery::Resume]],
        Extent::Full => &[[Recovery::Force; 2], [Recovery::Resume; 2]],
    };
    let mut points = 0;
    for &recoveries in turns {
        points += sweep_main(&mut container, verb, recoveries, extent, report);
    }
    let (name, kind) = (verb.name(), kind.name());
    report.note(format_args!("{name} × {kind} × SIGKILL of the runtime: {points} points"));
    if extent.sweeps_children_of(verb) {
        for child in 1..=extent.children() {
            let Some((points, who)) = sweep_child(&mut container, verb, child, report) else {
                break;
            };
            report.note(format_args!("{name} × {kind} × SIGKILL of {who}: {points} points"));
        }
    }
}

fn sweep_main(
    container: &mut Container,
    verb: Verb,
    recoveries: [Recovery; 2],
    extent: Extent,
    report: &mut Report,
) -> usize {
    let mut points = 0;
    sweep::each_call(|at| {
        let mut hit = false;
        let recovery = recoveries[at % recoveries.len()];
        // After a call is the same as before the next one, except for what other processes do in between.
        let afterwards = (extent == Extent::Full).then_some(When::After(at));
        for when in [When::Before(at)].into_iter().chain(afterwards) {
            if let Err(why) = verb.prepare(container) {
                report.violation(format_args!("preparing {verb:?}: {why}"));
                return false;
            }
            let earlier = checks::recorded_steps(container);
            let mut command = container.command(verb.call());
            let traced = trace(&mut command, Stepped::Main, when, Action::Kill);
            let Some(call) = traced.hit else { continue };
            hit = true;
            points += 1;
            let point = format!("{verb:?} killed, {when:?} {call}, then {recovery:?}");
            let kept = keeps_records(&earlier, &checks::recorded_steps(container));
            report.judge(point, kept.and_then(|()| after_crash(container, verb, recovery)));
        }
        hit
    });
    points
}

/// A killed verb must not lose the records of earlier verbs.
fn keeps_records(earlier: &[Value], now: &[Value]) -> Result<(), String> {
    if now.starts_with(earlier) {
        return Ok(());
    }
    Err(format!("the record of the deploy was {earlier:?} and is {now:?}"))
}

fn after_crash(container: &Container, verb: Verb, recovery: Recovery) -> Result<(), String> {
    let seen = container.settle()?;
    seen.one_of(verb.statuses_after_a_kill())?;
    actual_state::compare(container)?;
    match recovery {
        Recovery::Force => container.force_delete()?,
        Recovery::Resume => resume(container, verb, seen.status())?,
    }
    container.full_life()
}

/// Continues as the reported status says.
fn resume(container: &Container, verb: Verb, status: &str) -> Result<(), String> {
    match status {
        "absent" | "creating" => {
            container.run(Call::Create).success()?;
            container.is_created()?;
            container.start_and_delete()
        }
        // The proxy may be about to end because create did not complete, or create had completed.
        "created" if phase(container) == "completing" => {
            let again = container.run(Call::Create);
            if again.succeeded() {
                return container.start_and_delete();
            }
            refused(&again, "already exists")?;
            if container.run(Call::Start).succeeded() {
                return container.stop_and_delete();
            }
            container.settle()?.one_of(&["creating"])?;
            resume(container, verb, "creating")
        }
        "created" if ["ending", "deleting"].contains(&phase(container).as_str()) => {
            refused(&container.run(Call::Start), "is being deleted")?;
            container.run(Call::Create).success()?;
            container.start_and_delete()
        }
        "created" => {
            refused(&container.run(Call::Create), "already exists")?;
            // The proxy may have had the signal to end, or be about to end because create did not complete.
            let ending = !matches!(verb, Verb::Start | Verb::State);
            if ending && !container.run(Call::Start).succeeded() {
                container.settle()?.one_of(&["stopped"])?;
                return resume(container, verb, "stopped");
            }
            if ending { container.stop_and_delete() } else { container.start_and_delete() }
        }
        // The next create may finish a delete that had begun.
        "stopped" if ["ending", "deleting"].contains(&phase(container).as_str()) => {
            container.run(Call::Create).success()?;
            container.start_and_delete()
        }
        "running" if container.kind != Kind::Sandbox => {
            refused(&container.run(Call::Create), "already exists")?;
            let again = container.run(Call::Start);
            // The proxy was told to end, and may have done so by now.
            if refused(&again, "already running").is_err() {
                container.settle()?.one_of(&["stopped"])?;
                refused(&again, "stopped")?;
            }
            container.run(Call::Delete).success()?;
            container.nothing_is_left()
        }
        "stopped" => {
            refused(&container.run(Call::Create), "already exists")?;
            refused(&container.run(Call::Start), "stopped")?;
            container.run(Call::Delete).success()?;
            container.nothing_is_left()
        }
        _ => container.stop_and_delete(),
    }
}

/// The progress of a create or delete.
fn phase(container: &Container) -> String {
    let state = container.recorded().unwrap_or_default();
    state["phase"].as_str().unwrap_or_default().to_owned()
}

/// Kills the `child`-th process that the verb starts; `None` if it starts fewer.
fn sweep_child(
    container: &mut Container,
    verb: Verb,
    child: usize,
    report: &mut Report,
) -> Option<(usize, String)> {
    let (mut exists, mut who) = (false, None);
    let points = sweep::each_call(|at| {
        if let Err(why) = verb.prepare(container) {
            report.violation(format_args!("preparing {verb:?}: {why}"));
            return false;
        }
        let mut command = container.command(verb.call());
        let traced = trace(&mut command, Stepped::Child(child), When::Before(at), Action::Kill);
        exists |= !traced.calls.is_empty();
        who = who.take().or_else(|| traced.child.as_deref().map(role));
        let Some(call) = &traced.hit else { return false };
        let point =
            format!("{verb:?}: child {child} ({who:?}) killed before its call {at}, {call}");
        report.judge(point, after_loss(container, verb, &traced));
        true
    });
    exists.then(|| (points, who.unwrap_or_default()))
}

/// The verb itself survives, and must handle the loss like any other fault.
fn after_loss(container: &Container, verb: Verb, traced: &Traced) -> Result<(), String> {
    let finished = &traced.finished;
    match finished.end {
        // If the proxy is killed after create is complete, the container is stopped.
        End::Status(0) if verb == Verb::Create => {
            container.settle()?.one_of(&["created", "stopped"])?;
        }
        End::Status(0) => verb.check_success(container)?,
        End::Status(1) => {
            fault::is_clear(container, traced)?;
            verb.check_failure(container)?;
        }
        _ => return Err(format!("{finished}")),
    }
    container.force_delete()?;
    container.full_life()
}

/// Describes the process with this command line: the proxy, or the guard of a hook.
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
