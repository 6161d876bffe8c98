//! `start ID`: the hook runs, the container stops, the proxy ends with status 0; or it does not.

use crate::container::Container;
use crate::process;

#[test]
fn the_hook_runs_and_the_proxy_ends_with_status_0() {
    let container = Container::new();
    container.hook("start", "touch started");
    container.create().ok();
    assert!(!container.has("started"));
    let pid = container.pid();
    container.start().silent();
    assert!(container.has("started"));
    assert_eq!(process::exit_status(pid), 0);
    assert_eq!(container.status(), "stopped");
}

#[test]
fn an_extension_without_a_start_hook_starts() {
    let container = Container::created();
    let pid = container.pid();
    container.start().silent();
    assert_eq!(process::exit_status(pid), 0);
}

#[test]
fn stopped_is_recorded_before_the_proxy_is_told_to_end() {
    let container = Container::new();
    let binary = process::binary();
    let root = container.root().to_str().unwrap();
    // poststart runs in between: what it is told is "running", what is recorded is "stopped".
    let script = format!("{} --root {root} state {} > recorded", binary.display(), container.id);
    container.spec_hook("poststart", &script, |_| {});
    container.create().ok();
    container.start().ok();
    let recorded: serde_json::Value = serde_json::from_str(&container.read("recorded")).unwrap();
    assert_eq!(recorded["status"], "stopped");
}

#[test]
fn a_failing_hook_fails_the_call_and_stops_the_container() {
    let container = Container::new();
    container.hook("start", "echo 'mount: /run/x: unknown filesystem type' >&2; exit 3");
    container.create().ok();
    let pid = container.pid();
    container
        .start()
        .fails(&["hooks/start exited with status 3: mount: /run/x: unknown filesystem type"]);
    assert!(!process::is_alive(pid), "engines leak a proxy that outlives a failed start");
    assert_eq!(process::exit_status(pid), 128 + 9);
    assert_eq!(container.status(), "stopped");
}

#[test]
fn after_a_failed_start_the_container_can_be_deleted_and_made_again() {
    let container = Container::new();
    container.hook("start", "test -e fixed");
    container.create().ok();
    container.start().fails(&["hooks/start exited with status 1"]);
    container.delete().ok();
    std::fs::write(container.path("fixed"), "").unwrap();
    container.create().ok();
    container.start().ok();
}

#[test]
fn a_container_starts_once() {
    let container = Container::new();
    container.hook("start", "echo started >> count");
    container.create().ok();
    container.start().ok();
    container.start().fails(&["cannot start a container that has stopped"]);
    assert_eq!(container.read("count"), "started");
}

#[test]
fn a_container_whose_proxy_was_gone_before_cannot_be_started() {
    let container = Container::new();
    container.hook("start", "touch started");
    container.create().ok();
    container.kill("KILL").ok();
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
    container.start().fails(&["cannot start a container that has stopped"]);
    assert!(!container.has("started"));
}

#[test]
fn a_proxy_that_dies_under_way_is_not_an_error() {
    let container = Container::new();
    container.hook(
        "start",
        &format!("kill -9 $(cat {}); touch started", container.pid_file().display()),
    );
    container.create().ok();
    container.start().ok();
    assert!(container.has("started"));
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
    assert_eq!(container.status(), "stopped");
}

#[test]
fn config_json_has_no_say_any_more_after_create() {
    let container = Container::new();
    container.label("io.balena.image.kernel-version", "6.1.0");
    container.hook("start", "echo $EXTENSION_IMAGE_KERNEL_VERSION > seen");
    container.create().ok();
    std::fs::write(container.path("config.json"), "not even JSON").unwrap();
    container.start().ok();
    std::fs::remove_file(container.path("config.json")).unwrap();
    container.delete().ok();
    assert_eq!(container.read("seen"), "6.1.0");
}

#[test]
fn a_rootfs_that_has_gone_fails_the_start_and_the_proxy_is_gone() {
    let container = Container::created();
    std::fs::remove_dir_all(container.path("rootfs")).unwrap();
    container.start().fails(&[container.path("rootfs").to_str().unwrap()]);
    assert!(!process::is_alive(container.pid()));
    assert_eq!(container.status(), "stopped");
}

#[test]
fn an_id_is_needed_and_must_be_known() {
    let container = Container::new();
    container.call(&["start"]).fails(&["start", "container id"]);
    container.start().fails(&[crate::finished::UNKNOWN, &container.id]);
}
