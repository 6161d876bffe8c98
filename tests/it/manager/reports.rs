//! `status`, `list`, `inspect`, `logs` and `doctor` on a recorded engine, and on a data directory without an
//! engine.

use serde_json::{Value, json};

use crate::programs;

use super::host::{BLOCK, BOOT, Host};
use super::recorded_engine::Answer;
use super::recorded_store::{Container, KERNEL, Store, labels};

fn verdict(host: &Host, id: &str) -> (String, String) {
    let document = host.manager(&["status", "--format", "json", id]).ok().json();
    let one = &document["extensions"][0];
    let text = |field: &str| one[field].as_str().unwrap().to_owned();
    (text("verdict"), text("reason"))
}

#[test]
fn status_joins_what_is_known_and_changes_with_it() {
    let abi = "ab".repeat(32);
    let kernel = labels(&[("io.balena.image.kernel-abi-id", abi.as_str())]);
    let store = Store::of(&[
        Container { labels: kernel, ..Container::new("kernel") },
        Container::new("plain"),
        Container {
            labels: labels(&[("io.balena.image.requires-reboot", "1")]),
            ..Container::new("reboot")
        },
    ]);
    let host = Host::new();
    for id in ["kernel", "plain", "reboot"] {
        host.deployed(id, &["hooks/start"]);
    }
    let _engine = host.engine(&store);
    let seen = |id| verdict(&host, id);
    let is = |verdict: &str, reason: &str| (verdict.to_owned(), reason.to_owned());
    assert_eq!(seen("kernel"), is("stale", "kernel-abi-mismatch"));
    host.write("mnt/boot/bootenv", &format!("{BLOCK}kernel_override_abi={abi}\n####"));
    assert_eq!(seen("kernel"), is("unknown", "boot-environment-unreadable"), "it is not mounted");
    host.mounts(BOOT);
    assert_eq!(seen("kernel"), is("pending-reboot", "kernel-armed"));
    host.write("mnt/boot/bootenv", "torn");
    assert_eq!(seen("kernel"), is("unknown", "boot-environment-unreadable"));
    host.write("proc/cmdline", &format!("quiet balena_kernel_abi={abi}"));
    assert_eq!(seen("kernel"), is("unknown", "boot-environment-unreadable"));
    host.write("mnt/boot/bootenv", &format!("{BLOCK}####"));
    assert_eq!(seen("kernel"), is("applied", "hooks-ran"));
    host.write("mnt/state/override-rejected", &format!("{abi}\n"));
    assert_eq!(seen("kernel"), is("refused", "kernel-rejected"));
    std::fs::remove_file(host.path("mnt/state/override-rejected")).unwrap();
    assert_eq!(seen("kernel"), is("unknown", "rejected-unreadable"), "it is not mounted");
    host.mounts(&format!("{BOOT}/dev/sda5 /mnt/state ext4 rw 0 0\n"));
    assert_eq!(seen("kernel"), is("applied", "hooks-ran"));

    assert_eq!(seen("plain"), is("applied", "hooks-ran"));
    assert_eq!(seen("reboot"), is("pending-reboot", "requires-reboot"));
    // As on a device whose clock was set after the boot and the deploy.
    host.write("proc/stat", "btime 1800000000\n");
    assert_eq!(seen("plain"), is("applied", "hooks-ran"));
    // The host has booted since, so there is no record.
    std::fs::remove_dir_all(host.path("run/balena-extension-runtime-deploys")).unwrap();
    assert_eq!(seen("plain"), is("unknown", "not-visible"));
    host.write("proc/mounts", "overlay / overlay ro,lowerdir=/x/overlay2/l/diff:/r/diff 0 0\n");
    assert_eq!(seen("plain"), is("skipped", "not-layered"));
    host.write("proc/stat", "btime 1700000000\n");
    assert_eq!(seen("plain"), is("unknown", "not-recorded"));
    std::fs::remove_file(host.path("proc/mounts")).unwrap();
    assert_eq!(seen("plain"), is("unknown", "mounts-unreadable"));
    host.write("proc/mounts", "");
    std::fs::remove_file(host.path("proc/stat")).unwrap();
    assert_eq!(seen("plain"), is("unknown", "start-time-unknown"));
}

