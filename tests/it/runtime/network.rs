//! The network namespace: a new one, a joined one, or the caller's. If the proxy were in the host's, Docker
//! would change the host's interfaces and routes.

use serde_json::{Value, json};

use crate::container::Container;
use crate::proc_fs::Process;
use crate::process;

fn with_network(entry: Value) -> Container {
    let container = Container::new();
    container
        .configure(|config| config["linux"] = json!({ "namespaces": [{ "type": "pid" }, entry] }));
    container
}

fn own() -> std::path::PathBuf {
    Process(i32::try_from(std::process::id()).unwrap()).namespace("net")
}

/// A process in another network namespace.
fn elsewhere() -> process::Started {
    let mut command = std::process::Command::new("unshare");
    let started = process::start(command.args(["--net", "sleep", "100"]));
    process::wait_for("another namespace", || {
        (Process(started.pid()).namespace("net") != own()).then_some(())
    });
    started
}

#[test]
fn an_entry_without_a_path_is_a_new_namespace() {
    for entry in [json!({ "type": "network" }), json!({ "type": "network", "path": "" })] {
        let (one, two) = (with_network(entry.clone()), with_network(entry));
        one.create().ok();
        two.create().ok();
        let (one, two) = (Process(one.pid()).namespace("net"), Process(two.pid()).namespace("net"));
        assert!(one != own() && two != own() && one != two);
    }
}

#[test]
fn an_entry_with_a_path_is_joined() {
    let other = elsewhere();
    let path = format!("/proc/{}/ns/net", other.pid());
    let container = with_network(json!({ "type": "network", "path": path }));
    container.create().ok();
    let namespace = Process(container.pid()).namespace("net");
    assert_eq!(namespace, Process(other.pid()).namespace("net"));
    container.start().ok();
}

#[test]
fn no_entry_is_the_callers_namespace() {
    let container = Container::created();
    assert_eq!(Process(container.pid()).namespace("net"), own());
}

#[test]
fn only_the_network_is_unshared() {
    let container = with_network(json!({ "type": "network" }));
    container.create().ok();
    let host = Process(i32::try_from(std::process::id()).unwrap());
    for kind in ["pid", "mnt", "uts", "ipc", "user", "cgroup"] {
        assert_eq!(Process(container.pid()).namespace(kind), host.namespace(kind), "{kind}");
    }
}

#[test]
fn the_namespace_is_there_before_any_hook_of_the_spec() {
    let container = with_network(json!({ "type": "network" }));
    let pid = r#"$(sed 's/.*"pid":\([0-9]*\).*/\1/')"#;
    for list in ["prestart", "createRuntime"] {
        let script = format!(
            "readlink /proc/{pid}/ns/net > {}",
            container.path(list).with_extension("seen").display()
        );
        container.spec_hook(list, &script, |hook| hook["env"] = json!(["PATH=/usr/bin:/bin"]));
    }
    container.create().ok();
    let namespace = Process(container.pid()).namespace("net");
    for list in ["prestart", "createRuntime"] {
        assert_eq!(container.read(&format!("{list}.seen")), namespace.to_str().unwrap(), "{list}");
    }
}

#[test]
fn each_hook_of_the_spec_runs_in_the_namespace_the_spec_says() {
    let container = with_network(json!({ "type": "network" }));
    let lists =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for list in lists {
        let seen = container.path(list).with_extension("seen");
        container.spec_hook(
            list,
            &format!("/bin/readlink /proc/self/ns/net > {}", seen.display()),
            |_| {},
        );
    }
    container.create().ok();
    let inside = Process(container.pid()).namespace("net");
    container.start().ok();
    container.delete().ok();
    for list in lists {
        let expected = match list {
            "createContainer" | "startContainer" => &inside,
            _ => &own(),
        };
        assert_eq!(container.read(&format!("{list}.seen")), expected.to_str().unwrap(), "{list}");
    }
}

#[test]
fn an_image_hook_runs_in_the_hosts_network_namespace() {
    let container = with_network(json!({ "type": "network" }));
    for verb in ["create", "start"] {
        container.hook(verb, &format!("readlink /proc/self/ns/net > {verb}.seen"));
    }
    container.create().ok();
    container.start().ok();
    for verb in ["create", "start"] {
        assert_eq!(container.read(&format!("{verb}.seen")), own().to_str().unwrap());
    }
}

#[test]
fn nothing_holds_the_namespace_when_the_container_has_stopped() {
    let container = with_network(json!({ "type": "network" }));
    container.create().ok();
    let inside = Process(container.pid()).namespace("net");
    container.start().ok();
    process::exit_status(container.pid());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(inside.to_str().unwrap()));
}

#[test]
fn a_path_that_is_not_a_network_namespace_is_named_and_nothing_is_left() {
    for path in ["/none", "/etc/passwd", "/proc/self/ns/mnt", "/"] {
        let container = with_network(json!({ "type": "network", "path": path }));
        container.create().fails(&["network namespace", path]);
        container.left_nothing();
    }
}

#[test]
fn two_entries_are_refused() {
    let container = with_network(json!({ "type": "network" }));
    container.configure(|config| {
        config["linux"]["namespaces"] =
            json!([{ "type": "network" }, { "type": "network", "path": "/x" }]);
    });
    container.create().fails(&["linux.namespaces", "network"]);
    container.left_nothing();
}
