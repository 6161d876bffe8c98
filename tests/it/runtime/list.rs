//! `list`: all containers under the state root, for people and for programs.

use crate::capture;
use crate::container::Container;
use crate::{finished, process};

/// Another container under the same state root.
fn create_beside(container: &Container, id: &str) {
    container.create_by(&mut container.command(&["create", "-b", container.text(), id])).ok();
}

#[test]
fn a_table_has_a_header_and_a_row_a_container() {
    let container = Container::created();
    let text = container.call(&["list"]).ok().out;
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0][..4], ["ID", "PID", "STATUS", "BUNDLE"]);
    let pid = container.pid().to_string();
    assert_eq!(lines[1][..4], [container.id.as_str(), &pid, "created", container.text()]);
    assert_eq!(container.call(&["list", "--format", "table"]).ok().out, text);
    assert_eq!(container.call(&["list", "--format=table"]).ok().out, text);
}

#[test]
fn columns_stand_below_their_headers() {
    let container = Container::created();
    create_beside(&container, "a");
    let text = container.call(&["list"]).ok().out;
    let starts: Vec<Option<usize>> =
        text.lines().map(|line| line.find(" created ").or_else(|| line.find(" STATUS "))).collect();
    assert!(starts.iter().all(|start| *start == starts[0] && start.is_some()), "{text}");
}

#[test]
fn json_is_a_list_of_states() {
    let container = Container::created();
    for format in
        [&["list", "--format", "json"][..], &["list", "--format=json"], &["list", "-f", "json"]]
    {
        let list = container.call(format).ok().json();
        assert_eq!(list, serde_json::json!([container.state()]));
    }
}

#[test]
fn quiet_prints_only_ids() {
    let container = Container::created();
    create_beside(&container, "a");
    let expected = format!("a\n{}\n", container.id);
    assert_eq!(container.call(&["list", "--quiet"]).ok().out, expected);
    assert_eq!(container.call(&["list", "-q"]).ok().out, expected);
}

#[test]
fn nothing_is_a_header_and_an_empty_list() {
    let container = Container::new();
    assert_eq!(container.call(&["list"]).ok().out.lines().count(), 1);
    assert_eq!(container.call(&["list", "--format", "json"]).ok().json(), serde_json::json!([]));
    assert_eq!(container.call(&["list", "-q"]).ok().out, "");
}

#[test]
fn a_missing_state_root_is_empty() {
    let mut command = std::process::Command::new(crate::programs::runtime());
    let finished = capture::run(command.args(["--root", "/run/it-no-such-root", "list", "-q"]));
    assert_eq!(finished.ok().out, "");
    assert!(!std::path::Path::new("/run/it-no-such-root").exists());
}

#[test]
fn the_status_is_the_truth_here_too() {
    let container = Container::created();
    container.kill("KILL").ok();
    process::exit_status(container.pid());
    let list = container.call(&["list", "--format", "json"]).ok().json();
    assert_eq!(list[0]["status"], "stopped");
}

#[test]
fn directories_of_other_runtimes_are_skipped_and_never_touched() {
    let container = Container::created();
    let foreign = container.root().join("0f0f");
    std::fs::create_dir(&foreign).unwrap();
    let runc = r#"{"id":"0f0f","init_process_pid":1,"config":{"rootfs":"/"}}"#;
    std::fs::write(foreign.join("state.json"), runc).unwrap();
    std::fs::write(container.root().join("a-file"), "").unwrap();
    assert_eq!(container.call(&["list", "-q"]).ok().out, format!("{}\n", container.id));
    container.call(&["state", "0f0f"]).fails(&[finished::UNKNOWN]);
    container.call(&["delete", "--force", "0f0f"]).silent();
    container.call(&["delete", "--force", "a-file"]).silent();
    assert_eq!(std::fs::read_to_string(foreign.join("state.json")).unwrap(), runc);
    std::fs::remove_dir_all(foreign).unwrap();
    std::fs::remove_file(container.root().join("a-file")).unwrap();
}

#[test]
fn one_damaged_state_does_not_hide_the_others() {
    let container = Container::created();
    let damaged = container.root().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("state.json"), r#"{"role":"extension","id":"dam"#).unwrap();
    let finished = container.call(&["list", "-q"]).ok();
    assert_eq!(finished.out, format!("{}\n", container.id));
    assert!(finished.warnings().contains("damaged"), "{finished}");
}
