//! Unit, hook, engine snippets and recipe: each given to what will read it.

use crate::{dist, read, run, succeed, top};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const RUNTIME: &str = "/usr/bin/balena-extension-runtime";

#[test]
fn docker_and_containerd_and_podman_learn_the_runtimes_path() {
    let daemon: serde_json::Value =
        serde_json::from_str(&read(&dist("docker/daemon.json"))).unwrap();
    assert_eq!(daemon["runtimes"]["extension"]["path"], RUNTIME);

    let mut containerd = Command::new("containerd");
    containerd.arg("--config").arg(dist("containerd/extension.toml")).args(["config", "dump"]);
    let dump = succeed(&mut containerd);
    for line in [
        "runtimes.extension]",
        "runtime_type = \"io.containerd.runc.v2\"",
        "container_annotations = [\"io.balena.*\"]",
        &format!("BinaryName = \"{RUNTIME}\""),
    ] {
        assert!(dump.contains(line), "containerd does not know {line}:\n{dump}");
    }

    // Podman looks for the file; the one that was built stands in for the installed one.
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("containers.conf");
    let binary = top().join("balena-extension-runtime");
    let text = read(&dist("podman/balena-extension.conf"));
    assert!(text.contains(RUNTIME));
    std::fs::write(&conf, text.replace(RUNTIME, binary.to_str().unwrap())).unwrap();
    let mut podman = Command::new("podman");
    podman.env("CONTAINERS_CONF", &conf).args(["--root"]).arg(folder.path().join("root"));
    podman.arg("--runroot").arg(folder.path().join("run")).args(["--storage-driver", "vfs"]);
    podman.args(["--runtime", "extension", "info", "--format", "{{.Host.OCIRuntime.Path}}"]);
    let (success, path) = run(&mut podman);
    assert!(success && path.contains(binary.to_str().unwrap()), "podman info: {path}");
}

/// Runs the hook for after an update with a program in the manager's place.
fn run_hook(manager: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("balena-extension-manager");
    std::fs::write(&path, manager).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:/usr/bin:/bin", folder.path().display());
    run(Command::new(dist("hooks/after-os-update")).env("PATH", search))
}

#[test]
fn the_hook_for_after_an_update_cleans_up_and_passes_the_verdict_on() {
    let (success, text) = run_hook("#!/bin/sh\necho \"$@\"\n");
    assert!(success);
    assert_eq!(text, "cleanup --stale-os\n");
    assert!(!run_hook("#!/bin/sh\nexit 3\n").0);
    assert!(!run_hook("#!/bin/sh\nexit 1\n").0);
}

#[test]
fn the_recipe_is_that_of_this_version_and_licence() {
    let cargo = read(&top().join("Cargo.toml"));
    let version = cargo.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    let recipe = dist(&format!("yocto/balena-extension-runtime_{}.bb", version.trim_matches('"')));
    let recipe = read(&recipe);
    let sum = succeed(Command::new("md5sum").arg(top().join("LICENSE")));
    let sum = sum.split(' ').next().unwrap();
    assert!(recipe.contains(&format!("file://LICENSE;md5={sum}")), "LICENSE has md5 {sum}");
    assert!(recipe.contains("inherit cargo "));
    // Everything that it installs from the sources is there.
    for word in recipe.split_whitespace().filter_map(|word| word.strip_prefix("${S}/")) {
        let pattern = word.replace("$shell_name", "manager").replace("*.8", "");
        assert!(top().join(&pattern).exists(), "the recipe installs {word}, which is not there");
    }
}
