//! Root of a user namespace, as rootless Podman and Docker call a runtime, is not root of the host.

use crate::container::Container;
use crate::finished;
use crate::finished::Finished;
use std::process::Command;

/// Calls a verb as root of a user namespace of its own.
fn in_a_user_namespace(container: &Container, arguments: &[&str]) -> Finished {
    let words = container.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(words.get_program());
    container.finish(command.args(words.get_args()).env_clear().env("PATH", "/usr/bin:/bin"))
}

const REFUSED: &[&str] = &["must run as root of the host, not of a user namespace"];

#[test]
fn root_of_a_user_namespace_is_refused_before_anything_runs() {
    let container = Container::new();
    let ran = container.beside("ran");
    for name in ["create", "start", "delete"] {
        container.hook(name, &format!("touch {}", ran.display()));
    }
    for verb in ["create", "run"] {
        in_a_user_namespace(&container, &[verb, "-b", container.text(), &container.id])
            .fails(REFUSED);
        assert_eq!(container.recorded(), [""; 0], "{verb}");
    }
    container.create().ok();
    std::fs::remove_file(&ran).unwrap();
    for verb in [&["start"][..], &["kill"], &["delete", "--force"]] {
        in_a_user_namespace(&container, &[verb, &[&container.id]].concat()).fails(REFUSED);
    }
    assert_eq!(container.status(), "created");
    assert!(!ran.exists());
}

#[test]
fn a_user_namespace_that_cannot_be_read_is_an_error() {
    let container = Container::new();
    let words = container.create_command();
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(words.get_program());
    let finished = container.create_by(command.args(words.get_args()));
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("cannot determine whether this is root"), "{finished}");
}

#[test]
fn queries_are_answered_in_a_user_namespace_too() {
    let container = Container::new();
    in_a_user_namespace(&container, &["list", "-q"]).silent();
    in_a_user_namespace(&container, &["state", &container.id]).fails(&[finished::UNKNOWN]);
}
