//! The log file: containerd shows a user only the `msg` of the last line whose `level` is `error`. One byte
//! that is not JSON makes it unreadable.

use std::process::Command;

use serde_json::Value;

use crate::capture;
use crate::container::Container;
use crate::programs;
use crate::{finished, process};

fn text(container: &Container) -> String {
    std::fs::read_to_string(container.log_file()).unwrap()
}

#[test]
fn every_line_is_an_object_with_level_message_and_time() {
    let container = Container::new();
    container.hook("delete", "exit 1");
    for words in
        [&["create", "-b", container.text()][..], &["start"], &["start"], &["delete"], &["frob"]]
    {
        let words = [&["--debug"], words, &[&container.id]].concat();
        container.finish(&mut container.command(&words));
    }
    let mut levels = std::collections::BTreeSet::new();
    for line in text(&container).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        levels.insert(line["level"].as_str().unwrap().to_owned());
        assert!(!line["msg"].as_str().unwrap().trim().is_empty(), "{line}");
        humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
    }
    assert!(text(&container).ends_with('\n'));
    assert_eq!(levels, ["debug", "error", "info", "warning"].map(str::to_owned).into());
}

#[test]
fn the_last_error_is_the_last_line_and_the_same_as_on_standard_error() {
    let container = Container::new();
    let finished = container.start();
    let last = finished.log.last().unwrap();
    assert_eq!(last["level"], "error");
    assert_eq!(last["msg"], finished.err.trim());
}

#[test]
fn the_log_is_appended_to() {
    let container = Container::new();
    std::fs::write(
        container.log_file(),
        "{\"level\":\"info\",\"msg\":\"an older one\",\"time\":\"2026-01-01T00:00:00Z\"}\n",
    )
    .unwrap();
    container.create().ok();
    container.start().ok();
    container.start().fails(&["stopped"]);
    assert!(text(&container).starts_with("{\"level\":\"info\",\"msg\":\"an older one\""));
    assert!(text(&container).lines().count() >= 2);
}

#[test]
fn the_log_is_created_before_anything_else_and_by_every_command() {
    for words in [
        &["state", "x"][..],
        &["list"],
        &["features"],
        &["--version"],
        &["--help"],
        &["frob"],
        &["start"],
        &[],
    ] {
        let container = Container::new();
        capture::run(&mut container.command(words));
        assert!(container.log_file().exists(), "{words:?}");
    }
}

#[test]
fn errors_in_the_arguments_are_logged_wherever_they_stand() {
    let container = Container::new();
    let log = container.log_file();
    let log = log.to_str().unwrap();
    let joined = format!("--log={log}");
    for words in [
        &["--log", log, "--log-format", "json", "frob"][..],
        &["--frob", "--log", log, "--log-format=json", "list"],
        &[&joined, "--log-format=json", "start"],
        &["--log-format", "json", "--log", log, "kill", "x", "NOPE"],
        &["--log-format", "json", &joined, "start", "../x"],
        &["--root", "/r", &joined, "--log-format", "json", "create", "--frob"],
        &["--log", log, "--log-format", "json", "--log-level", "loud", "list"],
        &["--log", log, "--log-format", "json"],
        // An extra word, as a mistake in an engine's `runtimeArgs` adds.
        &["--log-levl", "debug", "--log", log, "--log-format", "json", "create", "x"],
        &["debug", "--log", log, "--log-format", "json", "create", "x"],
    ] {
        let finished = container.finish(Command::new(programs::runtime()).args(words));
        assert_eq!(finished.log.len(), 1, "{finished}");
        finished.error();
    }
}

#[test]
fn an_error_in_the_log_format_is_logged_too() {
    let container = Container::new();
    let mut command = Command::new(programs::runtime());
    command.arg("--log").arg(container.log_file()).args(["--log-format", "xml", "list"]);
    let finished = capture::run(&mut command);
    finished.fails(&["--log-format", "\"xml\"", "json"]);
    assert!(text(&container).contains("--log-format"), "{}", text(&container));
}

#[test]
fn the_level_decides_what_is_written() {
    let lines = |flags: &[&str]| {
        let container = Container::new();
        container.hook("delete", "exit 1");
        container
            .finish(
                &mut container
                    .command(&[flags, &["create", "-b", container.text(), &container.id]].concat()),
            )
            .ok();
        container.start().ok();
        container.new_log_lines();
        container.call(&[flags, &["delete", &container.id]].concat()).ok();
        let text = text(&container);
        ["debug", "info", "warning"].map(|level| text.contains(&format!("\"level\":\"{level}\"")))
    };
    assert_eq!(lines(&["--debug"]), [true, true, true]);
    assert_eq!(lines(&["--log-level", "debug"]), [true, true, true]);
    assert!(!lines(&["--log-level=info"])[0]);
    assert_eq!(lines(&["--log-level", "warn"])[..1], [false]);
    assert!(lines(&["--log-level", "warn"])[2]);
    assert!(!lines(&["--log-level", "error"])[2]);
}

#[test]
fn text_is_the_default_format_and_one_line_an_entry() {
    let container = Container::new();
    let mut command = Command::new(programs::runtime());
    command.arg("--root").arg(container.root()).arg("--log").arg(container.log_file());
    capture::run(command.args(["start", &container.id])).fails(&[finished::UNKNOWN]);
    let text = text(&container);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("level=error") && text.contains(&container.id), "{text}");
}

