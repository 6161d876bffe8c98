//! `delete ID`: only removes a stopped container, unless forced, and never fails because of a hook.

use std::time::{Duration, Instant};

use crate::container::Container;
use crate::process;

#[test]
fn delete_removes_all_that_create_made() {
    let container = Container::stopped();
    container.delete().silent();
    container.left_nothing();
}

#[test]
fn a_created_container_is_kept_and_the_error_names_the_state_and_force() {
    let container = Container::created();
    container.delete().fails(&["cannot delete container", "created", "--force"]);
    assert_eq!(container.status(), "created");
    assert!(process::is_alive(container.pid()));
}

#[test]
fn force_kills_first_and_deletes_in_any_state() {
    let container = Container::new();
    container.hook("delete", "touch deleted");
    container.create().ok();
    container.call(&["delete", "-f", &container.id]).silent();
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
    assert!(container.has("deleted"));
    container.left_nothing();
}

#[test]
fn force_on_an_unknown_id_is_a_silent_success_and_runs_no_hook() {
    let container = Container::new();
    container.hook("delete", "echo deleted >> count");
    container.delete_by_force().silent();
    container.create().ok();
    container.start().ok();
    container.delete().silent();
    // Engines do this shortly afterwards, from another process.
    for _ in 0..2 {
        container.delete_by_force().silent();
    }
    assert_eq!(container.read("count"), "deleted");
    container.left_nothing();
}

#[test]
fn the_unknown_is_an_error_without_force() {
    let container = Container::new();
    container.delete().fails(&[crate::finished::UNKNOWN, &container.id]);
}

#[test]
fn a_delete_hook_that_fails_is_a_warning() {
    let container = Container::new();
    container.hook("delete", "echo cannot unmount >&2; exit 4");
    container.create().ok();
    container.start().ok();
    let finished = container.delete().silent();
    let warnings = finished.warnings();
    assert!(warnings.contains("hooks/delete exited with status 4: cannot unmount"), "{finished}");
    container.left_nothing();
}

#[test]
fn a_delete_hook_that_cannot_be_run_is_a_warning() {
    for mode in ["directory", "not executable", "interpreter"] {
        let container = Container::stopped();
        let path = container.path("rootfs/hooks/delete");
        match mode {
            "directory" => std::fs::create_dir(&path).unwrap(),
            "not executable" => std::fs::write(&path, "#!/bin/sh\n").unwrap(),
            _ => container.hook_file("delete", b"#!/opt/none\n"),
        }
        let finished = container.delete().silent();
        assert!(finished.warnings().contains("hooks/delete"), "{mode}: {finished}");
        container.left_nothing();
    }
}

#[test]
fn an_image_without_a_delete_hook_is_deleted_without_a_warning() {
    let container = Container::stopped();
    assert_eq!(container.delete().ok().warnings(), "");
}

#[test]
fn delete_works_without_the_rootfs() {
    let container = Container::new();
    container.hook("delete", "touch deleted");
    container.create().ok();
    container.start().ok();
    std::fs::remove_dir_all(container.path("rootfs")).unwrap();
    container.delete().silent();
    container.left_nothing();
}

#[test]
fn delete_works_without_the_bundle() {
    for force in [&["delete"][..], &["delete", "--force"]] {
        let container = Container::new();
        container.hook("delete", "touch deleted");
        container.create().ok();
        container.start().ok();
        std::fs::remove_dir_all(container.text()).unwrap();
        container.call(&[force, &[&container.id]].concat()).silent();
        container.left_nothing();
    }
}

#[test]
fn the_delete_hook_runs_when_only_the_bundle_is_missing() {
    let container = Container::new();
    container.hook("delete", &format!("pwd > {}", container.beside("seen").display()));
    let rootfs = container.beside("rootfs");
    std::fs::rename(container.path("rootfs"), &rootfs).unwrap();
    container.configure(|config| config["root"]["path"] = rootfs.to_str().unwrap().into());
    container.create().ok();
    container.start().ok();
    std::fs::remove_dir_all(container.text()).unwrap();
    container.delete().silent();
    assert!(container.beside("seen").exists());
}

#[test]
fn every_step_runs_even_if_an_earlier_one_failed() {
    let container = Container::new();
    container.configure(|config| {
        config["linux"] = serde_json::json!({ "cgroupsPath": format!("/{}", container.id) });
    });
    container.hook("delete", "exit 1");
    container.spec_hook("poststop", "echo one >> stopped; exit 1", |_| {});
    container.spec_hook("poststop", "echo two >> stopped", |_| {});
    container.create().ok();
    container.delete_by_force().ok();
    assert_eq!(container.read("stopped"), "one\ntwo");
    container.left_nothing();
}

