//! An image with its own kernel, and with a label that is not an ABI, is refused: start succeeds, nothing is applied,
//! and the container ends with status 1.

use std::os::unix::fs::symlink;

use crate::container::Container;
use crate::process;

const LABEL: &str = "io.balena.image.kernel-abi-id";
const REASON: &str = r#"refused: the image brings its own kernel (the file "vmlinuz" in /boot"#;

/// A container whose hooks note that they ran.
fn with_hooks() -> Container {
    let container = Container::new();
    for verb in ["create", "start", "delete"] {
        container.hook(verb, &format!("echo {verb} >> ran"));
    }
    std::fs::create_dir(container.path("rootfs/boot")).unwrap();
    container
}

/// A container whose image has a kernel and the label.
fn with_a_kernel() -> Container {
    let container = with_hooks();
    container.label(LABEL, "not an ABI");
    std::fs::write(container.path("rootfs/boot/vmlinuz"), "").unwrap();
    container
}

#[test]
fn start_succeeds_without_its_hook_and_the_proxy_ends_with_status_1() {
    let container = with_a_kernel();
    container.create().ok();
    let finished = container.start().silent();
    assert!(finished.warnings().contains(REASON), "{finished}");
    assert!(container.complained().contains(REASON), "docker logs: {}", container.complained());
    assert_eq!(process::exit_status(container.pid()), 1);
    assert_eq!(container.status(), "stopped");
    container.start().fails(&["cannot start a container that has stopped"]);
    container.delete().silent();
    assert_eq!(container.read("ran"), "create\ndelete", "what hooks/create did is undone");
    container.left_nothing();
}

#[test]
fn the_deploy_record_has_the_reason() {
    let container = with_a_kernel();
    container.create().ok();
    container.start().ok();
    let path = format!("/run/balena-extension-runtime-deploys/{}.json", container.id);
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let steps = record["steps"].as_array().unwrap();
    let start = steps.iter().find(|step| step["verb"] == "start").unwrap();
    assert!(start["refused"].as_str().unwrap().contains(r#""vmlinuz" in /boot"#), "{start}");
    assert!(start["error"].is_null(), "{start}");
}

#[test]
fn only_the_label_with_a_regular_file_is_a_kernel() {
    let label: fn(&Container) = |container| container.label(LABEL, &"ab".repeat(32));
    let kernel = |container: &Container| {
        std::fs::write(container.path("rootfs/boot/vmlinuz"), "").unwrap();
    };
    let cases: [&dyn Fn(&Container); 5] = [
        &label,
        &kernel,
        &|container| {
            kernel(container);
            container.label(LABEL, " ");
        },
        &|container| {
            label(container);
            std::fs::remove_dir(container.path("rootfs/boot")).unwrap();
        },
        &|container| {
            label(container);
            symlink("/hooks/start", container.path("rootfs/boot/vmlinuz")).unwrap();
            std::fs::create_dir(container.path("rootfs/boot/folder")).unwrap();
            std::fs::write(container.path("rootfs/boot/folder/vmlinuz"), "").unwrap();
        },
    ];
    for (number, case) in cases.iter().enumerate() {
        let container = with_hooks();
        case(&container);
        container.create().ok();
        container.start().silent();
        assert_eq!(process::exit_status(container.pid()), 0, "case {number}");
        assert_eq!(container.read("ran"), "create\nstart", "case {number}");
    }
}

#[test]
fn a_boot_folder_that_cannot_be_listed_fails_the_create() {
    let container = with_hooks();
    container.label(LABEL, &"ab".repeat(32));
    std::fs::remove_dir(container.path("rootfs/boot")).unwrap();
    for target in ["boot", "/nowhere", "/hooks/start"] {
        symlink(target, container.path("rootfs/boot")).unwrap();
        let finished = container.create();
        finished.fails(&["cannot determine whether the image brings a kernel", "/boot"]);
        std::fs::remove_file(container.path("rootfs/boot")).unwrap();
    }
    assert!(!container.has("ran"));
    container.left_nothing();
}

#[test]
fn a_delete_after_a_killed_start_marks_the_proxy_as_refused() {
    let container = with_a_kernel();
    container.create().ok();
    process::stop(container.pid());
    let mut start = process::start(&mut container.command(&["start", &container.id]));
    process::wait_for("the state to be stopped", || {
        (container.status() == "running").then_some(())
    });
    start.kill();
    start.wait();
    let mut delete = process::start(&mut container.command(&["delete", &container.id]));
    process::signal(container.pid(), rustix::process::Signal::CONT);
    assert_eq!(delete.wait(), 0);
    assert_eq!(process::exit_status(container.pid()), 1);
    container.left_nothing();
}

#[test]
fn hooks_of_the_spec_after_the_start_do_not_run() {
    let container = with_a_kernel();
    container.spec_hook("poststart", "/bin/touch after", |_| {});
    container.spec_hook("poststop", "/bin/touch last", |_| {});
    container.create().ok();
    container.start().ok();
    container.delete().ok();
    assert!(!container.has("after") && container.has("last"));
}

#[test]
fn a_run_fails_with_the_reason_and_leaves_nothing() {
    let container = with_a_kernel();
    let finished = container.call(&["run", "-b", container.text(), &container.id]);
    assert!(finished.code() == 1 && finished.err.contains("vmlinuz"), "{finished}");
    assert_eq!(container.read("ran"), "create\ndelete");
    container.left_nothing();
}
