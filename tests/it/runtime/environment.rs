//! The environment of an image's hook: exactly that of the contract, and nothing from the caller.

use serde_json::json;

use crate::bundle::executable;
use crate::container::Container;
use crate::proc_fs::{signals, strings};
use crate::process;

const VERBS: [&str; 3] = ["create", "start", "delete"];

/// Makes each hook copy its environment before its shell has changed anything.
fn recording() -> Container {
    let container = Container::new();
    for verb in VERBS {
        container.hook(verb, &format!("cat /proc/$$/environ > {verb}.environ"));
    }
    container
}

fn live(container: &Container) {
    container.create().ok();
    container.start().ok();
    container.delete().ok();
}

fn environment(container: &Container, verb: &str) -> Vec<String> {
    strings(&std::fs::read(container.path(&format!("{verb}.environ"))).unwrap())
}

#[test]
fn the_environment_is_the_path_the_rootfs_the_labels_and_the_volumes_in_this_order() {
    let container = recording();
    container.configure(|config| {
        config["annotations"] = json!({
            "io.balena.image.requires-reboot": "1",
            "io.balena.image.kernel-abi-id": "00ff",
            "io.balena.image.class": "overlay",
            "io.balena.image.a": "with space\nand line = 'quoted'",
            "io.balena.image.empty": "",
            "io.balena.update.requires-reboot": "1",
            "io.balena.service-name": "no",
            "org.example": "no",
        });
        config["mounts"] = json!([
            { "destination": "/var/lib/some-thing", "source": "/volumes/b", "type": "bind" },
            { "destination": "/boot", "source": "/volumes/a", "options": ["rbind"] },
            { "destination": "/", "source": "/no" },
            { "destination": "relative", "source": "/no" },
            { "destination": "/proc", "source": "proc", "type": "proc" },
        ]);
    });
    live(&container);
    let expected = [
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        &format!("EXTENSION_ROOTFS={}", container.path("rootfs").display()),
        "EXTENSION_IMAGE_A=with space\nand line = 'quoted'",
        "EXTENSION_IMAGE_CLASS=overlay",
        "EXTENSION_IMAGE_EMPTY=",
        "EXTENSION_IMAGE_KERNEL_ABI_ID=00ff",
        "EXTENSION_IMAGE_REQUIRES_REBOOT=1",
        "EXTENSION_VOLUME_BOOT=/volumes/a",
        "EXTENSION_VOLUME_PROC=proc",
        "EXTENSION_VOLUME_VAR_LIB_SOME_THING=/volumes/b",
    ];
    for verb in VERBS {
        assert_eq!(environment(&container, verb), expected, "{verb}");
    }
}

#[test]
fn nothing_of_the_callers_environment_reaches_a_hook() {
    let container = recording();
    let secret = |mut command: std::process::Command| {
        command.env("SECRET", "1").env("LD_PRELOAD", "/none.so").env("PATH", "/none");
        command.env("EXTENSION_IMAGE_FORGED", "1").env("NOTIFY_SOCKET", "/none");
        command
    };
    container.create_by(&mut secret(container.create_command())).ok();
    for verb in ["start", "delete"] {
        container.finish(&mut secret(container.command(&[verb, &container.id]))).ok();
    }
    let expected = [
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        &format!("EXTENSION_ROOTFS={}", container.path("rootfs").display()),
        "EXTENSION_IMAGE_CLASS=overlay",
    ];
    for verb in VERBS {
        assert_eq!(environment(&container, verb), expected, "{verb}");
    }
}

#[test]
fn a_relative_rootfs_is_handed_over_absolute() {
    let container = recording();
    container.configure(|config| config["root"]["path"] = "./rootfs/".into());
    let mut command = container.command(&["create", "-b", ".", &container.id]);
    container.create_by(command.current_dir(container.text())).ok();
    let rootfs = format!("EXTENSION_ROOTFS={}", container.path("rootfs").display());
    assert_eq!(environment(&container, "create")[1], rootfs);
}

