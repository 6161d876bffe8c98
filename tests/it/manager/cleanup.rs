//! `cleanup` on a recorded engine: what it removes, in which order, with which output and exit status.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::host::{BLOCK, BOOT, Host};
use super::recorded_engine::Answer;
use super::recorded_store::{CLASS, Container, Contents, KERNEL, OS, Store, labels};
use crate::process;

fn failed(id: &str) -> Container {
    Container { error: "it did not start", state: "created", ..Container::new(id) }
}

pub(crate) fn stale(id: &str) -> Container {
    Container { labels: labels(&[(KERNEL, "5.10.0")]), ..Container::new(id) }
}

#[test]
fn failed_and_dead_containers_are_removed_with_anonymous_volumes_and_all_else_is_kept() {
    let others = [
        Container { labels: Value::Null, ..failed("null") },
        Container { labels: json!({ CLASS: "volume" }), ..failed("volume") },
        Container { labels: json!({ CLASS: 1 }), ..failed("odd") },
    ];
    let dead = Container { state: "dead", ..Container::new("dead") };
    let ours = [failed("failed"), dead, stale("stale"), Container::new("clean")];
    let store = Store::of(&[&others[..], &ours].concat());
    let host = Host::new();
    let engine = host.engine(&store);
    let finished = host.manager(&["cleanup"]).ok();
    assert!(finished.out.contains("2 removed, 2 kept, 0 failed"), "{finished}");
    assert_eq!(
        engine.removals(),
        [
            "DELETE /v1.41/containers/dead?v=true&force=true",
            "DELETE /v1.41/containers/failed?v=true&force=true",
        ]
    );
    assert_eq!(store.ids(), ["null", "volume", "odd", "stale", "clean"]);
    let again = host.manager(&["cleanup"]).ok();
    assert!(again.out.contains("0 removed"), "{again}");
}

#[test]
fn with_stale_os_containers_go_before_images_and_images_before_volumes() {
    let claim = labels(&[(OS, "2.112.*, 2.111.*")]);
    let gone = Container {
        labels: claim.clone(),
        image: "old".to_owned(),
        volumes: vec![("v".to_owned(), "/nowhere".to_owned())],
        ..Container::new("gone")
    };
    let contents = Contents {
        containers: vec![gone, Container::new("kept")],
        images: vec![("old".to_owned(), claim.clone()), ("new".to_owned(), labels(&[]))],
        volumes: vec![("v".to_owned(), claim)],
    };
    let (store, host) = (Store::new(contents), Host::new());
    let engine = host.engine(&store);
    let finished = host.manager(&["cleanup", "--stale-os", "--format", "json"]);
    let document = finished.json();
    assert_eq!(document["summary"]["bytes"], 1010, "{finished}");
    assert_eq!(document["summary"]["remove"], 3);
    let deletes: Vec<String> =
        engine.requests().into_iter().filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(
        deletes,
        [
            "DELETE /v1.41/containers/gone?v=true&force=true",
            "DELETE /v1.41/images/old",
            "DELETE /v1.41/volumes/v",
        ]
    );
    // The volume's directory does not exist, so it is unknown whether it had a `deactivate`.
    assert_eq!(finished.code(), 1);
    assert!(finished.err.contains("deactivate of volume v"), "{finished}");
    assert_eq!(document["objects"][0]["deactivated"][0]["ran"], false);
}

#[test]
fn one_bad_object_never_stops_the_rest() {
    let store = Store::of(&[failed("a"), failed("b"), failed("c"), Container::new("d")]);
    let host = Host::new();
    let _engine = host.engine_but(&store, |method, path| {
        let refused = method == "DELETE" && path.starts_with("/containers/b?");
        let unreadable = path == "/containers/d/json";
        (refused || unreadable).then(|| Answer::Json(500, json!({ "message": "disk on fire" })))
    });
    let finished = host.manager(&["cleanup"]);
    assert_eq!(finished.code(), 1);
    assert_eq!(store.ids(), ["b", "d"]);
    for text in [
        "2 removed, 1 kept, 2 failed",
        "container b (name-of-b) is still there: cannot remove container b: the engine answered with \
         status 500: disk on fire",
        "container d (name-of-d) is kept: no decision is possible: cannot inspect container d: the engine answered with status 500",
    ] {
        assert!(finished.out.contains(text) || finished.err.contains(text), "{text}: {finished}");
    }
}

