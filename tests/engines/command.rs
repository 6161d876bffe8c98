//! Runs the clients of engines, and checks which programs are installed.

use std::process::Command;
use std::time::Duration;

use crate::capture::start;
use crate::finished::Finished;

/// No command of an engine takes longer in these tests, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Within this time, nothing is left of a container that was removed. Hooks of these tests sleep for a minute, so one
/// that was left is still found.
pub(crate) const GONE: Duration = Duration::from_secs(30);

/// The programs that the tests need, each with its Debian package.
const PROGRAMS: [(&str, &str); 12] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io (docker-cli since Debian 13)"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("ip", "iproute2"),
    ("python3", "python3-grpcio"),
    ("nsenter", "util-linux"),
    ("sha256sum", "coreutils"),
    ("tar", "tar"),
];

/// Fails if programs are missing, and names all of them.
pub(crate) fn require_programs() {
    let path = std::env::var("PATH").unwrap();
    let is_missing = |program: &str| {
        !path.split(':').any(|dir| std::path::Path::new(dir).join(program).exists())
    };
    let missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| is_missing(program))
        .map(|(program, package)| format!("{program} (apt-get install {package})"))
        .collect();
    assert!(missing.is_empty(), "missing in {path}: {}", missing.join(", "));
}

/// Runs `command` to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    start(command).finish_within(LIMIT)
}

/// Runs `command` as part of a clean-up, which must neither fail nor hang the test.
pub(crate) fn attempt(command: &mut Command) {
    if let Err(error) = start(command).result_within(LIMIT) {
        eprintln!("while cleaning up: {error}");
    }
}
