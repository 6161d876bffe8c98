//! A verb is paused at each of its system calls in turn, while another verb works on the same container. This
//! covers every point at which the first can find the effects of the second.

use crate::actual_state::{self, ActualState};
use crate::capture::{Output, describe};
use crate::container::{Call, Container};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::processes::{self, LIMIT, pid_of};
use crate::races::is_known_outcome;
use crate::report::Report;
use crate::sweep;
use crate::tracer::{Action, Stepped, Traced, When, trace};
use crate::trials::Extent;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the second verb may take while the first is paused. It ends sooner unless it waits for a lock that
/// the first holds. Then both continue together.
const STANDSTILL: Duration = Duration::from_millis(30);

/// The calls that prepare the container, the verb that is paused, and the verb that runs meanwhile.
type Pairing = (&'static [Call], Call, Call);

const CREATED: &[Call] = &[Call::Create];
const STARTED: &[Call] = &[Call::Create, Call::Start];

/// The pairs with the best known outcome.
const FIRST: [Pairing; 8] = [
    (&[], Call::Create, Call::Create),
    (&[], Call::Create, Call::ForceDelete),
    (CREATED, Call::Start, Call::Start),
    (CREATED, Call::Start, Call::ForceDelete),
    (CREATED, Call::Start, Call::Kill("KILL")),
    (CREATED, Call::Start, Call::Delete),
    (STARTED, Call::Delete, Call::Create),
    (CREATED, Call::ForceDelete, Call::Create),
];

const OTHERS: [Pairing; 9] = [
    (&[], Call::Create, Call::State),
    (&[], Call::Create, Call::Kill("TERM")),
    (&[], Call::Create, Call::Start),
    (CREATED, Call::Kill("TERM"), Call::Start),
    (CREATED, Call::Kill("TERM"), Call::ForceDelete),
    (CREATED, Call::ForceDelete, Call::ForceDelete),
    (STARTED, Call::Delete, Call::Delete),
    (STARTED, Call::Delete, Call::ForceDelete),
    (STARTED, Call::State, Call::ForceDelete),
];

pub(crate) fn sweep_pairings(extent: Extent, report: &mut Report) {
    let mut all = vec![(Kind::Bare, FIRST.as_slice())];
    if extent == Extent::Full {
        all.extend([(Kind::Bare, OTHERS.as_slice())]);
        all.extend([(Kind::Full, FIRST.as_slice()), (Kind::Full, OTHERS.as_slice())]);
    }
    for (kind, pairings) in all {
        let mut container = Container::new("w", kind);
        for &pairing in pairings {
            let (_, stands, passes) = pairing;
            let points = sweep_pairing(&mut container, pairing, report);
            report.note(format_args!(
                "{stands:?} standing still while {passes:?} passes × {}: {points} points",
                kind.name()
            ));
        }
    }
}

fn sweep_pairing(container: &mut Container, pairing: Pairing, report: &mut Report) -> usize {
    sweep::each_call(|at| match meet(container, pairing, at) {
        Ok(None) => false,
        outcome => {
            report.judge(format_args!("{pairing:?} at call {at}"), outcome.map(|_| ()));
            true
        }
    })
}

/// `None` if the verb has ended before its call `at`.
fn meet(container: &mut Container, pairing: Pairing, at: usize) -> Result<Option<()>, String> {
    let (before, stands, passes) = pairing;
    container.reset();
    for &call in before {
        container.run(call).success()?;
    }
    let mut command = container.command(stands);
    let (mut passing, mut actual) = (None, ActualState::Absent);
    let mut act = || {
        actual = ActualState::of(container);
        passing = Some(Passing::start(container.command_keeping_the_log(passes)));
    };
    let traced = trace(&mut command, Stepped::Main, When::Before(at), Action::Meanwhile(&mut act));
    let Some(call) = traced.hit.clone() else { return Ok(None) };
    let passing = passing.ok_or("nothing has passed")?;
    let still = passing.end.is_some();
    let passed = passing.end(&traced);
    actual.allows(passes, &passed, still).map_err(|why| format!("{call}: {why}"))?;
    judge(container, pairing, &traced.finished, &passed).map_err(|why| format!("{call}: {why}"))?;
    Ok(Some(()))
}

fn judge(
    container: &Container,
    (_, stands, passes): Pairing,
    stood: &Finished,
    passed: &Finished,
) -> Result<(), String> {
    is_known_outcome(stands, stood)?;
    is_known_outcome(passes, passed)?;
    let seen = container.settle()?;
    actual_state::compare(container)?;
    let both = format!("{stood}; {passed}");
    match (stands, passes) {
        (Call::Create, Call::Create) => {
            if stood.succeeded() == passed.succeeded() {
                return Err(format!("of two creates one wins: {both}"));
            }
            container.is_created()?;
        }
        (Call::Start, Call::Start) if stood.succeeded() && passed.succeeded() => {
            return Err(format!("started twice: {both}"));
        }
        (Call::Start, Call::Start) if !stood.succeeded() && !passed.succeeded() => {
            return Err(format!("neither has started it: {both}"));
        }
        (Call::Create | Call::Start, Call::ForceDelete) if !passed.succeeded() => {
            return Err(format!("a forced delete gave up: {both}"));
        }
        // The create may have finished the delete, but one of the two must have.
        (Call::Delete, Call::Create) if !stood.succeeded() => {
            return Err(format!("the delete failed: {both}"));
        }
        (Call::Delete, Call::Create) if passed.succeeded() => container.is_created()?,
        (Call::Delete, Call::Create) => seen.one_of(&["absent"])?,
        _ => {}
    }
    container.force_delete()?;
    container.full_life()
}

/// The verb that runs while the other is paused.
struct Passing {
    pid: Pid,
    output: Output,
    what: String,
    end: Option<End>,
}

impl Passing {
    /// Starts it and waits for as long as the other verb is paused.
    fn start(mut command: Command) -> Self {
        let output = Output::of(&mut command);
        let what = describe(&command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut passing = Self { pid: pid_of(&child), output, what, end: None };
        let deadline = Instant::now() + STANDSTILL;
        while passing.end.is_none() && Instant::now() < deadline {
            let status = waitpid(passing.pid, Some(WaitPidFlag::WNOHANG));
            passing.end = status.ok().and_then(End::of).map(|(_, end)| end);
            std::thread::sleep(Duration::from_micros(200));
        }
        passing
    }

    /// Its result. It ended while the other verb was paused, while that was traced, or later.
    fn end(self, traced: &Traced) -> Finished {
        let meanwhile = || traced.others.iter().find(|(pid, _)| *pid == self.pid);
        let end = self
            .end
            .or_else(|| meanwhile().map(|(_, end)| *end))
            .unwrap_or_else(|| processes::await_end(self.pid, LIMIT));
        self.output.finish(self.what, end)
    }
}
