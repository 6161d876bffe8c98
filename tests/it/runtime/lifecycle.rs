//! Every verb in every state: it does its work if it is allowed there, and otherwise has no effect.

use crate::container::Container;
use crate::process;

/// The result of a verb in a state.
#[derive(Clone, Copy)]
enum Expected {
    Succeeds,
    /// Refused with this text.
    Refused(&'static str),
}
use Expected::{Refused, Succeeds};

/// The containers on which a verb is tried: one in each state.
fn in_each_state() -> [(&'static str, Container); 5] {
    let creating = Container::new();
    creating.hook("create", "touch hanging; sleep 100");
    let mut create = process::start(&mut creating.create_command());
    process::wait_for("the hook", || creating.has("hanging").then_some(()));
    create.kill();
    create.wait();
    let killed = Container::created();
    killed.kill("KILL").ok();
    process::exit_status(killed.pid());
    let sandbox = Container::new();
    sandbox.label("io.kubernetes.cri.container-type", "sandbox");
    sandbox.create().ok();
    sandbox.start().ok();
    [
        ("creating", creating),
        ("created", Container::created()),
        ("running", sandbox),
        ("stopped", Container::stopped()),
        ("stopped", killed),
    ]
}

/// Calls `words` with the id in each state. A refusal must not change the state.
fn matrix(words: &[&str], expected: [Expected; 5]) {
    for ((state, container), expected) in in_each_state().iter().zip(expected) {
        assert_eq!(container.status(), *state);
        let before = container.state();
        let finished = container.call(&[words, &[&container.id]].concat());
        match expected {
            Succeeds => drop(finished.ok()),
            Refused(text) => {
                finished.fails(&[text, &container.id]);
                assert_eq!(container.state(), before, "{words:?} when {state} had an effect");
            }
        }
    }
}

#[test]
fn start_only_from_created() {
    let stopped = Refused("cannot start a container that has stopped");
    matrix(
        &["start"],
        [
            Refused("creating"),
            Succeeds,
            Refused("cannot start an already running container"),
            stopped,
            stopped,
        ],
    );
}

#[test]
fn kill_only_what_has_a_process() {
    let gone = Refused("container not running");
    matrix(&["kill"], [gone, Succeeds, Succeeds, gone, gone]);
}

#[test]
fn kill_all_is_silent_when_stopped() {
    let gone = Refused("container not running");
    matrix(&["kill", "--all"], [gone, Succeeds, Succeeds, Succeeds, Succeeds]);
}

#[test]
fn delete_only_from_stopped() {
    let force = Refused("--force");
    matrix(&["delete"], [force, force, force, Succeeds, Succeeds]);
}

#[test]
fn delete_by_force_from_any_state() {
    matrix(&["delete", "--force"], [Succeeds; 5]);
}

#[test]
fn state_and_ps_in_any_state() {
    matrix(&["state"], [Succeeds; 5]);
    matrix(&["ps", "--format", "json"], [Succeeds; 5]);
}

#[test]
fn create_only_over_a_create_that_died() {
    for ((state, container), again) in
        in_each_state().iter().zip([Succeeds, Refused(""), Refused(""), Refused(""), Refused("")])
    {
        container.hook("create", "true");
        if *state == "creating" {
            process::wait_for("the hook to be gone", || {
                crate::leftovers::processes(&container.id).is_empty().then_some(())
            });
        }
        let before = container.state();
        let finished = container.create();
        match again {
            Succeeds => drop(finished.ok()),
            Refused(_) => {
                finished.fails(&["container with given ID already exists"]);
                assert_eq!(container.state(), before, "{state}");
            }
        }
    }
}

#[test]
fn an_id_can_be_used_again_and_again() {
    let container = Container::new();
    for verb in ["create", "start", "delete"] {
        container.hook(verb, &format!("echo {verb} >> count"));
    }
    for _ in 0..5 {
        container.create().ok();
        container.start().ok();
        container.delete().ok();
        container.delete_by_force().ok();
    }
    assert_eq!(container.read("count"), ["create\nstart\ndelete"; 5].join("\n"));
    container.left_nothing();
}

#[test]
fn every_verb_works_without_any_environment() {
    let container = Container::new();
    container.hook("start", "touch started");
    let call = |verb: &str, words: &[&str]| {
        let mut command = std::process::Command::new("env");
        command.arg("-i").arg(crate::programs::runtime()).arg("--root").arg(container.root());
        command.arg(verb).args(words);
        command
    };
    let id = container.id.as_str();
    container.create_by(&mut call("create", &["-b", container.text(), id])).ok();
    for (verb, words) in [
        ("state", &[id][..]),
        ("list", &[]),
        ("ps", &["--format", "json", id]),
        ("kill", &[id, "0"]),
        ("update", &["--resources", "-", id]),
        ("start", &[id]),
        ("delete", &[id]),
        ("features", &[]),
        ("run", &["-b", container.text(), id]),
    ] {
        container.finish(&mut call(verb, words)).ok();
    }
    for verb in ["exec", "pause", "resume", "events", "checkpoint", "restore"] {
        container.finish(&mut call(verb, &[id])).fails(&[verb]);
    }
    assert!(container.has("started"));
}

#[test]
fn ids_may_have_what_the_contract_allows() {
    let long = "x".repeat(200);
    for id in ["a", "_", "0", "A.b-c+d_e", "a..", &long] {
        let container = Container::new();
        container.create_by(&mut container.command(&["create", "-b", container.text(), id])).ok();
        container.call(&["start", id]).ok();
        assert_eq!(container.call(&["state", id]).ok().json()["id"], id);
        container.call(&["delete", id]).ok();
    }
}
