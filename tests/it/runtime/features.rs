//! `features`: the supported features, in the structure of runtime-spec's features.md, and no others.

use oci_spec::runtime::{Features, LinuxNamespaceType};

use crate::capture;
use crate::finished;
use crate::programs;

fn features() -> finished::Finished {
    // CRI-O reads both streams together, and Docker passes no global flag.
    let finished =
        capture::run(std::process::Command::new(programs::runtime()).env_clear().arg("features"));
    assert_eq!(finished.err, "");
    finished.ok()
}

#[test]
fn the_features_parse_as_the_specs_own_structure() {
    let features: Features = serde_json::from_str(&features().out).unwrap();
    assert_eq!(features.oci_version_min(), "1.0.0");
    assert!(features.oci_version_max().starts_with("1."), "{}", features.oci_version_max());
}

#[test]
fn every_hook_that_runs_is_listed_and_no_other() {
    let features: Features = serde_json::from_str(&features().out).unwrap();
    let hooks = features.hooks().clone().unwrap();
    let expected =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(hooks, expected);
}

#[test]
fn features_does_not_claim_what_is_not_applied() {
    let features: Features = serde_json::from_str(&features().out).unwrap();
    let linux = features.linux().clone().unwrap();
    assert_eq!(linux.namespaces().clone().unwrap(), [LinuxNamespaceType::Network]);
    assert!(linux.capabilities().as_ref().is_none_or(Vec::is_empty));
    assert_ne!(linux.seccomp().as_ref().and_then(|seccomp| *seccomp.enabled()), Some(true));
    assert_ne!(linux.apparmor().as_ref().and_then(|apparmor| *apparmor.enabled()), Some(true));
    assert_ne!(linux.selinux().as_ref().and_then(|selinux| *selinux.enabled()), Some(true));
    assert!(features.mount_options().as_ref().is_none_or(Vec::is_empty));
    assert_ne!(linux.net_devices().as_ref().and_then(|found| *found.enabled()), Some(true));
}

#[test]
fn the_annotations_name_the_program_and_those_that_let_hooks_run_are_unsafe() {
    let features: Features = serde_json::from_str(&features().out).unwrap();
    let mut names: Vec<String> = features.annotations().clone().unwrap().into_keys().collect();
    names.sort();
    let expected = ["commit", "version"].map(|it| format!("io.balena.extension-runtime.{it}"));
    assert_eq!(names, expected);
    let found = features.potentially_unsafe_config_annotations().clone().unwrap();
    assert_eq!(found, ["io.balena.image."]);
}

#[test]
fn the_features_are_indented_json() {
    assert!(features().out.starts_with("{\n  \""));
}

#[test]
fn an_argument_is_one_too_many() {
    let finished =
        capture::run(std::process::Command::new(programs::runtime()).args(["features", "x"]));
    finished.fails(&["features", "\"x\""]);
}

#[test]
fn an_answer_needs_no_descriptor_of_its_own() {
    let mut limited = std::process::Command::new("prlimit");
    limited.args(["--nofile=3:3", "--"]).arg(programs::runtime()).arg("features");
    assert!(capture::run(&mut limited).ok().out.contains("ociVersionMin"));
    let mut limited = std::process::Command::new("prlimit");
    limited.args(["--nofile=3:3", "--"]).arg(programs::runtime()).arg("frob");
    assert!(capture::run(&mut limited).err.contains("frob"));
}
