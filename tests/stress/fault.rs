//! Injects a fault at every system call of a verb: no space, I/O error, no memory, no descriptor, interrupted.
//! The verb either succeeds or reports the cause, and leaves everything as it was.

use crate::actual_state;
use crate::container::Container;
use crate::crash::role;
use crate::finished::End;
use crate::kind::Kind;
use crate::processes;
use crate::report::Report;
use crate::swept_verbs::Verb;
use crate::system_calls::{self, Call as SystemCall};
use crate::tracer::{Action, Stepped, Traced, When, trace};
use crate::trials::Extent;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::process::Command;

const FAULTS: [Errno; 5] = [Errno::ENOSPC, Errno::EIO, Errno::ENOMEM, Errno::EMFILE, Errno::EINTR];

/// More descriptors than any verb has open at a time.
const DESCRIPTORS: std::ops::Range<u32> = 3..40;

pub(crate) fn sweep(verb: Verb, kind: Kind, extent: Extent, report: &mut Report) {
    let mut container = Container::new("w", kind);
    let start_up = start_up_calls(&mut container, verb);
    let mut swept =
        vec![sweep_process(&mut container, verb, Stepped::Main, start_up, extent, report)];
    if extent.sweeps_children_of(verb) {
        for child in 1..=extent.children() {
            let of_child =
                sweep_process(&mut container, verb, Stepped::Child(child), 0, extent, report);
            if of_child.calls == 0 {
                break;
            }
            swept.push(of_child);
        }
    }
    let (name, kind) = (verb.name(), kind.name());
    for Swept { who, calls, points, untouched, aborts } in swept {
        let faults = if extent == Extent::Short { "one fault each" } else { "five faults each" };
        report.note(format_args!(
            "{name} × {kind} × {who}: {calls} calls, {faults}: {points} points; {untouched} faults that cannot be"
        ));
        if !aborts.is_empty() {
            report.note(format_args!(
                "{name} × {kind} × {who}: {} aborts of the first allocation, which is no program's to handle; nothing was left: {}",
                aborts.len(),
                aborts.join(", ")
            ));
        }
    }
    report.note(format_args!(
        "{name} × {kind}: of the runtime's, the first {start_up} are made by Rust's start-up before main, which aborts by itself"
    ));
    let points = sweep_full_disk(&mut container, verb, start_up, report);
    report.note(format_args!("{name} × {kind} × ENOSPC from a call on: {points} points"));
    let points = sweep_descriptors(&mut container, verb, extent, report);
    report.note(format_args!("{name} × {kind} × a limit on descriptors: {points} points"));
}

/// The sweep of one process.
struct Swept {
    who: String,
    calls: usize,
    points: usize,
    /// Faults that are impossible: the call never returns, or never with this error.
    untouched: usize,
    /// The faults that made the first heap allocation abort.
    aborts: Vec<String>,
}

fn sweep_process(
    container: &mut Container,
    verb: Verb,
    stepped: Stepped,
    start_up: usize,
    extent: Extent,
    report: &mut Report,
) -> Swept {
    let main = if stepped == Stepped::Main { "the runtime" } else { "" };
    let mut swept =
        Swept { who: main.to_owned(), calls: 0, points: 0, untouched: 0, aborts: Vec::new() };
    for at in 1.. {
        let faults = match extent {
            // Each call has the next fault in turn.
            Extent::Short => &FAULTS[at % FAULTS.len()..=at % FAULTS.len()],
            Extent::Full => &FAULTS,
        };
        let mut made = 0;
        for &errno in faults {
            if let Err(why) = verb.prepare(container) {
                report.violation(format_args!("preparing {verb:?}: {why}"));
                return swept;
            }
            let action = Action::Fail(errno, |_| true);
            let traced =
                trace(&mut container.command(verb.call()), stepped, When::Before(at), action);
            made = traced.calls.len().max(made);
            if let Some(child) = &traced.child {
                swept.who = role(child);
            }
            let Some(call) = &traced.hit else {
                swept.untouched += usize::from(traced.calls.len() >= at);
                continue;
            };
            swept.points += 1;
            let who = &swept.who;
            let point = format!("{verb:?}, {who}: {errno:?} from call {at}, {call}");
            let aborted = is_first_allocation(&traced, start_up);
            let outcome = after_fault(container, verb, &traced, stepped, aborted || at <= start_up);
            if aborted && outcome.is_ok() {
                swept.aborts.push(format!("{errno:?} from call {at}, {call}"));
            }
            report.judge(point, outcome);
        }
        swept.calls = swept.calls.max(at.min(made));
        if made < at {
            break;
        }
    }
    swept
}

/// The disk is full from some call on, also while the verb cleans up.
fn sweep_full_disk(
    container: &mut Container,
    verb: Verb,
    start_up: usize,
    report: &mut Report,
) -> usize {
    let mut points = 0;
    let mut at = start_up + 1;
    loop {
        if let Err(why) = verb.prepare(container) {
            report.violation(format_args!("preparing {verb:?}: {why}"));
            return points;
        }
        let action = Action::Fail(Errno::ENOSPC, SystemCall::stores);
        let traced =
            trace(&mut container.command(verb.call()), Stepped::Main, When::From(at), action);
        let Some(call) = &traced.hit else { return points };
        points += 1;
        let point = format!("{verb:?}: ENOSPC from call {} on, {call}", traced.hit_at);
        report.judge(point, after_fault(container, verb, &traced, Stepped::Main, false));
        at = traced.hit_at + 1;
    }
}

