//! The second name: the same file called `balena-extension-manager` is the manager.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::bundle::executable;
use crate::{finished, process};

/// The binary under test with both of its names, beside each other as `make build` puts them.
fn both_names() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("balena-extension-runtime");
    let manager = folder.path().join("balena-extension-manager");
    executable(&runtime, &std::fs::read(process::binary()).unwrap());
    std::fs::hard_link(&runtime, &manager).unwrap();
    (folder, runtime, manager)
}

#[test]
fn a_hard_link_is_the_manager_and_the_first_name_is_not() {
    let (_folder, runtime, manager) = both_names();
    let says = |path: &PathBuf| finished::run(Command::new(path).arg("--version")).ok().out;
    assert!(says(&manager).starts_with("balena-extension-manager version "));
    assert!(says(&runtime).starts_with("balena-extension-runtime version "));
}

#[test]
fn a_symbolic_link_is_the_manager_too() {
    let (folder, runtime, _) = both_names();
    let link = folder.path().join("bin");
    std::fs::create_dir(&link).unwrap();
    let link = link.join("balena-extension-manager");
    std::os::unix::fs::symlink(runtime, &link).unwrap();
    let finished = finished::run(Command::new(link).arg("--version"));
    assert!(finished.ok().out.starts_with("balena-extension-manager version "));
}

#[test]
fn the_name_of_the_file_decides_wherever_it_is_called_from() {
    use std::os::unix::process::CommandExt as _;
    let binary = process::binary();
    for name in
        ["balena-extension-manager", "./balena-extension-manager", "/x/y/balena-extension-manager"]
    {
        let finished = finished::run(Command::new(&binary).arg0(name).arg("--version"));
        assert!(finished.ok().out.starts_with("balena-extension-manager version "), "{name}");
    }
    for name in ["", "x", "balena-extension-manager/x", "balena-extension-manager2"] {
        let finished = finished::run(Command::new(&binary).arg0(name).arg("--version"));
        assert!(finished.ok().out.starts_with("balena-extension-runtime version "), "{name:?}");
    }
}

#[test]
fn its_help_goes_to_standard_output() {
    let (_folder, _, manager) = both_names();
    for words in [&["--help"][..], &["-h"]] {
        let finished = finished::run(Command::new(&manager).args(words)).ok();
        assert!(finished.out.contains("balena-extension-manager"), "{finished}");
        assert_eq!(finished.err, "");
    }
}

#[test]
fn what_it_does_not_know_is_named_with_the_way_to_its_help() {
    let (_folder, _, manager) = both_names();
    finished::run(&mut Command::new(&manager)).fails(&["--help"]);
    finished::run(Command::new(&manager).arg("--frob")).fails(&["--frob", "--help"]);
    finished::run(Command::new(&manager).arg("frob")).fails(&["frob", "--help"]);
}