/// Podman parses the whole file as one document, so it finds the error only if there is nothing else.
#[test]
fn a_create_that_fails_after_a_warning_writes_one_line_that_has_both() {
    let container = Container::new();
    container.label("io.balena.image.a-b", "1");
    container.label("io.balena.image.a_b", "2");
    container.hook("create", "exit 3");
    let finished = container.create();
    finished.fails(&["hooks/create exited with status 3"]);
    let [line] = finished.log.as_slice() else { panic!("{finished}") };
    let warning = line["warnings"][0].as_str().unwrap();
    assert!(warning.contains("EXTENSION_IMAGE_A_B"), "{finished}");
    // If the hook succeeds, its output is a separate line.
    container.hook("create", "true");
    let finished = container.create().ok();
    assert_eq!(finished.warnings(), warning);
}

#[test]
fn a_hook_cannot_forge_a_line() {
    let container = Container::new();
    container.hook("create", r#"printf '\n{"level":"error","msg":"forged","time":"2026-01-01T00:00:00Z"}\n' >&2; exit 1"#);
    let finished = container.create();
    let error = finished.log.last().unwrap()["msg"].as_str().unwrap();
    assert!(error.contains("hooks/create exited with status 1"), "{finished}");
    assert_eq!(finished.log.iter().filter(|line| line["level"] == "error").count(), 1);
}

#[test]
fn without_a_log_an_error_is_one_line_on_standard_error() {
    let container = Container::new();
    let mut command = Command::new(programs::runtime());
    command.arg("--root").arg(container.root()).args(["start", &container.id]);
    let finished = capture::run(&mut command);
    finished.fails(&[finished::UNKNOWN]);
    assert_eq!((finished.err.lines().count(), finished.out.as_str()), (1, ""));
}

#[test]
fn without_a_log_success_is_silent() {
    let container = Container::new();
    for words in [&["create", "-b", container.text()][..], &["start"], &["delete"]] {
        let mut command = Command::new(programs::runtime());
        command.arg("--root").arg(container.root()).args(words).arg(&container.id);
        container.create_by(&mut command).silent();
    }
}

#[test]
fn without_a_log_a_warning_reaches_the_caller_and_never_the_containers_log() {
    let container = Container::new();
    container.hook("delete", "echo stuck; exit 1");
    let call = |words: &[&str]| {
        let mut command = Command::new(programs::runtime());
        command.arg("--root").arg(container.root()).args(words).arg(&container.id);
        command
    };
    // Two labels make the same variable, which is a warning at create.
    container.label("io.balena.image.a-b", "1");
    container.label("io.balena.image.a_b", "2");
    container.hook("create", "true");
    container.create_by(&mut call(&["create", "-b", container.text()])).silent();
    capture::run(&mut call(&["start"])).silent();
    let finished = capture::run(&mut call(&["delete"])).ok();
    assert!(finished.err.contains("hooks/delete exited with status 1: stuck"), "{finished}");
    assert!(finished.err.lines().all(|line| line.contains("level=warning")), "{finished}");
}

#[test]
fn a_log_that_cannot_be_opened_is_reported_on_standard_error_and_nothing_is_done() {
    let container = Container::new();
    for path in [container.beside("missing/log.json"), container.beside("")] {
        let mut command = Command::new(programs::runtime());
        command.arg("--root").arg(container.root()).arg("--log").arg(&path);
        command.args(["create", "-b", container.text(), &container.id]);
        let finished = container.create_by(&mut command);
        finished.fails(&[path.to_str().unwrap(), "--log"]);
        container.left_nothing();
        std::fs::remove_file(container.beside("stderr")).unwrap();
    }
}

#[test]
fn a_log_that_is_a_fifo_without_a_reader_does_not_hang() {
    let container = Container::new();
    let path = container.beside("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut command = Command::new(programs::runtime());
    let finished = capture::run(command.arg("--log").arg(&path).args(["start", "x"]));
    finished.fails(&[path.to_str().unwrap()]);
}

/// containerd's shim passes a file in the bundle. A container must be removable without its bundle.
#[test]
fn a_log_that_cannot_be_opened_stops_no_verb_that_ends_a_container_or_asks() {
    let container = Container::new();
    container.hook("delete", "exit 1");
    let log = container.path("log.json");
    let call = |words: &[&str]| {
        let mut command = Command::new(programs::runtime());
        command.arg("--root").arg(container.root()).arg("--log").arg(&log);
        capture::run(command.args(["--log-format", "json"]).args(words).arg(&container.id))
    };
    let told = |finished: &finished::Finished| {
        let lines = finished.err.lines().filter(|line| line.contains(log.to_str().unwrap()));
        assert_eq!(lines.count(), 1, "{finished}");
    };
    container.create().ok();
    std::fs::remove_dir_all(container.path("")).unwrap();
    let state = call(&["state"]).ok();
    assert_eq!(state.json()["status"], "created");
    told(&state);
    assert_eq!(state.err.lines().count(), 1, "{state}");
    told(&call(&["ps", "--format=json"]).ok());
    told(&call(&["kill"]).ok());
    process::exit_status(container.pid());
    let kill = call(&["kill"]);
    told(&kill);
    assert!(kill.code() == 1 && kill.err.contains("\ncontainer not running: "), "{kill}");
    let delete = call(&["delete"]).ok();
    told(&delete);
    assert!(delete.err.contains("hooks/delete is skipped"), "{delete}");
    container.left_nothing();
    told(&call(&["delete", "--force"]).ok());
}

mod only_ours {
    //! The other keys of a line.

    use super::*;

    #[test]
    fn lines_name_the_container_and_the_command_and_how_long_it_took() {
        let container = Container::new();
        container.hook("create", "true");
        let finished = container.create().ok();
        let line = finished.log.last().unwrap();
        assert_eq!(
            (&line["id"], &line["command"]),
            (&container.id.as_str().into(), &"create".into())
        );
        assert!(line["durationMs"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["hooksMs"]["hooks/create"].as_f64().unwrap() > 0.0, "{line}");
    }
}