#[test]
fn force_ends_a_create_whose_hook_hangs_with_everything_it_started() {
    let container = Container::new();
    container.hook("create", "setsid sleep 100 & sleep 100 & touch hanging; wait");
    let mut create = process::start(container.create_command().stderr(std::process::Stdio::null()));
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    let began = Instant::now();
    container.delete_by_force().silent();
    assert!(began.elapsed() < process::allowed(Duration::from_secs(4)), "containerd allows it 5 s");
    assert_ne!(create.wait(), 0);
    container.left_nothing();
    assert!(!container.pid_file().exists());
}

#[test]
fn force_ends_a_start_whose_hook_hangs_with_everything_it_started() {
    let container = Container::new();
    container.hook("start", "sleep 100 & touch hanging; wait");
    container.create().ok();
    let mut start = process::start(
        container.command(&["start", &container.id]).stderr(std::process::Stdio::null()),
    );
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    container.delete_by_force().silent();
    assert_ne!(start.wait(), 0);
    container.left_nothing();
}

#[test]
fn the_remains_of_a_killed_create_can_be_deleted() {
    let container = killed_in_create();
    assert_eq!(container.status(), "creating");
    container.delete().fails(&["creating", "--force"]);
    container.delete_by_force().silent();
    container.left_nothing();
}

#[test]
fn the_remains_of_a_killed_create_are_taken_over_by_the_next_one() {
    let container = killed_in_create();
    process::wait_for("the hook to be gone", || {
        crate::leftovers::processes(&container.id).is_empty().then_some(())
    });
    container.hook("create", "true");
    container.create().ok();
    container.start().ok();
}

/// A started container with hooks/delete, whose delete was killed while it waited for the proxy to end.
fn killed_in_delete(script: &str) -> Container {
    let container = Container::new();
    container.hook("delete", script);
    container.create().ok();
    process::stop(container.pid());
    container.start().ok();
    let mut delete = process::start(&mut container.command(&["delete", &container.id]));
    let state = container.root().join(&container.id).join("state.json");
    process::wait_for("the delete to have begun", || {
        (!std::fs::read_to_string(&state).unwrap().contains(r#""phase":"inuse""#)).then_some(())
    });
    delete.kill();
    delete.wait();
    container
}

#[test]
fn hooks_that_an_interrupted_delete_has_not_begun_run_at_the_next() {
    for force in [&["delete"][..], &["delete", "--force"]] {
        let container = killed_in_delete("echo deleted >> count");
        let finished = container.call(&[force, &[&container.id]].concat()).silent();
        assert_eq!(finished.warnings(), "");
        assert_eq!(container.read("count"), "deleted");
        container.left_nothing();
    }
}

#[test]
fn hooks_that_an_interrupted_delete_has_begun_are_not_run_again_by_force() {
    let container = Container::stopped();
    container.hook("delete", "echo deleted >> count; touch begun; exec sleep 100");
    let mut delete = process::start(&mut container.command(&["delete", &container.id]));
    process::wait_for("the hook", || container.has("begun").then_some(()));
    delete.kill();
    delete.wait();
    let finished = container.delete_by_force().silent();
    assert!(finished.warnings().contains("not run again"), "{finished}");
    assert_eq!(container.read("count"), "deleted");
    container.left_nothing();
}

#[test]
fn force_ends_a_stopped_proxy_whose_create_was_killed() {
    let container = Container::new();
    let pid = container.path("proxy");
    let script = format!(
        r#"sed 's/.*"pid":\([0-9]*\).*/\1/' > {0}.new; mv {0}.new {0}; exec sleep 100"#,
        pid.display()
    );
    container.spec_hook("createRuntime", &script, |hook| {
        hook["env"] = serde_json::json!(["PATH=/usr/bin:/bin"]);
    });
    let mut create = process::start(&mut container.create_command());
    process::wait_for("the hook", || container.has("proxy").then_some(()));
    process::stop(container.read("proxy").parse().unwrap());
    create.kill();
    create.wait();
    let began = Instant::now();
    container.delete_by_force().silent();
    assert!(began.elapsed() < process::allowed(Duration::from_secs(5)), "containerd allows it 5 s");
    container.left_nothing();
}

fn killed_in_create() -> Container {
    let container = Container::new();
    container.hook("create", "touch hanging; sleep 100");
    let mut create = process::start(&mut container.create_command());
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    create.kill();
    create.wait();
    container
}