/// Starts a verb through a caller that is as hostile as engines get: blocked and ignored signals, a strict
/// umask, descriptors 3 to 9 open, a pipe on standard input, another working directory.
fn hostile(command: &std::process::Command) -> std::process::Command {
    let script = r#"umask 077; cd /; exec "$@" 3</etc/passwd 4</etc/passwd 5</etc/passwd \
        6</etc/passwd 7</etc/passwd 8</etc/passwd 9</etc/passwd"#;
    let mut wrapped = std::process::Command::new("sh");
    wrapped.args([
        "-c",
        script,
        "sh",
        "env",
        "--block-signal=USR1,CHLD,TERM",
        "--ignore-signal=PIPE,HUP,CHLD",
    ]);
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
}

fn live_among_hostiles(container: &Container) {
    container.create_by(&mut hostile(&container.create_command())).ok();
    for verb in ["start", "delete"] {
        container.finish(&mut hostile(&container.command(&[verb, &container.id]))).ok();
    }
}

#[test]
fn a_hook_reads_nothing_and_stands_in_the_bundle() {
    let container = Container::new();
    for verb in VERBS {
        container.hook(verb, &format!("(readlink /proc/$$/fd/0; pwd -P) > {verb}.seen"));
    }
    live_among_hostiles(&container);
    let expected = format!("/dev/null\n{}", container.path("").canonicalize().unwrap().display());
    for verb in VERBS {
        assert_eq!(container.read(&format!("{verb}.seen")), expected, "{verb}");
    }
}

#[test]
fn a_hook_has_no_descriptor_but_its_streams() {
    let container = Container::new();
    for verb in VERBS {
        container.hook(verb, &format!("(ls -l /proc/$$/fd > {verb}.seen); true"));
    }
    live_among_hostiles(&container);
    for verb in VERBS {
        let seen = container.read(&format!("{verb}.seen"));
        let links = seen.lines().filter_map(|line| line.split_once(" -> "));
        // The shell has the script itself open.
        let links = links.filter(|(_, target)| !target.ends_with(&format!("hooks/{verb}")));
        let numbers: Vec<&str> = links.map(|(left, _)| left.rsplit(' ').next().unwrap()).collect();
        assert_eq!(numbers, ["0", "1", "2"], "{verb}: {seen}");
    }
}

#[test]
fn a_hook_has_a_plain_umask_a_session_of_its_own_and_all_signals() {
    let container = Container::new();
    for verb in VERBS {
        let script = "(umask; cut -d' ' -f5,6 /proc/$$/stat | sed s/$$/own/g; grep -E 'Sig(Blk|Ign)' /proc/$$/status)";
        container.hook(verb, &format!("{script} > {verb}.seen"));
    }
    live_among_hostiles(&container);
    for verb in VERBS {
        let seen = container.read(&format!("{verb}.seen"));
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines[..2], ["0022", "own own"], "{verb}");
        for line in &lines[2..] {
            let (name, set) = line.split_once(":\t").unwrap();
            assert_eq!(signals(set), 0, "{verb}: {name}");
        }
    }
}

/// Engines protect themselves from the kernel's OOM killer, and the runtime inherits that. Lowering the value
/// needs CAP_SYS_RESOURCE. Without it, the hook has the test's value, which is not negative either.
#[test]
fn no_hook_inherits_the_engines_protection_from_the_oom_killer() {
    for (engine, expected) in [("-900", "0"), ("300", "300")] {
        let container = Container::new();
        let record = |name: &str| format!("cat /proc/$$/oom_score_adj > {name}.seen");
        VERBS.iter().for_each(|verb| container.hook(verb, &record(verb)));
        container.spec_hook("prestart", &record("prestart"), |_| {});
        let protected = |command: std::process::Command| {
            let mut wrapped = std::process::Command::new("sh");
            let script = format!("echo {engine} 2>/dev/null >/proc/$$/oom_score_adj; exec \"$@\"");
            wrapped.args(["-c", &script, "sh"]);
            wrapped.arg(command.get_program()).args(command.get_args());
            wrapped
        };
        container.create_by(&mut protected(container.create_command())).ok();
        for verb in ["start", "delete"] {
            container.finish(&mut protected(container.command(&[verb, &container.id]))).ok();
        }
        for name in VERBS.iter().chain(&["prestart"]) {
            assert_eq!(container.read(&format!("{name}.seen")), expected, "{name} of {engine}");
        }
    }
}