#[test]
fn layers_are_found_behind_short_links_or_are_unknown() {
    let link = |host: &Host, link: &str, target: &str| {
        let link = host.path(link);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, link).unwrap();
    };
    let applied = ("applied", "layered-at-boot");
    for (lower, expected) in [
        ("/initramfs/docker/overlay2/own-a/diff", applied),
        ("/initramfs/docker/overlay2/l/SHORT", applied),
        ("/tmp/mobynit-lower1/0", applied),
        ("/tmp/mobynit-lower1/1", applied),
        ("/tmp/mobynit-lower2/0", ("unknown", "layers-unnamed")),
        ("/initramfs/docker/overlay2/l/GONE", ("unknown", "layers-unnamed")),
        ("/initramfs/docker/overlay2/other/diff", ("skipped", "not-layered")),
    ] {
        let (host, store) = (Host::new(), Store::of(&[Container::new("a")]));
        // In the data root that the engine reports.
        link(&host, "mnt/engine/overlay2/l/SHORT", "../own-a/diff");
        link(&host, "tmp/mobynit-lower1/0", "/initramfs/docker/overlay2/own-a/diff");
        link(&host, "run/initramfs/mobynit-lower1/1", "/initramfs/docker/overlay2/l/SHORT");
        host.write("proc/stat", "btime 1800000000\n");
        host.mounts(&format!(
            "overlay / overlay ro,lowerdir={lower}:/balena/overlay2/os/diff 0 0\n"
        ));
        let _engine = host.engine(&store);
        let (verdict, reason) = verdict(&host, "a");
        assert_eq!((verdict.as_str(), reason.as_str()), expected, "{lower}");
    }
}

#[test]
fn the_next_step_names_the_log_that_the_initramfs_left() {
    let (host, store) = (Host::new(), Store::of(&[Container::new("a")]));
    host.write("proc/stat", "btime 1800000000\n");
    host.mounts("overlay / overlay ro,lowerdir=/balena/overlay2/os/diff 0 0\n");
    let _engine = host.engine(&store);
    let next = || {
        let document = host.manager(&["inspect", "a"]).ok().json();
        document["extension"]["next"].as_str().unwrap().to_owned()
    };
    assert!(next().contains("/run/initramfs/initramfs.debug (not every version"), "{}", next());
    host.write("tmp/initramfs/initramfs.debug", "Overlayed images:\n");
    assert!(next().contains("/tmp/initramfs/initramfs.debug, and"), "{}", next());
    assert!(!next().contains("dmesg"));
}

#[test]
fn only_this_runtime_applies_and_an_image_without_hooks_waits_for_the_next_boot() {
    let by = |id, runtime| Container { runtime, ..Container::new(id) };
    let store = Store::of(&[
        by("runc", "runc"),
        by("shim", "shim"),
        by("oci", "oci"),
        by("hooks", "extension"),
        by("files", "extension"),
        Container { exit_code: 127, ..by("runc-127", "runc") },
        Container { exit_code: 255, ..by("lost", "extension") },
        Container { exit_code: 137, ..by("killed", "extension") },
    ]);
    let host = Host::new();
    host.deployed("hooks", &["hooks/create"]);
    host.deployed("files", &[]);
    let _engine = host.engine(&store);
    for (id, expected) in [
        ("runc", ("failed", "other-runtime")),
        ("runc-127", ("failed", "other-runtime")),
        // The runtime behind a shim is unknown, and so is the one that Podman calls so; and there is no record.
        ("shim", ("unknown", "not-recorded")),
        ("oci", ("unknown", "not-recorded")),
        ("hooks", ("applied", "hooks-ran")),
        ("files", ("pending-reboot", "no-hooks")),
        ("lost", ("failed", "bad-exit")),
        ("killed", ("failed", "killed")),
    ] {
        let (verdict, reason) = verdict(&host, id);
        assert_eq!((verdict.as_str(), reason.as_str()), expected, "{id}");
    }
    let inspected = host.manager(&["inspect", "runc"]).ok().json();
    let next = inspected["extension"]["next"].as_str().unwrap();
    assert_eq!(
        next,
        "remove it: docker rm runc; then deploy it with: docker run --runtime extension IMAGE"
    );
    assert_eq!(inspected["runtime"], "runc");
}

