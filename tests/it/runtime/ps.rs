//! `ps ID`: the proxy's pid, or none. The `top` of engines calls it.

use serde_json::json;

use crate::container::Container;

#[test]
fn json_is_a_list_with_the_pid_of_the_proxy() {
    let container = Container::created();
    let pids = container.call(&["ps", "--format", "json", &container.id]).ok().json();
    assert_eq!(pids, json!([container.pid()]));
    let pids = container.call(&["ps", "--format=json", &container.id]).ok().json();
    assert_eq!(pids, json!([container.pid()]));
}

#[test]
fn a_table_is_the_default_and_shows_the_proxy() {
    let container = Container::created();
    for words in [&["ps"][..], &["ps", "--format", "table"]] {
        let text = container.call(&[words, &[&container.id]].concat()).ok().out;
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(rows[0].starts_with("PID") && rows[1].starts_with(&container.pid().to_string()));
    }
}

#[test]
fn the_arguments_of_ps_are_accepted() {
    let container = Container::created();
    container.call(&["ps", "--format", "table", &container.id, "-ef"]).ok();
}

#[test]
fn a_stopped_container_has_no_pid() {
    let container = Container::stopped();
    let pids = container.call(&["ps", "--format", "json", &container.id]).ok().json();
    assert_eq!(pids, json!([]));
    assert_eq!(container.call(&["ps", &container.id]).ok().out.lines().count(), 1);
}

#[test]
fn the_unknown_does_not_exist() {
    let container = Container::new();
    container.call(&["ps", "--format", "json", &container.id]).fails(&[crate::finished::UNKNOWN]);
}

#[test]
fn an_unknown_format_is_named_with_the_known_ones() {
    let container = Container::created();
    let finished = container.call(&["ps", "--format", "yaml", &container.id]);
    finished.fails(&["\"yaml\"", "--format", "json", "table"]);
}
