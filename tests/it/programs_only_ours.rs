//! The two programs: each is itself whatever it is called, and the runtime, which engines start several
//! times for each container, has no engine's client, command line parser, archive or hash in it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::capture;
use crate::programs;

/// Texts and tables that only one crate or one part of the library brings into a program. Both programs
/// are stripped, so they have no names of functions to look for.
const ONLY_IN_THE_MANAGER: [(&str, &[u8]); 6] = [
    ("clap", b"possible values"),
    ("ureq, the HTTP client,", b"transfer-encoding"),
    ("flate2, which inflates,", b"corrupt deflate stream"),
    ("ruzstd", b"frame_content_size"),
    // The first constants of SHA-256 (FIPS 180-4, 4.2.2), as a little-endian machine has them.
    ("sha2", &[0x98, 0x2f, 0x8a, 0x42, 0x91, 0x44, 0x37, 0x71]),
    ("the reader of tar archives", b"ustar"),
];

fn has(program: &[u8], wanted: &[u8]) -> bool {
    program.windows(wanted.len()).any(|seen| seen == wanted)
}

#[test]
fn the_runtime_has_nothing_in_it_that_only_the_manager_needs() {
    let [runtime, manager] =
        [programs::runtime(), programs::manager()].map(|path| std::fs::read(path).unwrap());
    for (what, bytes) in ONLY_IN_THE_MANAGER {
        assert!(has(&manager, bytes), "{what} cannot be found in the manager, where it is");
        assert!(!has(&runtime, bytes), "{what} is in the runtime");
    }
}

/// Until they were two programs, the manager was a link to the runtime, which an update may have left.
#[test]
fn a_link_from_the_managers_name_to_the_runtime_reports_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("balena-extension-manager");
    std::os::unix::fs::symlink(programs::runtime(), &link).unwrap();
    for words in [&[][..], &["--version"], &["cleanup"], &["status"], &["list"], &["features"]] {
        let finished = capture::run(Command::new(&link).args(words));
        finished.fails(&["balena-extension-manager is a separate program", "install it"]);
    }
    for name in ["balena-extension-manager", "./balena-extension-manager"] {
        let mut call = Command::new(programs::runtime());
        capture::run(call.arg0(name).arg("features")).fails(&["install it"]);
    }
}

#[test]
fn under_any_other_name_the_runtime_is_the_runtime_and_the_manager_the_manager() {
    for name in ["", "x", "balena-extension-manager/x", "balena-extension-manager2"] {
        let finished = capture::run(Command::new(programs::runtime()).arg0(name).arg("--version"));
        assert!(finished.ok().out.starts_with("balena-extension-runtime version "), "{name:?}");
    }
    for name in ["", "x", "balena-extension-manager", "balena-extension-runtime"] {
        let finished = capture::run(Command::new(programs::manager()).arg0(name).arg("--version"));
        assert!(finished.ok().out.starts_with("balena-extension-manager version "), "{name:?}");
    }
}

#[test]
fn the_help_of_the_manager_is_printed_on_standard_output() {
    for word in ["--help", "-h"] {
        let finished = capture::run(Command::new(programs::manager()).arg(word)).ok();
        assert!(finished.out.contains("balena-extension-manager"), "{finished}");
        assert_eq!(finished.err, "");
    }
}

#[test]
fn an_unknown_command_or_flag_of_the_manager_is_named_with_the_way_to_its_help() {
    let manager = programs::manager();
    capture::run(&mut Command::new(&manager)).fails(&["--help"]);
    capture::run(Command::new(&manager).arg("--frob")).fails(&["--frob", "--help"]);
    capture::run(Command::new(&manager).arg("frob")).fails(&["frob", "--help"]);
}