#[test]
fn a_record_that_cannot_be_read_is_not_a_missing_one() {
    let (host, store) = (Host::new(), Store::of(&[Container::new("a")]));
    host.write("run/balena-extension-runtime-deploys/a.json", "{");
    let _engine = host.engine(&store);
    let (verdict, reason) = verdict(&host, "a");
    assert_eq!((verdict.as_str(), reason.as_str()), ("unknown", "record-unreadable"));
    let inspected = host.manager(&["inspect", "a"]).ok().json();
    assert!(inspected["deploy"]["unreadable"].as_str().unwrap().contains("a.json"));
}

/// The files of this machine below these directories that a traced call opened, except with RESOLVE_IN_ROOT.
fn opened(trace: &str, folders: &[&str]) -> Vec<String> {
    let calls = trace.lines().filter(|line| !line.contains("RESOLVE_IN_ROOT"));
    let below = |line: &&str| folders.iter().any(|folder| line.contains(&format!("\"{folder}")));
    calls.filter(below).map(str::to_owned).collect()
}

#[test]
fn only_the_copy_of_a_host_is_read_wherever_its_links_lead() {
    let host = Host::new();
    let link = |target: &str, link: &str| {
        let link = host.path(link);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, link).unwrap();
    };
    host.deployed("a", &["hooks/start"]);
    // As on NixOS and Arch, and the data root as on balenaOS.
    std::fs::rename(host.path("etc/os-release"), host.path("os-release")).unwrap();
    link("/os-release", "etc/os-release");
    link("/mnt/data/docker", "var/lib/docker");
    std::fs::rename(host.path("run"), host.path("run-of-the-copy")).unwrap();
    link("/run-of-the-copy", "run");
    link("/run", "var/run");
    link("/boot-of-the-copy", "mnt/boot");
    host.write("boot-of-the-copy/bootenv", "torn");
    let mounts = std::fs::read_to_string(host.path("proc/mounts")).unwrap();
    host.mounts(&format!("{mounts}{BOOT}"));
    let record = json!({
        "ID": "a", "Name": "/a", "State": { "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0 },
        "Config": { "Image": "x", "Labels": labels(&[("io.balena.image.os-version", "2.113.*")]) },
    });
    host.write("mnt/data/docker/containers/a/config.v2.json", &record.to_string());
    let trace = host.path("trace");
    let root = host.path("");
    let run = |words: &[&str]| {
        let mut strace = std::process::Command::new("strace");
        strace.args(["-f", "-e", "trace=%file,connect", "-o"]).arg(&trace);
        strace.arg(programs::manager()).args(words).arg("--host-root").arg(&root);
        crate::capture::run(strace.env_remove("DOCKER_HOST"))
    };
    let status = run(&["status", "--format", "json"]).ok().json();
    assert_eq!(status["extensions"][0]["verdict"], "applied", "{status}");
    assert_eq!(status["extensions"][0]["claims"][0]["running"], "2.113.4");
    let folders =
        ["/etc/os-release", "/usr/lib/os-release", "/var/", "/run", "/mnt", "/boot-of", "/proc/m"];
    let seen = opened(&std::fs::read_to_string(&trace).unwrap(), &folders);
    assert!(seen.is_empty(), "status: {seen:#?}");
    for words in [&["list"][..], &["logs", "a"], &["doctor"], &["cleanup", "--stale-os"]] {
        run(words);
        let seen = opened(&std::fs::read_to_string(&trace).unwrap(), &folders);
        assert!(seen.is_empty(), "{words:?}: {seen:#?}");
    }
}

#[test]
fn an_extension_is_found_by_its_name_and_the_beginning_of_its_id() {
    let store = Store::of(&["abc1", "abd2", "abd"].map(Container::new));
    let host = Host::new();
    let _engine = host.engine(&store);
    for (word, expected) in [
        ("abc", "abc1"),
        ("abd", "abd"),
        ("abd2", "abd2"),
        ("name-of-abc1", "abc1"),
        ("/name-of-abc1", "abc1"),
    ] {
        let document = host.manager(&["inspect", word]).ok().json();
        assert_eq!(document["extension"]["id"], expected, "{word}");
    }
    for (word, expected) in [("x", "there is no extension \"x\""), ("ab", "abc1, abd2, abd")] {
        let finished = host.manager(&["status", word]);
        assert!(finished.code() == 1 && finished.err.contains(expected), "{finished}");
    }
}

