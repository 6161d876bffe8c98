//! A kill at every call of the manager that changes a file: whatever is left, the same command leads to the state that
//! it would have reached without the kill.

use std::process::Command;

use super::override_device::{Device, X, Y, Z};
use crate::capture::run;
use crate::programs;

const ARM: &str = "kernel_override_abi";
const A: &str = "kernel_override_abi_committed_A";
const B: &str = "kernel_override_abi_committed_B";
const TRIAL: &str = "kernel_override_trial";
const RELAY: &str = "kernel_override_abi_rejected";

/// The calls that change files, or make a change durable. strace counts each of them for itself.
const CALLS: [&str; 10] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlinkat",
    "symlinkat",
    "mkdirat",
];

/// What a command must leave. A crash may leave the prestate, from which nothing is decided, and a rejection that is
/// completed later has no audit line of its own.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    block: String,
    published: Vec<String>,
    rejected: Option<String>,
    /// Whether a write of the block is unfinished.
    redo: bool,
}

fn left(device: &Device) -> Left {
    Left {
        block: device.block(),
        published: device.published(),
        rejected: device.state("override-rejected"),
        redo: device.path("mnt/state/override-block-redo").exists(),
    }
}

/// No link may remain that an uninterrupted command removes.
const NONE: &str = "";

const VALIDATE: &[&str] = &["validate", "--settle", "0", "--retry", "0", "--attempts", "1"];

#[test]
fn a_commit() {
    let lines = format!("{ARM}={X}\n{A}={Y}\n{TRIAL}=1\n");
    sweep(VALIDATE, NONE, || on_trial(&lines, "exit 0"));
}

#[test]
fn a_rejection_by_the_health_check() {
    let lines = format!("{ARM}={X}\n{A}={Y}\n{B}={X}\n{TRIAL}=1\n");
    sweep(VALIDATE, NONE, || on_trial(&lines, "exit 1"));
}

#[test]
fn a_rejection_of_a_kernel_that_never_ran() {
    sweep(VALIDATE, NONE, || {
        let device = on_trial(&format!("{ARM}={X}\n{A}={Y}\n{B}={X}\n{TRIAL}=3\n"), "exit 1");
        device.boot(None);
        device
    });
}

#[test]
fn a_sweep_of_what_nobody_claims_and_of_what_is_malformed() {
    sweep(VALIDATE, NONE, || {
        let device = Device::new(&format!("{ARM}={Z}\n{A}=bad\n{B}={Y}\n{TRIAL}=1\n"));
        for abi in [X, Y, Z] {
            device.publish(abi);
        }
        device.prestate();
        device
    });
}

#[test]
fn a_relay() {
    sweep(VALIDATE, Y, || {
        let device = Device::new(&format!("{A}={X}\n{B}={Y}\n{RELAY}={Y}\n{TRIAL}=1\n"));
        device.publish(X);
        device.publish(Y);
        device
    });
}

#[test]
fn an_update_that_commits() {
    let lines = format!("upgrade_available=1\n{ARM}={X}\n{TRIAL}=1\n");
    sweep(&["hup", "commit"], NONE, || on_trial(&lines, "exit 1"));
}

#[test]
fn an_update_that_rolls_back() {
    let lines = format!("upgrade_available=1\n{ARM}={X}\n{B}={Y}\n{TRIAL}=1\n");
    sweep(&["hup", "reject"], NONE, || on_trial(&lines, "exit 1"));
}

#[test]
fn a_person_who_forgets_a_kernel() {
    let lines = format!("{ARM}={X}\n{A}={X}\n{B}={Y}\n");
    sweep(&["override", "forget", X], NONE, || on_trial(&lines, "exit 1"));
}

/// A device that runs X, and on which X and Y are published.
fn on_trial(lines: &str, check: &str) -> Device {
    let device = Device::new(lines);
    device.publish(X);
    device.publish(Y);
    device.prestate();
    device.boot(Some(X));
    device.check(check);
    device
}

/// Kills the command at each of its calls, calls it again, and compares what is left with an uninterrupted one.
fn sweep(words: &[&str], harmless: &str, device: impl Fn() -> Device) {
    let whole = device();
    whole.0.manager(words).ok();
    let expected = left(&whole);
    assert_ne!(expected, left(&device()), "the command must change something");
    let mut kills = 0;
    for call in CALLS {
        for number in 1.. {
            let device = device();
            if !is_killed_at(&device, words, call, number) {
                break;
            }
            kills += 1;
            // What was forgotten before the kill is not found again by a person's command.
            let again = device.0.manager(words);
            let is_done = again.err.contains("nothing is recorded about the kernel");
            assert!(again.code() == 0 || is_done, "killed at {call} {number}: {again}");
            let mut found = left(&device);
            // A deployed extension claims it, and nothing has rejected it: its link alone boots nothing.
            found.published.retain(|abi| abi != harmless);
            assert_eq!(found, expected, "killed at {call} {number}");
        }
    }
    assert!(kills > 10, "only {kills} calls were reached");
}

/// Runs the command and kills it at its call with this number; false if it makes fewer of them.
fn is_killed_at(device: &Device, words: &[&str], call: &str, number: u32) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.arg("-e").arg(format!("inject={call}:signal=KILL:when={number}"));
    strace.arg(programs::manager()).args(words);
    strace.arg("--host-root").arg(device.path("")).env_remove("DOCKER_HOST");
    run(&mut strace).code() != 0
}
