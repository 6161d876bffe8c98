//! A guard that does not report. Tests run in the order of their names: this module is one of the first, so
//! that its test of 70 seconds runs while all others do.

use std::time::Duration;

use super::cleanup::stale;
use super::host::{Host, script};
use super::recorded_store::{Container, Store};
use crate::process;

/// The guard is a child of the thread that works on the container, not of the main thread.
#[test]
fn a_guard_that_does_not_report_is_ended_with_its_hook() {
    let host = Host::new();
    let volume = host.path("volume");
    let pids = host.path("pids");
    let text = format!("echo $$ $PPID > {}; kill -STOP $PPID; exec sleep 1000", pids.display());
    script(&volume.join("deactivate"), &text);
    let volumes = vec![("v".to_owned(), host.own_path(&volume))];
    let store = Store::of(&[Container { volumes, ..stale("a") }]);
    let _engine = host.engine(&store);
    let mut command = host.command(&["cleanup", "--stale-os"]);
    let mut started = process::start(command.stderr(std::process::Stdio::null()));
    let pids = process::wait_for("the hook", || {
        std::fs::read_to_string(&pids).ok().filter(|pids| pids.ends_with('\n'))
    });
    let limit = Duration::from_secs(80);
    process::wait_for_within(limit, "the limit", || (!started.runs()).then_some(()));
    for pid in pids.split_ascii_whitespace() {
        assert!(!process::is_alive(pid.parse().unwrap()), "{pids}");
    }
}
