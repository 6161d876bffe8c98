//! Timeouts. All processes that a hook has started are killed after its limit. Tests run in the order of their
//! names: this module is the first, so that its test of 60 seconds runs while all others do.

use std::time::{Duration, Instant};

use crate::container::Container;
use crate::full_pipe::Full;
use crate::process;

/// All kinds of children of a hook: in its group, in their own session, orphaned.
const FAMILY: &str = "sleep 1000 & setsid sleep 1000 & (sleep 1000 &); trap '' TERM INT HUP; echo still here; wait; wait";

#[test]
fn an_image_hook_is_killed_with_all_it_started_after_60_seconds() {
    let container = Container::new();
    container.hook("create", FAMILY);
    let mut create = process::start(container.create_command().stderr(std::process::Stdio::null()));
    let began = Instant::now();
    let limit = Duration::from_secs(70);
    process::wait_for_within(limit, "the limit", || (!create.runs()).then_some(()));
    assert_eq!(create.wait(), 1);
    assert!((59.0..65.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    let log = container.new_log_lines();
    let error = log.last().unwrap()["msg"].as_str().unwrap();
    assert!(error.contains("hooks/create timed out") && error.contains("60 s"), "{error}");
    assert!(error.contains("still here"), "the last lines help most here: {error}");
    container.left_nothing();
}

#[test]
fn an_answer_that_is_not_read_fails_after_30_seconds() {
    let container = Container::created();
    let id = container.id.as_str();
    let full = Full::new();
    let verbs = [&["state", id][..], &["list"], &["ps", id], &["features"], &["--help"]];
    let errors = verbs.map(|_| tempfile::NamedTempFile::new().unwrap());
    let began = Instant::now();
    let mut started: Vec<process::Started> = std::iter::zip(verbs, &errors)
        .map(|(words, error)| {
            let mut command = std::process::Command::new(crate::programs::runtime());
            command.env_clear().arg("--root").arg(container.root()).args(words);
            process::start(command.stdout(full.end()).stderr(error.reopen().unwrap()))
        })
        .collect();
    for ((words, error), started) in std::iter::zip(verbs, &errors).zip(&mut started) {
        let limit = Duration::from_secs(45);
        process::wait_for_within(limit, words[0], || (!started.runs()).then_some(()));
        assert_eq!(started.wait(), 1, "{words:?}");
        let error = std::fs::read_to_string(error.path()).unwrap();
        assert!(error.contains("its reader has read nothing for 30 s"), "{words:?}: {error}");
    }
    assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_hook_of_the_spec_is_killed_with_all_it_started_after_its_timeout() {
    let container = Container::new();
    container.spec_hook("createRuntime", FAMILY, |hook| hook["timeout"] = 1.into());
    let began = Instant::now();
    container.create().fails(&["createRuntime", "timed out", "1 s", "limit"]);
    assert!((1.0..10.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    container.left_nothing();
}

#[test]
fn a_timeout_at_start_fails_the_start_and_ends_the_proxy() {
    let container = Container::new();
    container.spec_hook("startContainer", FAMILY, |hook| hook["timeout"] = 1.into());
    container.create().ok();
    container.start().fails(&["startContainer", "timed out", "1 s"]);
    assert!(!process::is_alive(container.pid()));
    container.delete().ok();
    container.left_nothing();
}

#[test]
fn a_timeout_at_delete_is_a_warning() {
    let container = Container::new();
    container.spec_hook("poststop", FAMILY, |hook| hook["timeout"] = 1.into());
    container.create().ok();
    container.start().ok();
    let finished = container.delete().silent();
    assert!(finished.warnings().contains("poststop"), "{finished}");
    assert!(finished.warnings().contains("timed out"), "{finished}");
    container.left_nothing();
}

#[test]
fn nothing_of_a_hook_outlives_a_runtime_that_is_killed() {
    let container = Container::new();
    container.hook("create", &format!("touch hanging; {FAMILY}"));
    let mut create = process::start(container.create_command().stdout(std::process::Stdio::null()));
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    create.kill();
    create.wait();
    process::wait_for("the hook to be gone", || {
        crate::leftovers::processes(&container.id).is_empty().then_some(())
    });
}
