//! Ids that are unknown, wrong or taken, and a `state.json` that is cut off or damaged.

use super::{Afterwards, Check, Row, check};
use crate::container::Container;
use crate::finished::{Finished, UNKNOWN};
use crate::process;

/// Truncates the state of a created container and calls a verb. The state is restored afterwards, so that the
/// container can be deleted with its proxy.
fn cut_off(container: &Container, verb: &[&str]) -> Finished {
    damaged(container, verb, |whole| whole[..whole.len() / 2].to_owned())
}

fn damaged(container: &Container, verb: &[&str], damage: impl Fn(&str) -> String) -> Finished {
    container.create().ok();
    let path = container.root().join(&container.id).join("state.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let bad = damage(&whole);
    std::fs::write(&path, &bad).unwrap();
    let finished = container.call(&[verb, &[&container.id]].concat());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), bad, "what is damaged may hold a clue");
    std::fs::write(&path, whole).unwrap();
    assert!(process::is_alive(container.pid()));
    finished
}

const IDS: &[Row] = &[
    Row {
        what: "start of an unknown id",
        names: &[UNKNOWN, "{id}"],
        explains: &[],
        call: Container::start,
    },
    Row {
        what: "kill of an unknown id",
        names: &[UNKNOWN, "{id}"],
        explains: &[],
        call: |c| c.kill("9"),
    },
    Row {
        what: "delete of an unknown id",
        names: &[UNKNOWN, "{id}"],
        explains: &[],
        call: Container::delete,
    },
    Row {
        what: "state of an unknown id",
        names: &[UNKNOWN, "{id}"],
        explains: &[],
        call: |c| c.call(&["state", &c.id]),
    },
    Row {
        what: "ps of an unknown id",
        names: &[UNKNOWN, "{id}"],
        explains: &[],
        call: |c| c.call(&["ps", &c.id]),
    },
    Row {
        what: "an id that climbs",
        names: &["../../etc"],
        explains: &["allowed are"],
        call: |c| c.call(&["create", "../../etc"]),
    },
    Row {
        what: "an id with a blank",
        names: &["a b"],
        explains: &["position 2", "allowed are"],
        call: |c| c.call(&["start", "a b"]),
    },
    Row {
        what: "an empty id",
        names: &["container id"],
        explains: &["empty"],
        call: |c| c.call(&["state", ""]),
    },
    Row {
        what: "no id",
        names: &["container id"],
        explains: &["--help"],
        call: |c| c.call(&["delete"]),
    },
    Row {
        what: "an unknown command",
        names: &["\"frob\""],
        explains: &["--help"],
        call: |c| c.call(&["frob", &c.id]),
    },
    Row {
        what: "an unknown flag",
        names: &["--frob"],
        explains: &["start --help"],
        call: |c| c.call(&["start", "--frob", &c.id]),
    },
    Row {
        what: "an unknown global flag",
        names: &["--frob"],
        explains: &["--help"],
        call: |c| c.call(&["--frob", "start", &c.id]),
    },
];

const FIX: &[&str] = &["damaged", "EOF", "delete --force {id}"];
const FILE: &[&str] = &["{root}/{id}/state.json"];

const DAMAGED: &[Row] = &[
    Row { what: "state, cut off", names: FILE, explains: FIX, call: |c| cut_off(c, &["state"]) },
    Row { what: "start, cut off", names: FILE, explains: FIX, call: |c| cut_off(c, &["start"]) },
    Row { what: "kill, cut off", names: FILE, explains: FIX, call: |c| cut_off(c, &["kill"]) },
    Row { what: "delete, cut off", names: FILE, explains: FIX, call: |c| cut_off(c, &["delete"]) },
    Row { what: "ps, cut off", names: FILE, explains: FIX, call: |c| cut_off(c, &["ps"]) },
    Row {
        what: "state, empty",
        names: FILE,
        explains: &["cannot determine which runtime", "EOF", "nothing was removed"],
        call: |c| damaged(c, &["state"], |_| String::new()),
    },
    Row {
        what: "state, no JSON",
        names: FILE,
        explains: &["cannot determine which runtime", "nothing was removed"],
        call: |c| damaged(c, &["state"], |_| "\u{1}garbage".to_owned()),
    },
    Row {
        what: "state, garbage at the end",
        names: FILE,
        explains: &["trailing"],
        call: |c| damaged(c, &["state"], |whole| format!("{whole}x")),
    },
    Row {
        what: "state, a wrong type",
        names: FILE,
        explains: &["invalid type"],
        call: |c| {
            damaged(c, &["state"], |whole| {
                let mut state: serde_json::Value = serde_json::from_str(whole).unwrap();
                state["pid"] = "one".into();
                state.to_string()
            })
        },
    },
    Row {
        what: "state, an unknown status",
        names: FILE,
        explains: &["dancing", "delete --force {id}"],
        call: |c| damaged(c, &["start"], |whole| whole.replace("\"created\"", "\"dancing\"")),
    },
];

