//! `linux.cgroupsPath`: a leaf cgroup for the proxy in every hierarchy, removed at delete. A proxy left
//! in the engine's cgroup would make `docker stats` show the engine.

use serde_json::json;

use crate::container::Container;
use crate::leftovers::cgroups;
use crate::seen::Process;

fn with_cgroup() -> Container {
    let container = Container::new();
    container.configure(|config| {
        config["linux"] = json!({ "cgroupsPath": format!("/{}", container.id) })
    });
    container
}

#[test]
fn the_proxy_is_in_its_leaf_wherever_there_is_one() {
    let container = with_cgroup();
    container.create().ok();
    let made = cgroups(&container.id);
    assert!(!made.is_empty(), "no cgroup was made");
    let pid = container.pid().to_string();
    for cgroup in made {
        assert_eq!(std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().trim(), pid);
    }
    let own = format!("/{}", container.id);
    assert!(Process(container.pid()).cgroups().contains(&own));
}

#[test]
fn delete_removes_it() {
    let container = with_cgroup();
    container.create().ok();
    container.start().ok();
    container.delete().ok();
    assert!(cgroups(&container.id).is_empty());
}

#[test]
fn delete_by_force_removes_it() {
    let container = with_cgroup();
    container.create().ok();
    container.delete_by_force().ok();
    assert!(cgroups(&container.id).is_empty());
}

#[test]
fn a_create_that_fails_removes_it() {
    let container = with_cgroup();
    container.spec_hook("prestart", "exit 1", |_| {});
    container.create().fails(&["prestart"]);
    assert!(cgroups(&container.id).is_empty());
}

#[test]
fn what_a_killed_create_left_is_removed_by_force() {
    let container = with_cgroup();
    container.spec_hook(
        "createContainer",
        &format!("touch {}; /bin/sleep 100", container.path("hanging").display()),
        |hook| {
            hook["env"] = json!(["PATH=/usr/bin:/bin"]);
        },
    );
    let mut create = crate::process::start(&mut container.create_command());
    crate::process::wait_for("the hook", || container.has("hanging").then_some(()));
    create.kill();
    create.wait();
    container.delete_by_force().ok();
    assert!(cgroups(&container.id).is_empty());
}

#[test]
fn one_that_is_gone_already_is_no_obstacle() {
    let container = with_cgroup();
    container.create().ok();
    container.start().ok();
    crate::process::exit_status(container.pid());
    for cgroup in cgroups(&container.id) {
        std::fs::remove_dir(cgroup).unwrap();
    }
    assert_eq!(container.delete().silent().warnings(), "");
}

#[test]
fn the_form_of_systemd_is_understood() {
    let container = Container::new();
    let path = format!("-.slice:it:{}", container.id);
    container.configure(|config| config["linux"] = json!({ "cgroupsPath": path }));
    let mut command =
        container.command(&["--systemd-cgroup", "create", "-b", container.text(), &container.id]);
    container.create_by(&mut command).ok();
    let scope = format!("it-{}.scope", container.id);
    assert!(!cgroups(&scope).is_empty());
    // The shim's own `delete --force` does not pass the flag.
    container.delete_by_force().ok();
    assert!(cgroups(&scope).is_empty());
}

#[test]
fn without_a_path_the_proxy_stays_where_its_caller_is() {
    let container = Container::created();
    let own = Process(i32::try_from(std::process::id()).unwrap());
    assert_eq!(Process(container.pid()).cgroups(), own.cgroups());
}

#[test]
fn a_path_that_leaves_the_hierarchy_is_refused() {
    for path in ["/../it-escaped", "a/../../it-escaped", "/", "wrong:docker:x"] {
        let container = Container::new();
        container.configure(|config| config["linux"] = json!({ "cgroupsPath": path }));
        container.create().fails(&["linux.cgroupsPath", path]);
        container.left_nothing();
    }
}
