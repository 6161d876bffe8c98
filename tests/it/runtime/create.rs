//! `create ID`: the effects of a successful create, and that a failed one has none.

use std::os::unix::fs::MetadataExt as _;

use crate::container::Container;
use crate::process;
use crate::programs;

#[test]
fn the_pid_file_has_the_decimal_pid_and_no_newline() {
    let container = Container::created();
    let bytes = std::fs::read(container.pid_file()).unwrap();
    let expected = container.state()["pid"].to_string();
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[test]
fn the_pid_file_replaces_an_older_one_and_leaves_no_second_name() {
    let container = Container::new();
    let folder = container.beside("pids");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("init.pid");
    std::fs::write(&path, "123456789\n").unwrap();
    let mut command = container.command(&["create", "--bundle", container.text()]);
    container.create_by(command.arg("--pid-file").arg(&path).arg(&container.id)).ok();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), container.state()["pid"].to_string());
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
}

#[test]
fn the_pid_file_is_written_when_all_else_is_done() {
    let container = Container::new();
    container.hook("create", "cat ../init.pid && exit 1; echo hook");
    container.spec_hook("createContainer", "cat ../init.pid && exit 1; exit 0", |_| {});
    container.create().ok();
    assert_eq!(container.printed(), "hook\n");
}

#[test]
fn the_bundle_is_the_working_directory_by_default() {
    let container = Container::new();
    let mut command = container.command(&["create", &container.id]);
    container.create_by(command.current_dir(container.text())).ok();
    assert_eq!(container.state()["bundle"], container.text());
}

#[test]
fn the_bundle_may_be_relative_and_the_flag_short() {
    let container = Container::new();
    let mut command = container.command(&["create", "-b", "./bundle/", &container.id]);
    container.create_by(command.current_dir(container.beside(""))).ok();
    assert_eq!(container.state()["bundle"], container.text());
}

#[test]
fn an_absolute_rootfs_may_lie_anywhere() {
    let container = Container::new();
    let rootfs = container.beside("elsewhere");
    std::fs::rename(container.path("rootfs"), &rootfs).unwrap();
    container.configure(|config| config["root"]["path"] = rootfs.to_str().unwrap().into());
    container.create().ok();
    assert_eq!(container.state()["rootfs"], rootfs.to_str().unwrap());
}

#[test]
fn a_relative_rootfs_may_wander_inside_the_bundle() {
    let container = Container::new();
    container.configure(|config| config["root"]["path"] = "./rootfs/../rootfs".into());
    container.create().ok();
}

#[test]
fn unknown_properties_null_lists_and_newer_values_are_ignored() {
    let container = Container::new();
    container.configure(|config| {
        config["vm"] = serde_json::json!({ "hypervisor": 7 });
        config["mounts"] = serde_json::Value::Null;
        config["hooks"] = serde_json::json!({ "prestart": null });
        config["process"]["capabilities"] = serde_json::json!({ "bounding": ["CAP_OF_TOMORROW"] });
        config["linux"] = serde_json::json!({
            "namespaces": [{ "type": "dreams" }], "seccomp": { "defaultAction": "SCMP_ACT_SHRUG" }
        });
    });
    container.create().ok();
}

#[test]
fn every_version_of_the_first_spec_is_accepted() {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.3.0", "1.99.0-rc.1+x"] {
        let container = Container::new();
        container.configure(|config| config["ociVersion"] = version.into());
        container.create().ok();
    }
}

#[test]
fn the_flags_that_engines_pass_are_accepted() {
    let container = Container::new();
    let (pid_file, bundle) = (
        format!("--pid-file={}", container.pid_file().display()),
        format!("--bundle={}", container.text()),
    );
    let flags = [
        "create",
        &bundle,
        &pid_file,
        "--no-pivot",
        "--no-new-keyring",
        "--preserve-fds",
        "2",
        &container.id,
    ];
    container.create_by(&mut container.command(&flags)).ok();
    assert_eq!(container.state()["pid"].to_string(), container.pid().to_string());
}

#[test]
fn an_extension_without_hooks_is_created_silently() {
    let container = Container::new();
    container.create().silent();
}

#[test]
fn without_a_log_file_nothing_but_the_hooks_is_in_the_containers_log() {
    let container = Container::new();
    container.hook("create", "echo applied");
    let mut command = std::process::Command::new(programs::runtime());
    command.arg("--root").arg(container.root()).args(["create", "-b", container.text()]);
    container.create_by(command.arg(&container.id)).ok();
    assert_eq!((container.printed(), container.complained()), ("applied\n".into(), String::new()));
}

#[test]
fn a_second_create_of_an_id_fails_and_leaves_the_first_untouched() {
    let container = Container::created();
    let (pid, before) = (container.pid(), container.state());
    let error = container.create();
    error.fails(&["container with given ID already exists"]);
    assert_eq!((container.pid(), container.state()), (pid, before));
    assert!(process::is_alive(pid));
}

#[test]
fn the_id_of_a_stopped_container_is_taken_and_a_deleted_id_is_free() {
    let container = Container::stopped();
    container.create().fails(&["container with given ID already exists"]);
    container.delete().ok();
    container.create().ok();
}

#[test]
fn a_create_that_fails_after_the_proxy_was_started_leaves_nothing() {
    let container = Container::new();
    container.configure(|config| {
        config["linux"] = serde_json::json!({ "cgroupsPath": format!("/{}", container.id) })
    });
    container.spec_hook("createContainer", "exit 7", |_| {});
    container.create().fails(&["createContainer", "exited with status 7"]);
    container.left_nothing();
    assert!(!container.pid_file().exists());
}

#[test]
fn a_create_that_fails_keeps_a_pid_file_that_it_did_not_write() {
    let container = Container::new();
    std::fs::write(container.pid_file(), "1").unwrap();
    let inode = std::fs::metadata(container.pid_file()).unwrap().ino();
    container.hook("create", "exit 1");
    container.create().fails(&["hooks/create"]);
    assert_eq!(std::fs::metadata(container.pid_file()).unwrap().ino(), inode);
}

#[test]
fn the_state_is_recorded_before_the_first_hook_runs() {
    let container = Container::new();
    let root = container.root().to_str().unwrap();
    let binary = programs::runtime();
    container.hook(
        "create",
        &format!("{} --root {root} state {} > seen", binary.display(), container.id),
    );
    container.create().ok();
    let seen: serde_json::Value = serde_json::from_str(&container.read("seen")).unwrap();
    assert_eq!(seen["status"], "creating");
}

#[test]
fn the_image_hook_runs_before_the_proxy_and_the_specs_hooks_after_it() {
    let container = Container::new();
    container.hook("create", "echo create >> order; ls /proc > before");
    container.spec_hook(
        "prestart",
        "echo prestart >> order; kill -0 $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')",
        |_| {},
    );
    container.create().ok();
    assert_eq!(container.read("order"), "create\nprestart");
    let pid = container.pid().to_string();
    assert!(!container.read("before").lines().any(|line| line == pid));
}