const TAKEN: &[Row] = &[
    Row {
        what: "an id that is taken",
        names: &["container with given ID already exists", "{id}"],
        explains: &["delete it first"],
        call: |c| {
            c.create().ok();
            c.create()
        },
    },
    Row {
        what: "an id that another runtime has",
        names: &["container with given ID already exists"],
        explains: &["{root}/{id}"],
        call: |c| {
            let folder = c.root().join(&c.id);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("state.json"), r#"{"id":"x","init_process_pid":1}"#)
                .unwrap();
            let finished = c.create();
            std::fs::remove_dir_all(folder).unwrap();
            finished
        },
    },
    Row {
        what: "an id whose state is damaged",
        names: &["container with given ID already exists"],
        explains: &["{root}/{id}"],
        call: |c| {
            let folder = c.root().join(&c.id);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("state.json"), r#"{"role":"exten"#).unwrap();
            c.create()
        },
    },
];

#[test]
fn an_id_or_a_word_that_is_wrong_is_named_and_nothing_is_made() {
    check(IDS, Check::Names, Afterwards::Nothing);
}

#[test]
fn a_damaged_state_is_named_and_left_as_it_is() {
    check(DAMAGED, Check::Names, Afterwards::TheContainer);
}

#[test]
fn an_id_that_is_taken_is_named_and_its_container_untouched() {
    check(TAKEN, Check::Names, Afterwards::TheContainer);
}

#[test]
fn a_damaged_state_can_be_deleted_by_force() {
    for len in [r#"{"role":"#.len(), 40, 100] {
        let container = Container::created();
        container.kill("KILL").ok();
        process::exit_status(container.pid());
        let path = container.root().join(&container.id).join("state.json");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..len]).unwrap();
        container.delete_by_force().silent();
        container.left_nothing();
        container.create().ok();
    }
}

#[test]
fn a_directory_without_a_state_is_not_a_container_and_can_be_taken_over() {
    let container = Container::new();
    std::fs::create_dir(container.root().join(&container.id)).unwrap();
    container.start().fails(&[UNKNOWN]);
    container.create().ok();
    container.start().ok();
}

#[test]
fn a_state_json_that_is_a_directory_is_an_error_and_not_a_crash() {
    let container = Container::new();
    let folder = container.root().join(&container.id).join("state.json");
    std::fs::create_dir_all(&folder).unwrap();
    for verb in [&["state"][..], &["start"], &["kill"], &["delete"]] {
        container.call(&[verb, &[&container.id]].concat()).fails(&[folder.to_str().unwrap()]);
    }
    container.create().fails(&[container.root().to_str().unwrap()]);
    std::fs::remove_dir_all(container.root().join(&container.id)).unwrap();
}

mod only_ours {
    //! The cause and the fix in the error.

    use super::*;

    #[test]
    fn an_id_or_a_word_that_is_wrong_is_explained() {
        check(IDS, Check::Explains, Afterwards::Nothing);
    }

    #[test]
    fn a_damaged_state_is_explained() {
        check(DAMAGED, Check::Explains, Afterwards::TheContainer);
    }

    #[test]
    fn an_id_that_is_taken_is_explained() {
        check(TAKEN, Check::Explains, Afterwards::TheContainer);
    }
}
