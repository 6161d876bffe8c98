//! `start ID`: the hook runs, the container stops and the proxy ends with status 0, or start fails.

use std::time::{Duration, Instant};

use crate::container::Container;
use crate::process::{self, STOP};

const PATH: [&str; 1] = ["PATH=/usr/bin:/bin"];

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
fn the_proxy_has_ended_when_start_returns() {
    let container = Container::new();
    // It needs some time to end, as under load: a kill of a suspended process waits until it is continued.
    let suspend = format!("set $(cat {}); {STOP}", container.pid_file().display());
    container.spec_hook("poststart", &suspend, |hook| hook["env"] = PATH.into());
    container.create().ok();
    let pid = container.pid();
    let mut start = process::start(&mut container.command(&["start", &container.id]));
    process::wait_for("the suspended proxy to have its signal", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        (u64::from_str_radix(pending.trim(), 16) != Ok(0)).then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(start.runs() && process::is_alive(pid));
    process::signal(pid, rustix::process::Signal::CONT);
    assert_eq!(start.wait(), 0);
    assert!(!process::is_alive(pid));
    assert_eq!(container.status(), "stopped");
}

#[test]
fn a_proxy_that_does_not_end_is_a_warning_and_the_container_is_running() {
    let container = Container::created();
    process::stop(container.pid());
    let begun = Instant::now();
    let finished = container.start().silent();
    let limits = Duration::from_secs(2)..process::allowed(Duration::from_secs(10));
    assert!(limits.contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let pid = container.pid();
    assert!(finished.warnings().contains(&format!("the proxy {pid} ")), "{finished}");
    is_running(&container);
    container.start().fails(&["cannot start an already running container"]);
    container.kill("0").silent();
    process::signal(pid, rustix::process::Signal::CONT);
    process::exit_status(pid);
    assert_eq!(container.status(), "stopped");
}

#[test]
fn between_its_last_steps_the_container_is_running() {
    let container = Container::new();
    container.spec_hook("poststart", "while ! test -e go; do /bin/sleep 0.01; done", |_| {});
    container.create().ok();
    let mut start = process::start(&mut container.command(&["start", &container.id]));
    process::wait_for("the state to be stopped", || {
        (container.status() != "created").then_some(())
    });
    is_running(&container);
    container.start().fails(&["busy"]);
    container.kill("TERM").silent();
    assert_eq!(process::exit_status(container.pid()), 0);
    assert_eq!(container.status(), "stopped");
    container.kill("TERM").fails(&["container not running"]);
    std::fs::write(container.path("go"), "").unwrap();
    assert_eq!(start.wait(), 0, "a proxy that dies under way is not an error");
}

#[test]
fn a_plain_delete_ends_the_proxy_of_a_start_that_was_killed_at_the_last_step() {
    let container = Container::new();
    container.spec_hook("poststart", "/bin/touch late; /bin/sleep 1000", |_| {});
    container.create().ok();
    let mut start = process::start(&mut container.command(&["start", &container.id]));
    process::wait_for("the hook", || container.has("late").then_some(()));
    start.kill();
    start.wait();
    is_running(&container);
    container.delete().silent();
    assert_eq!(process::exit_status(container.pid()), 0, "as it was to end");
    container.left_nothing();
}

/// The answers of all queries about a container with a live proxy.
#[track_caller]
fn is_running(container: &Container) {
    let (pid, state) = (container.pid(), container.state());
    assert_eq!((&state["status"], &state["pid"]), (&"running".into(), &pid.into()));
    assert_eq!(container.call(&["list", "--format", "json"]).ok().json()[0], state);
    let pids = container.call(&["ps", "--format", "json", &container.id]).ok().json();
    assert_eq!(pids, serde_json::json!([pid]));
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
fn a_container_whose_proxy_has_ended_cannot_be_started() {
    let container = Container::new();
    container.hook("start", "touch started");
    container.create().ok();
    container.kill("KILL").ok();
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
    container.start().fails(&["cannot start a container that has stopped"]);
    assert!(!container.has("started"));
}

#[test]
fn a_proxy_that_dies_meanwhile_is_not_an_error() {
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
fn a_missing_rootfs_fails_the_start_and_ends_the_proxy() {
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
