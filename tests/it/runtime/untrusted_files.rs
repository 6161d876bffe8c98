//! Ownership of the state: root does not act on a state root, a directory or a file that another user can
//! change.

use crate::capture;
use crate::container::Container;
use crate::finished::{Finished, UNKNOWN};
use crate::process;
use crate::programs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const NOBODY: u32 = 65534;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn owner(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
}

fn state_file(container: &Container) -> PathBuf {
    container.root().join(&container.id).join("state.json")
}

/// All verbs that need a container, with `delete --force` last.
fn every_verb(container: &Container) -> Vec<(&'static str, Finished)> {
    let verbs: [&[&'static str]; 6] =
        [&["state"], &["ps"], &["start"], &["kill"], &["delete"], &["delete", "--force"]];
    let call = |verb: &&[&'static str]| {
        (verb[0], container.call(&[verb, &[container.id.as_str()][..]].concat()))
    };
    verbs.iter().map(call).collect()
}

/// Puts a container into a state that must not be trusted, calls every verb, and restores it.
fn refused(what: &str, texts: &[&str], spoil: impl Fn(&Container), mend: impl Fn(&Container)) {
    let container = Container::new();
    let ran = container.beside("ran");
    for name in ["start", "delete"] {
        container.hook(name, &format!("touch {}", ran.display()));
    }
    container.create().ok();
    spoil(&container);
    for (verb, finished) in every_verb(&container) {
        assert_eq!(finished.code(), 1, "{what}: {verb}: {finished}");
        finished.fails(texts);
    }
    assert!(!ran.exists(), "{what}");
    mend(&container);
    assert_eq!(container.status(), "created", "{what}");
}

#[test]
fn every_verb_refuses_a_directory_or_file_that_another_user_owns_or_can_write() {
    type Place = fn(&Container) -> PathBuf;
    let folder: Place = |container| container.root().join(&container.id);
    let root: Place = |container| container.root().to_owned();
    let file: Place = state_file;
    let places = [("directory", folder, 0o711), ("file", file, 0o600), ("root", root, 0o700)];
    for (what, place, right) in places {
        let named = |container: &Container| owner(&place(container), NOBODY);
        let mine = |container: &Container| owner(&place(container), 0);
        refused(what, &["belongs to user 65534"], named, mine);
        for (bits, text) in [(0o020, "by group"), (0o002, "by every user")] {
            if (what, bits) == ("root", 0o020) {
                // Root's own group.
                continue;
            }
            let spoil = |container: &Container| mode(&place(container), right | bits);
            refused(what, &["is writable", text], spoil, |c| mode(&place(c), right));
        }
    }
}

#[test]
fn a_parent_that_others_can_exchange_is_refused_and_a_sticky_one_is_not() {
    let container = Container::new();
    let parent = container.beside("parent");
    let root = parent.join("root");
    std::fs::create_dir(&parent).unwrap();
    let call = |words: &[&str]| {
        let mut command = Command::new(programs::runtime());
        container.finish(command.env_clear().arg("--root").arg(&root).args(words))
    };
    let create = || {
        let mut command = Command::new(programs::runtime());
        command.env_clear().arg("--root").arg(&root).args(["create", "-b", container.text()]);
        container.create_by(command.arg(&container.id))
    };
    mode(&parent, 0o777);
    assert_eq!(create().code(), 1);
    assert!(!root.exists(), "nothing is made there");
    mode(&parent, 0o1777);
    create().ok();
    mode(&parent, 0o777);
    let finished = call(&["delete", "--force", &container.id]);
    assert!(finished.code() == 1 && finished.err.contains("writable by every user"), "{finished}");
    mode(&parent, 0o1777);
    call(&["delete", "--force", &container.id]).silent();
    owner(&parent, NOBODY);
    assert!(call(&["list"]).err.contains("belongs to user 65534"));
}

#[test]
fn only_own_containers_count_in_a_root_that_everybody_can_write() {
    let container = Container::created();
    mode(container.root(), 0o1777);
    let planted = container.root().join("planted");
    std::fs::create_dir(&planted).unwrap();
    let text = std::fs::read_to_string(state_file(&container)).unwrap();
    std::fs::write(planted.join("state.json"), text.replace(&container.id, "planted")).unwrap();
    owner(&planted, NOBODY);
    let listed = container.call(&["list", "-q"]).ok();
    assert_eq!(listed.out, format!("{}\n", container.id));
    assert!(listed.warnings().contains("belongs to user 65534"), "{listed}");
    container.call(&["delete", "--force", "planted"]).fails(&["belongs to user 65534"]);
    container
        .call(&["create", "-b", container.text(), "planted"])
        .fails(&["belongs to user 65534"]);
    assert!(planted.join("state.json").exists());
    std::fs::remove_dir_all(planted).unwrap();
    container.start().ok();
}

#[test]
fn a_state_that_names_another_container_is_not_acted_on() {
    let container = Container::created();
    let renamed = container.root().join("renamed");
    std::fs::rename(container.root().join(&container.id), &renamed).unwrap();
    for verb in [&["state"][..], &["start"], &["kill"], &["delete"], &["delete", "--force"]] {
        container.call(&[verb, &["renamed"]].concat()).fails(&[&container.id, "renamed"]);
    }
    let listed = container.call(&["list", "-q"]).ok();
    assert!(listed.out.is_empty() && listed.warnings().contains("renamed"), "{listed}");
    assert!(process::is_alive(container.pid()));
    std::fs::rename(&renamed, container.root().join(&container.id)).unwrap();
    container.start().ok();
}

/// A call without `--root` by a user whose `XDG_RUNTIME_DIR` is `runtime_dir`.
fn without_root(container: &Container, runtime_dir: &Path, words: &[&str]) -> Finished {
    let mut command = Command::new(programs::runtime());
    command.env_clear().env("XDG_RUNTIME_DIR", runtime_dir);
    command.arg("--log").arg(container.log_file()).args(["--log-format", "json"]).args(words);
    container.finish(&mut command)
}

#[test]
fn the_runtime_directory_of_another_user_is_ignored_with_a_warning() {
    let container = Container::new();
    let (base, ran) = (container.beside("user"), container.beside("ran"));
    let folder = base.join("balena-extension-runtime").join(&container.id);
    std::fs::create_dir_all(&folder).unwrap();
    let hook = container.beside("evil");
    crate::bundle::executable(&hook, format!("#!/bin/sh\ntouch {}\n", ran.display()).as_bytes());
    let state = serde_json::json!({
        "ociVersion": "1.3.0", "id": container.id, "pid": 0, "status": "stopped", "bundle": "/",
        "rootfs": "/nowhere", "created": "2026-01-01T00:00:00Z", "annotations": {}, "role": "sandbox",
        "hooks": { "poststop": [{ "path": hook }] },
    });
    std::fs::write(folder.join("state.json"), state.to_string()).unwrap();
    for path in [folder.join("state.json"), folder.clone(), folder.join(".."), base.clone()] {
        owner(&path, NOBODY);
    }
    let listed = without_root(&container, &base, &["list", "-q"]).ok();
    assert!(!listed.out.contains(&container.id), "{listed}");
    assert!(listed.warnings().contains("XDG_RUNTIME_DIR is ignored"), "{listed}");
    assert!(listed.warnings().contains("belongs to user 65534"), "{listed}");
    without_root(&container, &base, &["delete", &container.id]).fails(&[UNKNOWN]);
    without_root(&container, &base, &["delete", "--force", &container.id]).ok();
    assert!(!ran.exists() && folder.join("state.json").exists());
    let relative = without_root(&container, Path::new("user"), &["list", "-q"]).ok();
    assert!(relative.warnings().contains("not an absolute path"), "{relative}");
}

#[test]
fn an_engines_container_is_found_from_a_login_with_a_runtime_directory() {
    let container = Container::new();
    let base = container.beside("login");
    std::fs::create_dir(&base).unwrap();
    // As an engine calls it.
    let mut create = Command::new(programs::runtime());
    create.env_clear().args(["create", "-b", container.text(), "--pid-file"]);
    container.create_by(create.arg(container.pid_file()).arg(&container.id)).ok();
    let call = |words: &[&str]| without_root(&container, &base, words);
    assert!(call(&["list", "-q"]).ok().out.lines().any(|line| line == container.id));
    let pid = container.pid();
    assert_eq!(
        call(&["ps", "--format", "json", &container.id]).ok().json(),
        serde_json::json!([pid])
    );
    call(&["start", &container.id]).ok();
    assert_eq!(call(&["state", &container.id]).ok().json()["status"], "stopped");
    // The same id again in the login's own root, which comes first.
    let mut own = Command::new(programs::runtime());
    own.env_clear().env("XDG_RUNTIME_DIR", &base).args(["create", "-b", container.text()]);
    container.create_by(own.arg(&container.id)).ok();
    assert_eq!(call(&["list", "-q"]).ok().out.matches(&container.id).count(), 2);
    assert_eq!(call(&["state", &container.id]).ok().json()["status"], "created");
    for _ in 0..2 {
        call(&["delete", "--force", &container.id]).silent();
    }
    call(&["state", &container.id]).fails(&[UNKNOWN]);
    call(&["delete", "--force", &container.id]).silent();
    assert!(!Path::new("/run/balena-extension-runtime").join(&container.id).exists());
}

#[test]
fn a_file_that_is_not_regular_or_too_large_is_refused_at_once_and_kept() {
    let container = Container::new();
    let file = state_file(&container);
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        capture::run(Command::new(program).args(arguments).arg(&file)).ok();
    };
    let plant: [(&str, &dyn Fn()); 5] = [
        ("not a regular file", &|| run("mkfifo", &[])),
        ("not a regular file", &|| std::fs::create_dir(&file).unwrap()),
        ("a link", &|| symlink("/dev/zero", &file).unwrap()),
        ("at most 67108864 are read", &|| run("truncate", &["--size=70M"])),
        ("not a regular file", &|| {
            drop(std::os::unix::net::UnixListener::bind(&file).unwrap());
        }),
    ];
    for (text, plant) in plant {
        plant();
        for (_, finished) in every_verb(&container) {
            finished.fails(&[
                "cannot determine which runtime",
                "state.json",
                text,
                "nothing was removed",
            ]);
        }
        container.create().fails(&["container with given ID already exists", text]);
        let listed = container.call(&["list", "-q"]).ok();
        assert!(listed.out.is_empty() && listed.warnings().contains(text), "{listed}");
        assert!(file.symlink_metadata().is_ok(), "{text}");
        std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir(&file)).unwrap();
    }
}

