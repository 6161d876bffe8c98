//! The two programs, told apart: each has its own name, and the runtime is never the manager.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::{finished, process};

/// Until they were two programs, the manager was a link to the runtime, which an update may have left.
#[test]
fn a_link_from_the_managers_name_to_the_runtime_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("balena-extension-manager");
    std::os::unix::fs::symlink(process::binary(), &link).unwrap();
    for words in [&[][..], &["--version"], &["cleanup"], &["status"], &["list"], &["features"]] {
        let finished = finished::run(Command::new(&link).args(words));
        finished.fails(&["balena-extension-manager is a separate program", "install it"]);
    }
    for name in ["balena-extension-manager", "./balena-extension-manager"] {
        let mut call = Command::new(process::binary());
        finished::run(call.arg0(name).arg("features")).fails(&["install it"]);
    }
}

#[test]
fn under_any_other_name_the_runtime_is_the_runtime_and_the_manager_the_manager() {
    for name in ["", "x", "balena-extension-manager/x", "balena-extension-manager2"] {
        let finished = finished::run(Command::new(process::binary()).arg0(name).arg("--version"));
        assert!(finished.ok().out.starts_with("balena-extension-runtime version "), "{name:?}");
    }
    for name in ["", "x", "balena-extension-manager", "balena-extension-runtime"] {
        let finished = finished::run(Command::new(process::manager()).arg0(name).arg("--version"));
        assert!(finished.ok().out.starts_with("balena-extension-manager version "), "{name:?}");
    }
}

#[test]
fn the_help_of_the_manager_goes_to_standard_output() {
    for word in ["--help", "-h"] {
        let finished = finished::run(Command::new(process::manager()).arg(word)).ok();
        assert!(finished.out.contains("balena-extension-manager"), "{finished}");
        assert_eq!(finished.err, "");
    }
}

#[test]
fn what_the_manager_does_not_know_is_named_with_the_way_to_its_help() {
    let manager = process::manager();
    finished::run(&mut Command::new(&manager)).fails(&["--help"]);
    finished::run(Command::new(&manager).arg("--frob")).fails(&["--frob", "--help"]);
    finished::run(Command::new(&manager).arg("frob")).fails(&["frob", "--help"]);
}
