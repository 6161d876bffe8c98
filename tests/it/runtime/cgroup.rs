//! `linux.cgroupsPath`: a leaf cgroup for the proxy in every hierarchy, removed at delete. If the proxy
//! remained in the engine's cgroup, `docker stats` would show the engine.

use serde_json::json;

use crate::container::Container;
use crate::leftovers::cgroups;
use crate::proc_fs::Process;

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

/// Makes the leaf in the first hierarchy before create.
fn made_beforehand(container: &Container) -> std::path::PathBuf {
    // The proxy of another container shows where the leaves are.
    container.create().ok();
    let leaf = cgroups(&container.id).into_iter().next().expect("a hierarchy");
    container.delete_by_force().ok();
    std::fs::create_dir(&leaf).unwrap();
    leaf
}

#[test]
fn a_leaf_that_existed_before_is_kept_when_create_fails() {
    let container = with_cgroup();
    let leaf = made_beforehand(&container);
    container.hook("create", "exit 3");
    container.create().fails(&["hooks/create"]);
    assert_eq!(cgroups(&container.id), std::slice::from_ref(&leaf));
    // Again with the proxy in it already, and with another process in it.
    let mut other = crate::process::start(std::process::Command::new("sleep").arg("100"));
    std::fs::write(leaf.join("cgroup.procs"), other.pid().to_string()).unwrap();
    container.hook("create", "true");
    container.spec_hook("prestart", "exit 4", |_| {});
    let error = container.create().error();
    assert!(error.ends_with("exited with status 4"), "{error}");
    assert_eq!(cgroups(&container.id), std::slice::from_ref(&leaf));
    other.kill();
    other.wait();
    std::fs::remove_dir(leaf).unwrap();
}

#[test]
fn a_leaf_that_existed_before_is_kept_at_delete() {
    for force in [&["delete"][..], &["delete", "--force"]] {
        let container = with_cgroup();
        let leaf = made_beforehand(&container);
        container.create().ok();
        container.start().ok();
        let finished = container.call(&[force, &[&container.id]].concat()).silent();
        assert_eq!(finished.warnings(), "");
        assert_eq!(cgroups(&container.id), std::slice::from_ref(&leaf));
        std::fs::remove_dir(leaf).unwrap();
    }
}

/// A container whose create was killed with the proxy in its leaf.
fn killed_with_a_cgroup() -> Container {
    let container = with_cgroup();
    let script = format!("touch {}; exec /bin/sleep 100", container.path("hanging").display());
    container.spec_hook("createContainer", &script, |hook| {
        hook["env"] = json!(["PATH=/usr/bin:/bin"]);
    });
    let mut create = crate::process::start(&mut container.create_command());
    crate::process::wait_for("the hook", || container.has("hanging").then_some(()));
    create.kill();
    create.wait();
    crate::process::wait_for("the hook to be gone", || {
        crate::leftovers::processes(&container.id).is_empty().then_some(())
    });
    container.configure(|config| config["hooks"] = json!({}));
    container
}

#[test]
fn a_leaf_that_a_killed_create_made_is_the_next_ones_even_if_it_cannot_be_removed_at_once() {
    let container = killed_with_a_cgroup();
    let leaf = cgroups(&container.id).into_iter().next().expect("a hierarchy");
    let mut other = crate::process::start(std::process::Command::new("sleep").arg("100"));
    std::fs::write(leaf.join("cgroup.procs"), other.pid().to_string()).unwrap();
    let finished = container.create().ok();
    assert!(finished.warnings().contains("remove the cgroup"), "{finished}");
    other.kill();
    other.wait();
    container.start().ok();
    container.delete().ok();
    assert!(cgroups(&container.id).is_empty());
}

#[test]
fn the_remains_of_a_killed_create_are_removed_by_force() {
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
fn a_leaf_that_is_removed_already_is_not_an_error() {
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
    // The shim's `delete --force` does not pass the flag.
    container.delete_by_force().ok();
    assert!(cgroups(&scope).is_empty());
}

#[test]
fn without_a_path_the_proxy_remains_in_the_cgroup_of_its_caller() {
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