#[test]
fn a_name_that_is_in_use_is_reported_as_taken() {
    let container = Container::new();
    let place = container.root().join(&container.id);
    std::fs::write(&place, "").unwrap();
    container.create().fails(&["the name is taken by something else"]);
    std::fs::remove_file(&place).unwrap();
    symlink("/nowhere", &place).unwrap();
    container.create().fails(&["the name is taken by something else"]);
    std::fs::remove_file(&place).unwrap();
}

#[test]
fn a_damaged_state_is_removed_by_force_with_its_proxy_if_the_pid_can_be_read() {
    let container = Container::created();
    let text = std::fs::read_to_string(state_file(&container)).unwrap();
    std::fs::write(state_file(&container), &text[..text.len() / 2]).unwrap();
    let finished = container.delete_by_force().ok();
    assert_eq!(process::exit_status(container.pid()), 137);
    assert!(finished.warnings().contains(&format!("its proxy {} was killed", container.pid())));
    container.left_nothing();
}

#[test]
fn possible_proxies_of_a_damaged_state_are_named_and_not_killed() {
    let container = Container::created();
    let pid = container.pid();
    std::fs::write(state_file(&container), r#"{"role":"extension","pid":"lost"#).unwrap();
    for verb in [&["state"][..], &["start"], &["kill"], &["delete"]] {
        container.call(&[verb, &[container.id.as_str()]].concat()).fails(&["damaged", "--force"]);
    }
    let finished = container.delete_by_force().ok();
    assert!(finished.warnings().contains(&format!("these may be: {pid} ")), "{finished}");
    assert!(process::is_alive(pid));
    process::end(pid);
    container.left_nothing();
}

#[test]
fn a_state_json_that_is_not_json_or_not_ours_is_kept() {
    let container = Container::new();
    let file = state_file(&container);
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    for text in ["", "\0\0\0\0", r#"{"id":"x","init_process"#] {
        std::fs::write(&file, text).unwrap();
        for (_, finished) in every_verb(&container) {
            finished.fails(&["cannot determine which runtime", "nothing was removed"]);
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn a_pid_file_is_written_whatever_another_user_has_put_in_its_place() {
    let container = Container::new();
    let name = container.pid_file().file_name().unwrap().to_str().unwrap().to_owned();
    let (prepared, other) = (container.beside(&format!(".{name}")), container.beside("other"));
    std::fs::write(&other, "theirs").unwrap();
    for plant in ["mkfifo", "ln -s other", "ln other"] {
        let words: Vec<&str> = plant.split(' ').collect();
        for path in [&prepared, &container.pid_file()] {
            let mut command = Command::new(words[0]);
            command.current_dir(container.beside("")).args(&words[1..]).arg(path);
            capture::run(&mut command).ok();
        }
        container.create().ok();
        assert!(process::is_alive(container.pid()), "{plant}");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "theirs", "{plant}");
        assert!(!prepared.exists(), "{plant}");
        container.delete_by_force().silent();
        std::fs::remove_file(container.pid_file()).unwrap();
    }
}

#[test]
fn a_create_of_a_taken_id_keeps_the_record_of_the_existing_container() {
    let container = Container::new();
    container.hook("start", "echo hello from start");
    container.create().ok();
    container.start().ok();
    let record = PathBuf::from("/run/balena-extension-runtime-deploys");
    let record = record.join(format!("{}.json", container.id));
    let before = std::fs::read_to_string(&record).unwrap();
    container.call(&["create", "-b", "/nonexistent", &container.id]).fails(&["/nonexistent"]);
    container.create().fails(&["container with given ID already exists"]);
    assert_eq!(std::fs::read_to_string(&record).unwrap(), before);
    container.delete().ok();
    container.call(&["create", "-b", "/nonexistent", &container.id]).fails(&["/nonexistent"]);
    assert!(std::fs::read_to_string(&record).unwrap().contains("/nonexistent"));
    std::fs::remove_file(record).unwrap();
}

#[test]
fn a_log_that_another_user_replaced_by_a_link_is_not_written() {
    let container = Container::new();
    let shared = container.beside("shared");
    std::fs::create_dir(&shared).unwrap();
    mode(&shared, 0o1777);
    let (log, other) = (shared.join("log"), container.beside("other"));
    std::fs::write(&other, "").unwrap();
    symlink(&other, &log).unwrap();
    std::os::unix::fs::lchown(&log, Some(NOBODY), None).unwrap();
    let call = |words: &[&str]| {
        let mut command = Command::new(programs::runtime());
        command.env_clear().arg("--root").arg(container.root()).arg("--log").arg(&log);
        capture::run(command.args(words))
    };
    let created = call(&["create", "-b", container.text(), &container.id]);
    assert!(created.code() == 1 && created.err.contains("belongs to user 65534"), "{created}");
    let listed = call(&["list", "-q"]).ok();
    assert!(listed.err.contains("belongs to user 65534"), "{listed}");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "");
}