#[test]
fn a_hook_is_started_without_arguments_as_root() {
    let container = Container::new();
    for verb in VERBS {
        container.hook(verb, &format!("echo $# $0 $(id -u) > {verb}.seen"));
    }
    live(&container);
    for verb in VERBS {
        let path = container.path("rootfs/hooks").join(verb);
        assert_eq!(container.read(&format!("{verb}.seen")), format!("0 {} 0", path.display()));
    }
}

#[test]
fn hooks_run_on_the_host_and_not_in_a_namespace() {
    let container = Container::new();
    container.configure(|config| {
        config["linux"] = json!({ "namespaces": [{ "type": "network" }, { "type": "pid" }, { "type": "mount" }] });
    });
    for verb in VERBS {
        container.hook(
            verb,
            &format!(
                "for n in net pid mnt uts ipc; do readlink /proc/$$/ns/$n; done > {verb}.seen"
            ),
        );
    }
    live(&container);
    let own = crate::proc_fs::Process(i32::try_from(std::process::id()).unwrap());
    let host: Vec<String> = ["net", "pid", "mnt", "uts", "ipc"]
        .iter()
        .map(|kind| own.namespace(kind).to_str().unwrap().to_owned())
        .collect();
    for verb in VERBS {
        assert_eq!(container.read(&format!("{verb}.seen")), host.join("\n"), "{verb}");
    }
}

#[test]
fn a_hook_that_is_a_link_is_resolved_as_if_the_rootfs_were_the_root() {
    for target in ["/tools/apply", "../tools/apply", "../../../../../../../../tools/apply"] {
        let container = Container::new();
        std::fs::create_dir(container.path("rootfs/tools")).unwrap();
        executable(&container.path("rootfs/tools/apply"), b"#!/bin/sh\ntouch applied\n");
        std::os::unix::fs::symlink(target, container.path("rootfs/hooks/create")).unwrap();
        container.create().ok();
        assert!(container.has("applied"), "{target}");
    }
}

#[test]
fn a_hooks_directory_that_is_a_link_is_resolved_inside_the_rootfs_too() {
    let container = Container::new();
    std::fs::remove_dir(container.path("rootfs/hooks")).unwrap();
    std::fs::create_dir(container.path("rootfs/real")).unwrap();
    executable(&container.path("rootfs/real/create"), b"#!/bin/sh\ntouch applied\n");
    std::os::unix::fs::symlink("/real", container.path("rootfs/hooks")).unwrap();
    container.create().ok();
    assert!(container.has("applied"));
}

#[test]
fn a_link_out_of_the_rootfs_is_never_followed() {
    let container = Container::new();
    let outside = container.path("outside");
    executable(&outside, b"#!/bin/sh\ntouch escaped\n");
    std::os::unix::fs::symlink(&outside, container.path("rootfs/hooks/create")).unwrap();
    container.create().fails(&["hooks/create"]);
    assert!(!container.has("escaped"));
    container.left_nothing();
}

#[test]
fn a_hook_may_be_a_program() {
    let container = Container::new();
    container.hook_file("create", &std::fs::read("/bin/true").unwrap());
    container.create().ok();
    container.hook_file("start", &std::fs::read("/bin/false").unwrap());
    container.start().fails(&["hooks/start exited with status 1"]);
    assert!(!process::is_alive(container.pid()));
}