#[test]
fn list_is_for_scripts() {
    let store = Store::of(&["a", "b"].map(Container::new));
    let host = Host::new();
    let _engine = host.engine(&store);
    assert_eq!(host.manager(&["list"]).ok().out, "a\tname-of-a\nb\tname-of-b\n");
    assert_eq!(host.manager(&["list", "-q"]).ok().out, "a\nb\n");
    let document = host.manager(&["list", "--format", "json"]).ok().json();
    assert_eq!(document["extensions"][1], json!({ "id": "b", "name": "name-of-b" }));
}

/// A container in the usual data directory of an engine.
fn stored(host: &Host, id: &str, state: &Value) {
    stored_in(host, "var/lib/docker", id, state);
}

/// A container in the engine's data directory.
pub(super) fn stored_in(host: &Host, root: &str, id: &str, state: &Value) {
    let record = json!({
        "ID": id, "Name": format!("/name-of-{id}"), "State": state, "Image": "sha256:i",
        "Config": { "Image": "img", "Labels": labels(&[(KERNEL, "6.1.0")]) },
    });
    let name = format!("{root}/containers/{id}/config.v2.json");
    host.write(&name, &record.to_string());
}

#[test]
fn status_comes_from_the_data_directory_when_the_engine_is_down() {
    let host = Host::new();
    stored(&host, "good", &json!({ "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0 }));
    stored(&host, "bad", &json!({ "Error": "no", "StartedAt": "0001-01-01T00:00:00Z" }));
    stored(&host, "dead", &json!({ "Dead": true }));
    host.deployed("good", &["hooks/start"]);
    host.write("var/lib/docker/containers/broken/config.v2.json", "{");
    let finished = host.manager(&["status", "--format", "json"]).ok();
    let document = finished.json();
    assert_eq!(document["source"], "store");
    let extensions = document["extensions"].as_array().unwrap();
    let seen: Vec<(&str, &str)> = extensions
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("bad", "failed"), ("dead", "dead"), ("good", "applied")]);
    for text in ["cannot be reached", "container store", "broken/config.v2.json"] {
        assert!(finished.err.contains(text), "{text}: {finished}");
    }
    assert_eq!(host.manager(&["list", "-q"]).ok().out, "bad\ndead\ngood\n");
    let inspected = host.manager(&["inspect", "bad"]).ok().json();
    assert_eq!(inspected["error"], "no");
}

#[test]
fn without_engine_and_store_both_are_named() {
    let host = Host::new();
    for words in [&["status"][..], &["status", "--docker-root", "/nowhere"]] {
        let finished = host.manager(words);
        assert_eq!(finished.code(), 1);
        for text in ["cannot be reached", "container store", "--docker-root"] {
            assert!(finished.err.contains(text), "{text}: {finished}");
        }
    }
}

#[test]
fn logs_show_the_record_with_and_without_an_engine() {
    let host = Host::new();
    let record = json!({ "version": 1, "id": "abcdef", "steps": [{
        "verb": "create", "time": "2026-01-01T00:00:00Z", "error": "hook hooks/create exited",
        "warnings": ["odd"], "hooks": [{ "hook": "hooks/create", "output": "one\n\u{1b}[31mtwo\n" }],
    }]});
    host.write("run/balena-extension-runtime-deploys/abcdef.json", &record.to_string());
    let expected = "2026-01-01T00:00:00Z create failed\n  hooks/create printed:\n    one\n    \
                    \\u{1b}[31mtwo\n  warning: odd\n  error: hook hooks/create exited\n";
    assert_eq!(host.manager(&["logs", "abc"]).ok().out, expected);
    let finished = host.manager(&["logs", "name"]);
    assert!(
        finished.code() == 1 && finished.err.contains("names cannot be looked up"),
        "{finished}"
    );
    assert!(finished.err.contains("there is no extension \"name\""), "{finished}");
    // The data directory has names as well.
    stored(&host, "abcdef", &json!({ "Error": "no" }));
    assert_eq!(host.manager(&["logs", "name-of-abcdef"]).ok().out, expected);
    let engine = host.engine(&Store::of(&[Container::new("abcdef"), Container::new("other")]));
    assert_eq!(host.manager(&["logs", "name-of-abcdef"]).ok().out, expected);
    let finished = host.manager(&["logs", "name-of-other"]);
    assert!(finished.code() == 1 && finished.err.contains("nothing is recorded"), "{finished}");
    drop(engine);
    host.write("run/balena-extension-runtime-deploys/abcdef.json", "{");
    let finished = host.manager(&["logs", "abcdef"]);
    assert!(finished.code() == 1 && finished.err.contains("abcdef.json"), "{finished}");
}

#[test]
fn the_name_of_a_container_wins_over_the_start_of_a_record_id() {
    let host = Host::new();
    for id in ["cafe01", "beef02"] {
        let record = json!({ "version": 1, "id": id, "steps": [{
            "verb": "create", "time": id, "error": "no",
        }]});
        let path = format!("run/balena-extension-runtime-deploys/{id}.json");
        host.write(&path, &record.to_string());
    }
    let named = Container { name: Some("cafe"), ..Container::new("beef02") };
    let also = Container { name: Some("cafe01"), ..Container::new("cafe99") };
    let _engine = host.engine(&Store::of(&[also, named]));
    let logs = |word: &str| host.manager(&["logs", word]);
    assert!(logs("cafe").ok().out.starts_with("beef02 create failed"), "a name");
    assert!(logs("cafe01").ok().out.starts_with("cafe01 create failed"), "a whole id");
    assert!(logs("bee").ok().out.starts_with("beef02 create failed"), "the beginning of one");
    let ambiguous = logs("caf");
    assert!(
        ambiguous.code() == 1 && ambiguous.err.contains("several ids begin with"),
        "{ambiguous}"
    );
    let inspected = host.manager(&["inspect", "cafe"]).ok().json();
    assert_eq!(inspected["extension"]["id"], "beef02");
    let missing = logs("/");
    assert!(missing.code() == 1 && missing.err.contains("no extension"), "{missing}");
}

#[test]
fn the_record_says_why_an_extension_was_refused_and_cleanup_keeps_it() {
    let host = Host::new();
    let _engine = host.engine(&Store::of(&[Container { exit_code: 1, ..Container::new("a") }]));
    let reported = || {
        let document = host.manager(&["status", "--format", "json"]).ok().json();
        let text = |field: &str| document["extensions"][0][field].as_str().unwrap().to_owned();
        (text("verdict"), text("reason"), text("detail"))
    };
    let expected = |why: &str| {
        let detail = format!("the runtime refused to start it{why}");
        ("refused".to_owned(), "refused-by-runtime".to_owned(), detail)
    };
    assert_eq!(reported(), expected(" (exit status 1)"));
    let record = json!({ "version": 1, "id": "a", "steps": [
        { "verb": "create", "time": "" },
        { "verb": "start", "time": "", "refused": "the cause", "warnings": ["refused: the cause"] },
        { "verb": "delete", "time": "", "warnings": ["odd"] },
    ]});
    host.write("run/balena-extension-runtime-deploys/a.json", &record.to_string());
    assert_eq!(reported(), expected(": the cause"));
    let logs = host.manager(&["logs", "a"]).ok().out;
    assert!(logs.contains("start refused the extension\n  warning: refused: the cause"), "{logs}");
    let cleanup = host.manager(&["cleanup"]).ok();
    assert!(cleanup.out.contains("0 removed, 1 kept, 0 failed"), "{cleanup}");
}

#[test]
fn the_record_makes_the_sentence_of_a_failure() {
    let host = Host::new();
    let container = Container { error: "much around it", state: "created", ..Container::new("a") };
    let _engine = host.engine(&Store::of(&[container]));
    let detail = || {
        let document = host.manager(&["status", "--format", "json"]).ok().json();
        document["extensions"][0]["detail"].as_str().unwrap().to_owned()
    };
    assert_eq!(detail(), "much around it");
    let record = json!({ "version": 1, "id": "a", "steps": [{
        "verb": "create", "time": "", "error": "the cause",
    }]});
    host.write("run/balena-extension-runtime-deploys/a.json", &record.to_string());
    assert_eq!(detail(), "the cause");
}

#[test]
fn doctor_finds_problems_and_says_how_to_fix_them() {
    let host = Host::new();
    host.write("proc/filesystems", "nodev\ttmpfs\n\text4\n");
    host.write("mnt/boot/bootenv", "torn");
    let finished = host.manager(&["doctor"]);
    assert_eq!(finished.code(), 1);
    for text in [
        "problem  engine",
        "problem  boot-environment",
        "problem  overlayfs",
        "warning  namespaces",
        "warning  unit",
        "fix: start the engine",
    ] {
        assert!(finished.out.contains(text), "{text}: {finished}");
    }
    let document = host.manager(&["doctor", "--format", "json"]).json();
    let checks = document["checks"].as_array().unwrap();
    assert!(checks.iter().all(|line| line["level"] == "ok" || line["fix"].is_string()));
}

/// The finding of doctor about the runtime that the engine has registered as `path`.
fn runtime_check(host: &Host, path: &'static str) -> (String, String) {
    let _engine = host.engine_but(&Store::default(), move |_, asked| {
        let info = json!({ "Runtimes": { "extension": { "path": path } } });
        asked.ends_with("/info").then_some(Answer::Json(200, info))
    });
    let document = host.manager(&["doctor", "--format", "json"]).json();
    let checks = document["checks"].as_array().unwrap();
    let line = checks.iter().find(|line| line["check"] == "runtime").unwrap();
    let text = |field: &str| line[field].as_str().unwrap().to_owned();
    (text("level"), text("text"))
}

/// `doctor` reads the version from the file: as root it must not run a program that others may have changed.
#[test]
fn doctor_says_whether_the_registered_runtime_is_of_the_managers_version() {
    const PATH: &str = "/usr/bin/balena-extension-runtime";
    let host = Host::new();
    let check = |path| runtime_check(&host, path);
    let missing = check(PATH);
    assert!(missing.0 == "problem" && missing.1.ends_with("which is missing"), "{missing:?}");

    let own = crate::capture::run(std::process::Command::new(programs::manager()).arg("--version"));
    let own = own.ok().out.replace("-manager version", "-runtime version");
    let foreign = own.replace(" version ", " version other-");
    // The name only decides for a program without a version.
    for (name, path) in [(PATH, PATH), ("/opt/extension", "/opt/extension")] {
        host.write(&name[1..], &format!("\u{7f}ELF…{own}…"));
        let same = check(path);
        assert!(same.0 == "ok" && same.1.ends_with("(same version as the manager)"), "{same:?}");
        host.write(&name[1..], &format!("{}{foreign}", "x".repeat(300_000)));
        let other = check(path);
        assert_eq!(other.0, "warning");
        assert!(other.1.contains("which has version other-"), "{other:?}");
    }
    host.write("usr/bin/balena-extension-runtime", "#!/bin/sh\nexec runtime \"$@\"\n");
    let unknown = check(PATH);
    assert!(unknown.0 == "warning" && unknown.1.contains("contains no version"), "{unknown:?}");
    std::fs::remove_file(host.path(&PATH[1..])).unwrap();
    std::fs::create_dir(host.path(&PATH[1..])).unwrap();
    let unread = check(PATH);
    assert!(unread.0 == "warning" && unread.1.contains("cannot be read"), "{unread:?}");
}

#[test]
fn the_built_runtime_is_recognised_by_the_built_manager() {
    let host = Host::new();
    std::fs::create_dir_all(host.path("opt")).unwrap();
    std::fs::copy(programs::runtime(), host.path("opt/x")).unwrap();
    let (level, text) = runtime_check(&host, "/opt/x");
    assert_eq!(level, "ok", "{text}");
    std::fs::copy(programs::manager(), host.path("opt/x")).unwrap();
    let (_, text) = runtime_check(&host, "/opt/x");
    assert_eq!(text, "the engine does not know balena-extension-runtime");
}
