//! A verb stands still at one of its system calls, each in turn, while another works on the same
//! container: every point at which the one may find what the other has done.

use crate::actual_state::{self, Truth};
use crate::capture::{Output, describe};
use crate::container::{Call, World};
use crate::finished::{End, Finished};
use crate::kind::Kind;
use crate::processes::{self, LIMIT, pid_of};
use crate::races::is_known_outcome;
use crate::report::Report;
use crate::tracer::{Deed, Traced, When, Whom, trace};
use crate::trials::Extent;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the other one may take while the first stands still. It ends sooner unless it waits for
/// a lock that the first has; then both go on together.
const STANDSTILL: Duration = Duration::from_millis(30);
/// A verb is through when it was not struck this often in a row: calls per run vary a little.
const UNTOUCHED: usize = 3;

/// Who meets whom: what the container was before, who stands still, and who passes by.
type Meeting = (&'static [Call], Call, Call);

const CREATED: &[Call] = &[Call::Create];
const STARTED: &[Call] = &[Call::Create, Call::Start];

/// Those of which the outcome is known best.
const FIRST: [Meeting; 8] = [
    (&[], Call::Create, Call::Create),
    (&[], Call::Create, Call::ForceDelete),
    (CREATED, Call::Start, Call::Start),
    (CREATED, Call::Start, Call::ForceDelete),
    (CREATED, Call::Start, Call::Kill("KILL")),
    (CREATED, Call::Start, Call::Delete),
    (STARTED, Call::Delete, Call::Create),
    (CREATED, Call::ForceDelete, Call::Create),
];

const OTHERS: [Meeting; 9] = [
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

pub(crate) fn sweep(extent: Extent, report: &mut Report) {
    let mut all = vec![(Kind::Bare, FIRST.as_slice())];
    if extent == Extent::Full {
        all.extend([(Kind::Bare, OTHERS.as_slice())]);
        all.extend([(Kind::Full, FIRST.as_slice()), (Kind::Full, OTHERS.as_slice())]);
    }
    for (kind, meetings) in all {
        let mut world = World::new("w", kind);
        for &meeting in meetings {
            let (_, stands, passes) = meeting;
            let points = sweep_meeting(&mut world, meeting, report);
            report.note(format_args!(
                "{stands:?} standing still while {passes:?} passes × {}: {points} points",
                kind.name()
            ));
        }
    }
}

fn sweep_meeting(world: &mut World, meeting: Meeting, report: &mut Report) -> usize {
    let (mut points, mut untouched) = (0, 0);
    for at in 1.. {
        match meet(world, meeting, at) {
            Ok(None) => {
                untouched += 1;
                if untouched == UNTOUCHED {
                    break;
                }
            }
            outcome => {
                points += 1;
                untouched = 0;
                report.judge(format_args!("{meeting:?} at call {at}"), outcome.map(|_| ()));
            }
        }
    }
    points
}

/// `None` if the verb has ended before its call `at`.
fn meet(world: &mut World, meeting: Meeting, at: usize) -> Result<Option<()>, String> {
    let (before, stands, passes) = meeting;
    world.reset();
    for &call in before {
        world.run(call).success()?;
    }
    let mut command = world.command(stands);
    let (mut passing, mut truth) = (None, Truth::Absent);
    let mut act = || {
        truth = Truth::of(world);
        passing = Some(Passing::start(world.command_keeping_the_log(passes)));
    };
    let traced = trace(&mut command, Whom::Main, When::Before(at), Deed::Meanwhile(&mut act));
    let Some(call) = traced.hit.clone() else { return Ok(None) };
    let passing = passing.ok_or("nothing has passed")?;
    let still = passing.end.is_some();
    let passed = passing.end(&traced);
    truth.allows(passes, &passed, still).map_err(|why| format!("{call}: {why}"))?;
    judge(world, meeting, &traced.finished, &passed).map_err(|why| format!("{call}: {why}"))?;
    Ok(Some(()))
}

fn judge(
    world: &World,
    (_, stands, passes): Meeting,
    stood: &Finished,
    passed: &Finished,
) -> Result<(), String> {
    is_known_outcome(stands, stood)?;
    is_known_outcome(passes, passed)?;
    let seen = world.settle()?;
    actual_state::compare(world)?;
    let both = format!("{stood}; {passed}");
    match (stands, passes) {
        (Call::Create, Call::Create) => {
            if stood.succeeded() == passed.succeeded() {
                return Err(format!("of two creates one wins: {both}"));
            }
            world.is_created()?;
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
        // What a delete has begun the create may have ended, but somebody has to.
        (Call::Delete, Call::Create) if !stood.succeeded() => {
            return Err(format!("the delete failed: {both}"));
        }
        (Call::Delete, Call::Create) if passed.succeeded() => world.is_created()?,
        (Call::Delete, Call::Create) => seen.one_of(&["absent"])?,
        _ => {}
    }
    world.force()?;
    world.lives_again()
}

/// The verb that passes.
struct Passing {
    pid: Pid,
    output: Output,
    what: String,
    end: Option<End>,
}

impl Passing {
    /// Lets it run for as long as the other one stands still.
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

    /// How it has ended: before the other one went on, while that was traced, or after it.
    fn end(self, traced: &Traced) -> Finished {
        let meanwhile = || traced.others.iter().find(|(pid, _)| *pid == self.pid);
        let end = self
            .end
            .or_else(|| meanwhile().map(|(_, end)| *end))
            .unwrap_or_else(|| processes::await_end(self.pid, LIMIT));
        self.output.finish(self.what, end)
    }
}
