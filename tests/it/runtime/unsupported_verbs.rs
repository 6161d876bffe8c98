//! The verbs that an extension does not support: refused with the reason, whatever flags engines pass.

use crate::container::Container;

#[test]
fn every_unsupported_verb_is_refused_with_the_reason() {
    let container = Container::created();
    for verb in ["exec", "pause", "resume", "events", "checkpoint", "restore"] {
        container.call(&[verb, &container.id]).fails(&[verb, "an extension has no process"]);
    }
    assert_eq!(container.status(), "created");
}

#[test]
fn flags_of_engines_do_not_hide_the_reason() {
    let container = Container::created();
    let id = container.id.as_str();
    for words in [
        &["exec", "--process", "/p", "--console-socket", "/s", "--detach", "--pid-file", "/f", id]
            [..],
        &[
            "exec",
            "--pid-file",
            "/f",
            "--process",
            "/p",
            "--detach",
            "--tty",
            "--preserve-fds",
            "1",
            id,
        ],
        &[
            "checkpoint",
            "--image-path",
            "/i",
            "--work-path",
            "/w",
            "--tcp-established",
            "--leave-running",
            id,
        ],
        &[
            "restore",
            "--detach",
            "--pid-file",
            "/f",
            "--no-pivot",
            "-no-subreaper",
            "--bundle",
            "/b",
            id,
        ],
        &["events", "--stats", "--interval", "5s", id],
        &["exec"],
    ] {
        container.call(words).fails(&[words[0], "an extension has no process"]);
    }
}

#[test]
fn update_succeeds_and_changes_nothing() {
    let container = Container::created();
    let (id, before) = (container.id.as_str(), container.state());
    for words in [
        &["update", "--resources", "-", id][..],
        &["update", "--resources=-", id],
        &["update", "--resources=/none", id],
        &["update", "--memory", "1", "--pids-limit=7", id],
    ] {
        container.call(words).silent();
    }
    assert_eq!(container.state(), before);
}
