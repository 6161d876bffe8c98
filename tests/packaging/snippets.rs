//! The unit, the hook and the engine snippets: each is given to its reader.

use crate::bundle::executable;
use crate::{dist, programs, read, run};
use std::process::Command;

const RUNTIME: &str = "/usr/bin/balena-extension-runtime";

#[test]
fn docker_and_containerd_and_podman_learn_the_runtimes_path() {
    let daemon: serde_json::Value =
        serde_json::from_str(&read(&dist("docker/daemon.json"))).unwrap();
    assert_eq!(daemon["runtimes"]["extension"]["path"], RUNTIME);

    let mut containerd = Command::new("containerd");
    containerd.arg("--config").arg(dist("containerd/extension.toml")).args(["config", "dump"]);
    let dump = run(&mut containerd).ok().text();
    for line in [
        "runtimes.extension]",
        "runtime_type = \"io.containerd.runc.v2\"",
        "container_annotations = [\"io.balena.*\"]",
        &format!("BinaryName = \"{RUNTIME}\""),
    ] {
        assert!(dump.contains(line), "containerd does not know {line}:\n{dump}");
    }

    // The file for the cluster names the same handler, and no other RuntimeClass may.
    let handler = dump.lines().find_map(|line| line.trim().strip_suffix("runtimes.extension]"));
    assert!(handler.is_some());
    let cluster = read(&dist("containerd/runtimeclass.yaml"));
    for line in [
        "handler: extension",
        "expression: \"object.handler == 'extension'\"",
        "expression: \"request.namespace == 'balena-extensions'\"",
        "failurePolicy: Fail",
    ] {
        assert!(cluster.contains(line), "{line}");
    }
    let documents: Vec<&str> = cluster.split("\n---\n").collect();
    let count = |kind: &str| {
        let kind = format!("kind: {kind}");
        documents.iter().filter(|one| one.lines().any(|line| line == kind)).count()
    };
    assert_eq!(count("ValidatingAdmissionPolicy"), 2);
    assert_eq!(count("ValidatingAdmissionPolicyBinding"), 2, "a policy without one does nothing");

    // Podman checks that the file exists, so the built program replaces the installed one.
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("containers.conf");
    let binary = programs::runtime();
    let text = read(&dist("podman/balena-extension.conf"));
    assert!(text.contains(RUNTIME));
    std::fs::write(&conf, text.replace(RUNTIME, binary.to_str().unwrap())).unwrap();
    let mut podman = Command::new("podman");
    podman.env("CONTAINERS_CONF", &conf).args(["--root"]).arg(folder.path().join("root"));
    podman.arg("--runroot").arg(folder.path().join("run")).args(["--storage-driver", "vfs"]);
    podman.args(["--runtime", "extension", "info", "--format", "{{.Host.OCIRuntime.Path}}"]);
    run(&mut podman).ok().says(binary.to_str().unwrap());
}

/// The values of a setting in the boot unit.
fn unit(setting: &str) -> Vec<String> {
    let text = read(&dist("systemd/balena-extension-cleanup.service"));
    let lines = text.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn the_boot_unit_stands_between_engine_and_supervisor_and_cannot_hold_up_a_boot() {
    let after = unit("After");
    for engine in ["balena.service", "balena-engine.service", "docker.service"] {
        assert!(after.iter().any(|it| it == engine), "{after:?}");
    }
    let before = unit("Before");
    assert!(before.iter().any(|it| it == "balena-supervisor.service"), "{before:?}");
    // The unit must not require the units that it is ordered by: without an engine it does nothing.
    for setting in ["Requires", "BindsTo", "Requisite", "RequiredBy", "OnFailure"] {
        assert!(unit(setting).is_empty(), "{setting}");
    }
    assert_eq!(unit("WantedBy"), ["multi-user.target"]);
    assert_eq!(unit("Type"), ["oneshot"]);
    // systemd's limit is longer than the manager's --timeout, which includes the wait for the engine.
    assert_eq!(unit("TimeoutStartSec"), ["12min"]);
    let help = crate::manager(&["cleanup", "--help"]).ok().text();
    assert!(help.contains("[default: 600]"), "{help}");
    // The manager accepts the command line, and only fails because there is no engine.
    let words = unit("ExecStart");
    let (manager, words) = words.split_first().unwrap();
    assert_eq!(manager, "/usr/bin/balena-extension-manager");
    let seconds = |word: &String| if word == "60" { "0".to_owned() } else { word.clone() };
    let words: Vec<String> = words.iter().map(seconds).collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--host", "unix:///nowhere.sock"]);
    let finished = crate::manager(&words).says("/nowhere.sock");
    assert!(!finished.succeeded(), "{finished}");
}

/// Runs the after-update hook with another program as the manager. Returns its status and output.
fn run_hook(manager: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    executable(&folder.path().join("balena-extension-manager"), manager.as_bytes());
    let search = format!("{}:/usr/bin:/bin", folder.path().display());
    let finished = run(Command::new(dist("hooks/after-os-update")).env("PATH", search));
    (finished.code(), finished.out)
}

#[test]
fn the_hook_for_after_an_update_cleans_up_and_passes_the_verdict_on() {
    let (status, text) = run_hook("#!/bin/sh\necho \"$@\"\n");
    assert_eq!((status, text.as_str()), (0, "cleanup --stale-os\n"));
    // 3: refused, because the update can still roll back.
    for status in [1, 3, 4] {
        assert_eq!(run_hook(&format!("#!/bin/sh\nexit {status}\n")).0, status);
    }
}