#[test]
fn a_container_that_vanishes_or_is_left_dead_or_is_being_removed_counts_as_done() {
    let store = Store::of(&[failed("vanishes"), failed("dies"), failed("taken"), failed("unseen")]);
    let host = Host::new();
    let seen = store.clone();
    let _engine = host.engine_but(&store, move |method, path| {
        let error = |status, text: &str| Some(Answer::Json(status, json!({ "message": text })));
        let set = |id: &str, state| {
            let mut contents = seen.contents();
            contents
                .containers
                .iter_mut()
                .filter(|one| one.id == id)
                .for_each(|one| one.state = state);
        };
        match (method, path.split('?').next().unwrap()) {
            (_, "/containers/unseen/json") => error(404, "no such container"),
            ("DELETE", "/containers/vanishes") => error(404, "no such container"),
            ("DELETE", "/containers/dies") => {
                set("dies", "dead");
                error(500, "device or resource busy")
            }
            ("DELETE", "/containers/taken") => {
                set("taken", "removing");
                error(409, "removal of container taken is already in progress")
            }
            _ => None,
        }
    });
    let document = host.manager(&["cleanup", "--format", "json"]).ok().json();
    let objects = document["objects"].as_array().unwrap();
    let results: Vec<&str> = objects.iter().map(|one| one["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["gone-already", "left-dead", "being-removed"]);
}

#[test]
fn an_update_that_can_still_roll_back_refuses_with_its_own_status() {
    let (store, host) = (Store::of(&[stale("a")]), Host::new());
    let engine = host.engine(&store);
    host.mounts(BOOT);
    host.write("mnt/boot/bootenv", &format!("{BLOCK}upgrade_available=1\n#####"));
    for words in [&["cleanup", "--stale-os"][..], &["cleanup", "--stale-os", "--dry-run"]] {
        let finished = host.manager(words);
        assert_eq!(finished.code(), 3, "{finished}");
        assert!(finished.err.contains("upgrade_available=1"), "{finished}");
    }
    assert!(engine.requests().is_empty(), "the engine was not even asked");
    host.manager(&["cleanup"]).ok();
    assert_eq!(store.ids(), ["a"], "a plain cleanup has nothing to do with it");
    host.manager(&["cleanup", "--stale-os", "--force"]).ok();
    assert!(store.ids().is_empty());
}

#[test]
fn an_update_that_begins_while_the_lock_is_waited_for_refuses_too() {
    let (store, host) = (Store::of(&[stale("a")]), Host::new());
    let engine = host.engine(&store);
    host.mounts(BOOT);
    host.write("mnt/boot/bootenv", &format!("{BLOCK}#####"));
    let held = hold_the_lock(&host);
    let err = tempfile::NamedTempFile::new().unwrap();
    let mut command = host.command(&["cleanup", "--stale-os"]);
    let mut started = process::start(command.stderr(err.reopen().unwrap()));
    process::wait_for("the first request", || (!engine.requests().is_empty()).then_some(()));
    host.write("mnt/boot/bootenv", &format!("{BLOCK}upgrade_available=1\n#####"));
    drop(held);
    assert_eq!(started.wait(), 3);
    assert!(std::fs::read_to_string(err.path()).unwrap().contains("upgrade_available=1"));
    assert_eq!(store.ids(), ["a"]);
}

/// Holds the operation lock, like another manager.
fn hold_the_lock(host: &Host) -> std::fs::File {
    let held = std::fs::File::create(host.path("run/balena-extension-manager.lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    held
}

#[test]
fn a_boot_environment_that_cannot_be_read_refuses_too() {
    let open = format!("{BLOCK}#####");
    for (mounts, name, text) in [
        (BOOT, "mnt/boot/bootenv", "torn"),
        (BOOT, "mnt/boot/EFI/BOOT/grubenv", "torn"),
        (BOOT, "mnt/boot/resinOS_uEnv.txt", "upgrade_available=maybe\n"),
        (BOOT, "mnt/boot/other", ""),
        ("", "mnt/boot/bootenv", open.as_str()),
    ] {
        let (store, host) = (Store::of(&[stale("a")]), Host::new());
        let _engine = host.engine(&store);
        host.mounts(mounts);
        host.write(name, text);
        let finished = host.manager(&["cleanup", "--stale-os"]);
        assert_eq!(finished.code(), 1, "{finished}");
        assert!(finished.err.contains("--force"), "{finished}");
        assert_eq!(store.ids(), ["a"]);
        host.manager(&["cleanup", "--stale-os", "--force"]).ok();
        assert!(store.ids().is_empty());
    }
}

#[test]
fn every_boot_loader_keeps_the_window_closed() {
    let block = format!("{BLOCK}bootcount=0\nupgrade_available=1\n#####");
    let lines = "resin_root_part=3\nupgrade_available=1\n";
    for (name, text) in [
        ("mnt/boot/resinOS_uEnv.txt", lines),
        ("mnt/boot/grubenv", &block),
        ("mnt/boot/EFI/BOOT/grubenv", &block),
        ("mnt/boot/grub/grubenv", &block),
        ("mnt/efi/EFI/BOOT/grubenv", &block),
        ("mnt/imx/bootenv", &block),
    ] {
        let (store, host) = (Store::of(&[stale("a")]), Host::new());
        let _engine = host.engine(&store);
        host.mounts(&format!(
            "{BOOT}/dev/sda2 /mnt/efi vfat rw 0 0\n/dev/sda3 /mnt/imx vfat rw 0 0\n"
        ));
        // An open window of one claim does not open the others.
        host.write("mnt/boot/bootenv", &format!("{BLOCK}upgrade_available=0\n#####"));
        host.manager(&["cleanup", "--stale-os", "--dry-run"]).ok();
        host.write(name, text);
        let finished = host.manager(&["cleanup", "--stale-os"]);
        assert!(finished.code() == 3 && finished.err.contains(name), "{finished}");
        host.write(name, &text.replace("available=1", "available=0"));
        host.manager(&["cleanup", "--stale-os"]).ok();
        assert!(store.ids().is_empty(), "{name}");
    }
}

#[test]
fn a_malformed_os_version_keeps_the_container_and_is_reported() {
    let container = Container { labels: labels(&[(OS, "1.*,[")]), ..Container::new("a") };
    let store = Store::new(Contents {
        containers: vec![container],
        images: vec![("i".to_owned(), labels(&[(OS, "[")]))],
        volumes: vec![("v".to_owned(), labels(&[(OS, "[")]))],
    });
    let host = Host::new();
    host.deployed("a", &["hooks/start"]);
    let _engine = host.engine(&store);
    let warning = "its label io.balena.image.os-version is malformed";
    for words in [&["cleanup", "--stale-os"][..], &["cleanup", "--stale-os", "--dry-run"]] {
        let finished = host.manager(words).ok();
        assert_eq!(finished.out.matches(warning).count(), 3, "{finished}");
        assert!(finished.out.contains("3 kept"), "{finished}");
    }
    let document = host.manager(&["cleanup", "--stale-os", "--format", "json"]).ok().json();
    assert_eq!(document["objects"][0]["reason"], "malformed-claim");
    let plain = host.manager(&["cleanup"]).ok();
    assert!(!plain.out.contains(warning), "claims are not asked: {plain}");
    let status = host.manager(&["status"]).ok();
    assert!(status.out.contains(&format!("warning: {warning}")), "{status}");
    let document = host.manager(&["status", "--format", "json"]).ok().json();
    assert!(document["extensions"][0]["warning"].as_str().unwrap().starts_with(warning));
    assert_eq!(document["extensions"][0]["claims"][0]["holds"], Value::Null);
}

#[test]
fn host_facts_that_cannot_be_read_remove_nothing_and_fail() {
    for (file, claim) in [
        ("etc/os-release", (OS, "1.*")),
        ("proc/sys/kernel/osrelease", (KERNEL, "5.10.0")),
        ("proc/cmdline", ("io.balena.image.kernel-abi-id", "ab")),
    ] {
        let container = Container { labels: labels(&[claim]), ..Container::new("a") };
        let (store, host) = (Store::of(&[container]), Host::new());
        let _engine = host.engine(&store);
        std::fs::remove_file(host.path(file)).unwrap();
        let finished = host.manager(&["cleanup", "--stale-os"]);
        assert_eq!((finished.code(), store.ids().len()), (1, 1), "{file}: {finished}");
        let name = file.rsplit('/').next().unwrap();
        assert!(finished.err.contains(name), "{finished}");
    }
    let container = Container { labels: labels(&[(OS, "1.*")]), ..Container::new("a") };
    let (store, host) = (Store::of(&[container]), Host::new());
    let _engine = host.engine(&store);
    host.write("etc/os-release", "ID=x\n");
    let finished = host.manager(&["cleanup", "--stale-os"]);
    assert!(finished.code() == 1 && finished.err.contains("has no VERSION_ID"), "{finished}");
    assert_eq!(store.ids(), ["a"]);
}

#[test]
fn a_thousand_dead_containers_go_four_at_a_time() {
    let dead = |number| Container { state: "dead", ..Container::new(&format!("c{number}")) };
    let store = Store::of(&(0..1000).map(dead).collect::<Vec<_>>());
    let host = Host::new();
    let engine = host.engine_but(&store, |method, _| {
        if method == "DELETE" {
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    });
    let finished = host.manager(&["cleanup"]).ok();
    assert!(finished.out.contains("1000 removed"), "{}", finished.err);
    assert!(store.ids().is_empty());
    assert_eq!(engine.most_in_flight(), 4);
}

#[test]
fn a_signal_ends_cleanup_and_the_rest_is_reported_as_not_tried() {
    let store = Store::of(&(0..50).map(|number| failed(&format!("c{number}"))).collect::<Vec<_>>());
    let host = Host::new();
    let slow = store.clone();
    let engine = host.engine_but(&store, move |method, path| {
        let late = |answer| Answer::Late(Duration::from_millis(300), Box::new(answer));
        (method == "DELETE").then(|| late(slow.answer(method, path)))
    });
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = host.command(&["cleanup", "--format", "json"]);
    let mut started = process::start(command.stdout(out.reopen().unwrap()));
    process::wait_for("the first removals", || (!engine.removals().is_empty()).then_some(()));
    let signalled = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(started.pid()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(started.wait(), 4);
    assert!(signalled.elapsed() < process::allowed(Duration::from_secs(3)));
    let document: Value = serde_json::from_slice(&std::fs::read(out.path()).unwrap()).unwrap();
    assert!(document["summary"]["notTried"].as_u64().unwrap() > 20, "{document}");
    assert!(engine.removals().len() < 20);
}

#[test]
fn the_whole_ends_when_the_time_is_up() {
    let store = Store::of(&(0..50).map(|number| failed(&format!("c{number}"))).collect::<Vec<_>>());
    let host = Host::new();
    let _engine = host.engine_but(&store, |method, _| (method == "DELETE").then_some(Answer::Hang));
    let begun = Instant::now();
    let finished = host.manager(&["cleanup", "--timeout", "1"]);
    assert_eq!(finished.code(), 4, "{finished}");
    assert!(finished.err.contains("--timeout"), "{finished}");
    assert!(begun.elapsed() < process::allowed(Duration::from_secs(5)));
}

#[test]
fn only_one_cleanup_is_at_work_at_a_time() {
    let (store, host) = (Store::of(&[failed("a")]), Host::new());
    let _engine = host.engine(&store);
    let held = hold_the_lock(&host);
    let finished = host.manager(&["cleanup", "--timeout", "0.5"]);
    assert!(finished.code() == 4 && finished.err.contains("another"), "{finished}");
    host.manager(&["cleanup", "--dry-run"]).ok();
    assert_eq!(store.ids(), ["a"]);
    drop(held);
    host.manager(&["cleanup"]).ok();
    let lock = host.path("run/balena-extension-manager.lock");
    assert!(store.ids().is_empty() && lock.exists(), "the lock's file is never unlinked");
}

#[test]
fn a_removal_without_an_answer_is_not_called_failed() {
    let (store, host) = (Store::of(&[failed("a")]), Host::new());
    let engine = host.engine_but(&store, |method, _| (method == "DELETE").then_some(Answer::Hang));
    let (out, err) =
        (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut command = host.command(&["cleanup", "--format", "json"]);
    command.stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap());
    let mut started = process::start(&mut command);
    process::wait_for("the removal", || (!engine.removals().is_empty()).then_some(()));
    process::signal(started.pid(), rustix::process::Signal::TERM);
    assert_eq!(started.wait(), 4, "each had its turn, and the signal is why one failed");
    let document: Value = serde_json::from_slice(&std::fs::read(out.path()).unwrap()).unwrap();
    assert_eq!(document["objects"][0]["result"], "unknown");
    let err = std::fs::read_to_string(err.path()).unwrap();
    assert!(err.contains("may still be there"), "{err}");
}

#[test]
fn an_engine_that_dies_during_a_removal_leaves_it_unknown() {
    let (store, host) = (Store::of(&[failed("a")]), Host::new());
    let died = AtomicBool::new(false);
    let _engine = host.engine_but(&store, move |method, _| {
        let dies = died.fetch_or(method == "DELETE", Ordering::Relaxed) || method == "DELETE";
        dies.then(|| Answer::Raw(Vec::new()))
    });
    let finished = host.manager(&["cleanup", "--format", "json"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert_eq!(finished.json()["objects"][0]["result"], "unknown");
    assert!(finished.err.contains("may still be there"), "{finished}");
    assert!(finished.err.contains("remove container a: the connection broke"), "{finished}");
}

#[test]
fn a_failed_container_that_was_started_again_is_kept() {
    for state in ["running", "exited"] {
        let (store, host) = (Store::of(&[failed("a"), failed("b")]), Host::new());
        let (seen, asked) = (store.clone(), AtomicUsize::new(0));
        let engine = host.engine_but(&store, move |_, path| {
            // The second inspection comes right before the removal.
            if path == "/containers/a/json" && asked.fetch_add(1, Ordering::Relaxed) == 1 {
                let mut contents = seen.contents();
                let one = contents.containers.iter_mut().find(|one| one.id == "a").unwrap();
                (one.state, one.error) = (state, "");
            }
            None
        });
        let finished = host.manager(&["cleanup", "--format", "json"]).ok();
        let document = finished.json();
        assert_eq!(document["objects"][0]["result"], "recovered", "{finished}");
        assert_eq!(
            (&document["summary"]["remove"], &document["summary"]["keep"]),
            (&1.into(), &1.into())
        );
        assert_eq!(engine.removals().len(), 1);
        assert_eq!(store.ids(), ["a"]);
    }
}

#[test]
fn an_image_is_removed_after_the_images_built_on_it() {
    let claim = labels(&[(OS, "2.112.*")]);
    let ids = ["base", "middle", "top"];
    let contents = Contents {
        images: ids.map(|id| (id.to_owned(), claim.clone())).into(),
        ..Contents::default()
    };
    let (store, host) = (Store::new(contents), Host::new());
    let seen = store.clone();
    let _engine = host.engine_but(&store, move |method, path| {
        let position = ids.iter().position(|id| path == format!("/images/{id}"))?;
        let left = seen.contents().images.len();
        let has_child = method == "DELETE" && left > position + 1;
        has_child
            .then(|| Answer::Json(409, json!({ "message": "image has dependent child images" })))
    });
    let finished = host.manager(&["cleanup", "--stale-os"]).ok();
    assert!(finished.out.contains("3 removed, 0 kept, 0 failed"), "{finished}");
}

#[test]
fn an_object_that_cannot_be_parsed_only_keeps_what_it_may_use() {
    let claim = labels(&[(OS, "2.112.*")]);
    let contents = Contents {
        containers: vec![failed("a")],
        images: vec![("old".to_owned(), claim)],
        ..Contents::default()
    };
    let (store, host) = (Store::new(contents), Host::new());
    let _engine = host.engine_but(&store, |_, path| {
        let listed = json!([
            { "Id": null },
            { "Id": "a", "State": "created", "Labels": labels(&[]), "ImageID": "i" },
        ]);
        path.starts_with("/containers/json").then_some(Answer::Json(200, listed))
    });
    let finished = host.manager(&["cleanup", "--stale-os", "--format", "json"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("list the containers: an item"), "{finished}");
    let document = finished.json();
    assert_eq!(document["unreadable"].as_array().unwrap().len(), 1);
    assert_eq!(document["objects"][0]["result"], "removed");
    assert_eq!(document["objects"][1]["reason"], "undecided");
    assert_eq!(store.contents().images.len(), 1);
}

#[test]
fn an_inspection_without_a_state_decides_nothing() {
    let (store, host) = (Store::of(&[Container::new("a")]), Host::new());
    let _engine = host.engine_but(&store, |_, path| {
        (path == "/containers/a/json").then(|| Answer::Json(200, json!({ "State": null })))
    });
    let finished = host.manager(&["cleanup"]);
    assert!(finished.code() == 1 && finished.err.contains("no State"), "{finished}");
}