/// RLIMIT_NOFILE limits the verb and its children to a few descriptors.
fn sweep_descriptors(
    container: &mut Container,
    verb: Verb,
    extent: Extent,
    report: &mut Report,
) -> usize {
    let step = if extent == Extent::Short { 3 } else { 1 };
    let limits = DESCRIPTORS.step_by(step);
    let points = limits.len();
    for limit in limits {
        if let Err(why) = verb.prepare(container) {
            report.violation(format_args!("preparing {verb:?}: {why}"));
            return 0;
        }
        let command = container.command(verb.call());
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nofile={limit}:{limit}")).arg("--").arg(command.get_program());
        limited.args(command.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
        let traced = trace(&mut limited, Stepped::Main, When::Never, Action::Nothing);
        let point = format!("{verb:?} with {limit} descriptors");
        report.judge(point, after_fault(container, verb, &traced, Stepped::Main, false));
    }
    points
}

fn after_fault(
    container: &Container,
    verb: Verb,
    traced: &Traced,
    stepped: Stepped,
    starting: bool,
) -> Result<(), String> {
    let finished = &traced.finished;
    if finished.err.contains("panicked") && !starting && !is_of_start_up(&finished.err, stepped) {
        return Err(format!("a panic: {finished}"));
    }
    match finished.end {
        End::Status(0) if verb == Verb::Create && stepped != Stepped::Main => {
            // Its proxy may have died from the fault after create was complete.
            container.settle()?.one_of(&["created", "stopped"])?;
        }
        End::Status(0) => verb.check_success(container)?,
        End::Status(1) => {
            is_clear(container, traced)?;
            actual_state::compare(container)?;
            verb.check_failure(container)?;
        }
        End::Killed(_) | End::Status(_) if starting => verb.check_failure(container)?,
        _ => return Err(format!("{finished}")),
    }
    container.force_delete()?;
    container.full_life()
}

/// Whether Rust aborted the process because its first allocation failed. It cannot report anything without a
/// heap.
fn is_first_allocation(traced: &Traced, start_up: usize) -> bool {
    let before = traced.calls.get(start_up..traced.hit_at.saturating_sub(1)).unwrap_or_default();
    traced.finished.end == End::Killed(Signal::SIGABRT)
        && traced.finished.err.starts_with("memory allocation of ")
        && traced.hit.as_ref().is_some_and(SystemCall::arranges_memory)
        && !before.iter().any(SystemCall::arranges_memory)
}

/// A guard or a proxy panicked in Rust's start-up code, before main, which the program cannot influence. The
/// runtime must report it nevertheless.
fn is_of_start_up(err: &str, stepped: Stepped) -> bool {
    let places = ["std/src/sys/pal/unix/stack_overflow.rs", "std/src/rt.rs"];
    stepped != Stepped::Main && places.iter().any(|place| err.contains(place))
}

/// Fails unless the reason is on standard error and in the log, or the fault hit the report itself.
pub(crate) fn is_clear(container: &Container, traced: &Traced) -> Result<(), String> {
    let log = container.log().display().to_string();
    // A full disk has no room for the log either.
    let full = traced.strikes > 1 && traced.hit.as_ref().is_some_and(SystemCall::stores);
    // If the log cannot be opened, that is the error to report.
    let closed = traced.finished.err.contains("open the log file");
    let struck = full || closed || traced.hit.as_ref().is_some_and(|call| call.reports(&log));
    let (said, logged) =
        (!traced.finished.err.trim().is_empty(), container.logged_error().is_some());
    // `state` is called without a log.
    let has_log = traced.finished.command.contains("--log ");
    if said && (logged || !has_log) || struck && (said || logged) {
        return Ok(());
    }
    Err(format!(
        "the error is not reported: logged {:?}, {}",
        container.logged_error(),
        traced.finished
    ))
}

/// The number of calls before `main`: the first calls that the verb has in common with another command.
fn start_up_calls(container: &mut Container, verb: Verb) -> usize {
    let numbers = |command: &mut Command| -> Vec<i64> {
        let traced = trace(command, Stepped::Main, When::Never, Action::Nothing);
        traced.calls.iter().map(|call| call.number).collect()
    };
    verb.prepare(container).unwrap_or_else(|why| panic!("prepare {verb:?}: {why}"));
    let ours = numbers(&mut container.command(verb.call()));
    let mut version = Command::new(crate::trial_process::runtime());
    let other = numbers(version.env_clear().env("PATH", "/usr/bin:/bin").arg("--version"));
    let common = ours.iter().zip(&other).take_while(|(own, other)| own == other).count();
    processes::kill_all();
    // The first call of the allocator belongs to main.
    let mine = |name: &str| matches!(name, "mmap" | "brk" | "close_range" | "geteuid");
    let trailing = ours[..common].iter().rev().take_while(|&&call| mine(&system_calls::name(call)));
    common - trailing.count()
}
