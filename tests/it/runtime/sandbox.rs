//! The sandbox container of a Kubernetes pod: it has no labels and no hooks, and its proxy keeps running.

use crate::container::Container;
use crate::process;

fn sandbox() -> Container {
    let container = Container::new();
    container.configure(|config| {
        config["annotations"] =
            serde_json::json!({ "io.kubernetes.cri.container-type": "sandbox" });
    });
    for verb in ["create", "start", "delete"] {
        container.hook(verb, "touch hooked");
    }
    container
}

#[test]
fn a_sandbox_needs_no_labels_and_is_running_after_start() {
    let container = sandbox();
    container.create().silent();
    container.start().silent();
    assert_eq!(container.status(), "running");
    assert_eq!(container.state()["pid"], container.pid());
    assert!(process::is_alive(container.pid()));
}

#[test]
fn none_of_the_images_hooks_runs() {
    let container = sandbox();
    container.create().ok();
    container.start().ok();
    container.kill("TERM").ok();
    assert_eq!(process::exit_status(container.pid()), 0);
    container.delete().silent();
    assert!(!container.has("hooked"));
    container.left_nothing();
}

#[test]
fn a_sandbox_stops_on_a_signal_and_can_only_then_be_deleted() {
    let container = sandbox();
    container.create().ok();
    container.start().ok();
    container.delete().fails(&["running", "--force"]);
    container.kill("KILL").ok();
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
    assert_eq!(container.status(), "stopped");
    container.delete().ok();
}

#[test]
fn force_deletes_it_while_it_runs() {
    let container = sandbox();
    container.create().ok();
    container.start().ok();
    container.delete_by_force().ok();
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
    container.left_nothing();
}

#[test]
fn a_sandbox_starts_once() {
    let container = sandbox();
    container.create().ok();
    container.start().ok();
    container.start().fails(&["cannot start an already running container"]);
    assert_eq!(container.status(), "running");
}

#[test]
fn the_hooks_of_the_spec_run_for_it_as_for_any_container() {
    let container = sandbox();
    let order = container.path("order");
    for list in
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        container.spec_hook(list, &format!("echo {list} >> {}", order.display()), |_| {});
    }
    container.create().ok();
    container.start().ok();
    container.delete_by_force().ok();
    let expected = "prestart createRuntime createContainer startContainer poststart poststop";
    assert_eq!(container.read("order").replace('\n', " "), expected);
}

#[test]
fn another_container_of_a_pod_is_an_ordinary_one() {
    let container = sandbox();
    container.label("io.kubernetes.cri.container-type", "container");
    container.create().fails(&["missing required label io.balena.image.class"]);
    container.left_nothing();
}
