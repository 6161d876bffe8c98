//! Many containers at once: none fails, and none is slower for the others.

use crate::concurrent_calls::ConcurrentCalls;
use crate::container::{Call, Container};
use crate::kind::Kind;
use crate::processes;
use crate::report::Report;
use crate::trials::Extent;
use std::time::{Duration, Instant};

const IN_FLIGHT: usize = 64;

pub(crate) fn lifecycles(extent: Extent, report: &mut Report) {
    // And as many one after the other as give a steady figure.
    let (lifecycles, one_by_one) = match extent {
        Extent::Short => (300, 50),
        Extent::Full => (1000, 200),
    };
    for kind in [Kind::Bare, Kind::Hooks] {
        let container = Container::new("w", kind);
        let alone = live(&container, one_by_one, 1, report);
        let together = live(&container, lifecycles, IN_FLIGHT, report);
        report.judge("after all of them", container.nothing_is_left());
        report.note(format_args!(
            "{lifecycles} lifecycles × {}, {IN_FLIGHT} in flight: {:.2} ms a container; one at a time: {:.2} ms",
            kind.name(),
            together.as_secs_f64() * 1e3,
            alone.as_secs_f64() * 1e3,
        ));
    }
}

/// Takes `count` containers through their lives and returns the time each took on average.
fn live(container: &Container, count: usize, in_flight: usize, report: &mut Report) -> Duration {
    let steps = [Call::Create, Call::Start, Call::Delete];
    let command = |key: usize| {
        let sibling = container.sibling(&format!("c{}", key / steps.len()));
        sibling.command_keeping_the_log(steps[key % steps.len()])
    };
    let mut calls = ConcurrentCalls::default();
    let mut waiting = 0..count;
    let started = Instant::now();
    loop {
        while calls.len() < in_flight {
            let Some(next) = waiting.next() else { break };
            calls.start(next * steps.len(), command(next * steps.len()));
        }
        let Some(ended) = calls.next() else { break };
        let (key, finished) = (ended.key, ended.finished);
        if !finished.succeeded() {
            report.violation(format_args!("{finished}"));
        } else if key % steps.len() + 1 < steps.len() {
            calls.start(key + 1, command(key + 1));
        }
    }
    let took = started.elapsed();
    processes::reap();
    took / u32::try_from(count).unwrap()
}
