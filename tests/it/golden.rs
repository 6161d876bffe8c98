//! Golden tests: every help text and every JSON document of both programs is compared with a file in
//! `tests/golden/`, so that each change of a text or of a field is seen and meant. What differs from run to run
//! (ids, pids, times, paths, this machine) is masked.
//!
//! After a change: `WRITE_GOLDEN=1 cargo test --test it -- only_ours_golden`, and look at the difference.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::container::Container;
use crate::manager::host::{BLOCK, BOOT, Host, bare};
use crate::manager::plan::device::Device;
use crate::manager::plan::stores::KERNELS;
use crate::manager::recorded_store::{self as stored, Contents, KERNEL, OS, Store, labels};
use crate::{capture, programs};

#[track_caller]
fn compare(name: &str, found: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(golden, found).unwrap();
        return;
    }
    let recorded = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(
        found == recorded,
        "{} differs; if it is meant: WRITE_GOLDEN=1 cargo test --test it -- only_ours_golden\n\
         recorded:\n{recorded}\nfound:\n{found}",
        golden.display()
    );
}

/// Compares a JSON document after these texts are masked, and these fields wherever they are.
#[track_caller]
fn compare_document(name: &str, text: &str, masked: &[(&str, &str)], fields: &[&str]) {
    let text = masked.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let mut document: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    mask(&mut document, fields);
    compare(&format!("documents/{name}.json"), &format!("{document:#}\n"));
}

fn mask(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if fields.contains(&name.as_str()) && !value.is_null() {
                    *value = format!("MASKED {name}").into();
                }
                mask(value, fields);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| mask(value, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_help_texts() {
    let help =
        |words: &[&str]| capture::run(Command::new(programs::runtime()).args(words)).ok().out;
    compare("help/balena-extension-runtime.txt", &help(&["--help"]));
    for verb in [
        "create",
        "start",
        "state",
        "kill",
        "delete",
        "list",
        "ps",
        "run",
        "features",
        "update",
        "checkpoint",
        "events",
        "exec",
        "pause",
        "restore",
        "resume",
    ] {
        compare(&format!("help/balena-extension-runtime-{verb}.txt"), &help(&[verb, "--help"]));
    }
    let help = |words: &[&str]| capture::run(&mut bare(words)).ok().out;
    compare("help/balena-extension-manager.txt", &help(&["--help"]));
    for command in [
        "cleanup", "status", "list", "inspect", "logs", "doctor", "check", "validate", "hup",
        "override", "history", "simulate", "try", "plan",
    ] {
        compare(
            &format!("help/balena-extension-manager-{command}.txt"),
            &help(&[command, "--help"]),
        );
    }
    compare("help/rules-of-check.txt", &help(&["check", "--rules"]));
}

#[test]
fn the_documents_of_the_runtime() {
    let container = Container::new();
    container.hook("create", "echo said by the hook");
    container.create().ok();
    let (id, pid) = (container.id.as_str(), container.pid().to_string());
    let top = container.beside("");
    let masked = [(id, "ID"), (top.to_str().unwrap().trim_end_matches('/'), "/TOP")];
    let masked = [masked[1], masked[0]];
    let of = |words: &[&str]| container.call(words).ok().out;
    let fields = ["created", "pid", "pidStartTime", "time", "device", "inode"];
    compare_document("runtime-state", &of(&["state", id]), &masked, &fields);
    compare_document("runtime-list", &of(&["list", "--format", "json"]), &masked, &fields);
    let pids = of(&["ps", "--format", "json", id]).replace(&pid, "7");
    compare_document("runtime-ps", &pids, &masked, &[]);
    compare_document(
        "runtime-features",
        &of(&["features"]),
        &masked,
        &["io.balena.extension-runtime.commit"],
    );
    let state = std::fs::read_to_string(container.root().join(id).join("state.json")).unwrap();
    compare_document("runtime-state-file", &state, &masked, &fields);
    let record = format!("/run/balena-extension-runtime-deploys/{id}.json");
    let record = std::fs::read_to_string(record).unwrap();
    compare_document("runtime-deploy-record", &record, &masked, &fields);
}

/// An engine with an extension of each kind, and images and volumes.
fn store() -> Store {
    let one = |id: &str| stored::Container::new(id);
    let other_kernel = labels(&[(KERNEL, "5.10.0")]);
    Store::new(Contents {
        containers: vec![
            stored::Container { labels: labels(&[(OS, "2.113.*")]), ..one("applied") },
            stored::Container { state: "dead", ..one("dead") },
            stored::Container { state: "created", error: "no", ..one("failed") },
            stored::Container {
                labels: other_kernel.clone(),
                image: "sha256:other".to_owned(),
                volumes: vec![("data".to_owned(), "/".to_owned())],
                ..one("stale")
            },
            stored::Container { runtime: "runc", ..one("other-runtime") },
        ],
        images: vec![("sha256:other".to_owned(), other_kernel)],
        volumes: vec![("data".to_owned(), labels(&[(OS, "[")]))],
    })
}

#[test]
fn the_documents_of_the_manager() {
    let host = Host::new();
    host.deployed("applied", &["hooks/start"]);
    host.record(
        "failed",
        &json!([{
            "verb": "create", "time": "2026-01-01T00:00:00Z", "error": "the cause",
            "warnings": ["odd"], "hooks": [{ "hook": "hooks/create", "output": "one\ntwo\n" }],
        }]),
    );
    host.write("mnt/boot/bootenv", &format!("{BLOCK}####"));
    host.mounts(BOOT);
    let _engine = host.engine(&store());
    let top = host.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let masked = [(top.as_str(), "/TOP")];
    let of = |words: &[&str]| {
        let done = capture::run(&mut host.command(words));
        assert!(!done.out.is_empty(), "{done}");
        done.out
    };
    let document = |name, words: &[&str]| compare_document(name, &of(words), &masked, &[]);
    document("manager-status", &["status", "--format", "json"]);
    let record = "{\"time\":1790000000,\"failures\":0}\n";
    host.write("run/balena-extension-manager-cleanup.json", record);
    compare("documents/manager-status.prom", &of(&["status", "--format", "prometheus"]));
    compare("documents/manager-status.txt", &of(&["status"]));
    document("manager-list", &["list", "--format", "json"]);
    document("manager-inspect", &["inspect", "failed"]);
    compare("documents/manager-logs.txt", &of(&["logs", "failed"]));
    document("manager-cleanup", &["cleanup", "--stale-os", "--dry-run", "--format", "json"]);
    document("manager-doctor", &["doctor", "--format", "json"]);
}

#[test]
fn the_document_of_check() {
    let rootfs = tempfile::tempdir().unwrap();
    let hook = rootfs.path().join("hooks/start");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    crate::bundle::executable(&hook, b"#!/usr/bin/env sh -e\n");
    let path = rootfs.path().to_str().unwrap();
    let words = ["check", "--format", "json", "--label", "io.balena.image.overide=1", path];
    let found = capture::run(&mut bare(&words)).out;
    compare_document("manager-check", &found, &[(path, "/ROOTFS")], &[]);
}

#[test]
fn what_simulate_prints() {
    for (name, words) in [
        ("commit", "deploy=k boot healthy boot healthy"),
        ("unhealthy", "deploy=k boot unhealthy boot healthy deploy=k"),
        ("never-boots", "deploy=k boot-fails boot-fails boot-fails boot healthy"),
        ("no-check", "deploy=k boot no-check boot healthy"),
        ("power-cut", "deploy=k boot cut=2 unhealthy boot healthy boot healthy"),
        ("removed", "deploy=k boot healthy remove=k boot healthy deploy=k boot healthy"),
        (
            "update-commits",
            "deploy=k boot healthy update-begins deploy=n boot update-commits healthy",
        ),
        ("update-rolls-back", "update-begins deploy=k boot update-rolls-back boot healthy"),
        ("update-never-boots", "update-begins boot-fails boot-fails boot-fails boot healthy"),
    ] {
        let device = tempfile::tempdir().unwrap();
        let mut command = bare(&["simulate"]);
        command.args(words.split(' ')).arg("--host-root").arg(device.path());
        let finished = capture::run(&mut command).ok();
        assert!(finished.err.is_empty(), "{finished}");
        compare(&format!("simulate/{name}.txt"), &format!("$ simulate {words}\n{}", finished.out));
    }
}

#[test]
fn the_documents_about_kernel_overrides() {
    let device = tempfile::tempdir().unwrap();
    let of = |words: &[&str]| {
        let mut command = bare(words);
        capture::run(command.arg("--host-root").arg(device.path())).ok().out
    };
    of(&["simulate", "deploy=k", "boot", "unhealthy", "boot", "deploy=n", "boot"]);
    let document = |name, words: &[&str]| {
        compare_document(name, &of(words), &[], &["time", "when"]);
    };
    document("manager-override-status", &["override", "status", "--format", "json"]);
    document("manager-history", &["history", "--format", "json"]);
}

#[test]
fn what_plan_prints() {
    for (name, device, words) in planned_devices() {
        let os = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = os.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/os-release", "VERSION_ID=6.0.1\n");
        write("etc/issue", "the next OS");
        write("lib/modules/6.6.20-yocto-standard/modules.dep", "");
        let top = device.path("");
        let [top, next] = [&top, os.path()].map(|path| path.to_str().unwrap());
        let top = top.trim_end_matches('/');
        let words: Vec<String> =
            words.split_whitespace().map(|word| word.replace("NEXT", next)).collect();
        let words: Vec<&str> =
            words.iter().map(String::as_str).chain(["--page-size=4096"]).collect();
        let printed = |more: &[&str]| {
            let finished = device.plan(&[&words, more].concat());
            let text = format!("{}exit status {}\n", finished.out, finished.code());
            text.replace(top, "/TOP").replace(next, "/NEXT")
        };
        let shown = words.join(" ").replace(next, "/NEXT");
        compare(&format!("plan/{name}.txt"), &format!("$ plan {shown}\n{}", printed(&[])));
        let document = printed(&["--format=json"]);
        let (document, _) = document.rsplit_once("exit status").unwrap();
        compare_document(&format!("../plan/{name}"), document, &[], &[]);
    }
}

/// Typical devices, and the options with which they are planned.
fn planned_devices() -> Vec<(&'static str, Device, &'static str)> {
    let (kernel, abi) = KERNELS[0];
    let modules = "lib/modules/6.6.20-yocto-standard";
    let brought = [format!("{modules}/Module.symvers"), format!("{modules}/x.ko")];
    // An extension of each kind: below the OS, above it with two priorities, for one OS, and with a kernel.
    let common = || {
        let device = Device::new();
        device.deploy('a', &[], &[&[("opt/tool", "a")], &[("opt/base", "a"), ("etc/issue", "a")]]);
        device.deploy('b', &[("override", "10")], &[&[("etc/issue", "b"), ("etc/motd", "b")]]);
        device.deploy('c', &[("override", "-1")], &[&[("etc/motd", "c"), ("opt/base/x", "c")]]);
        device.deploy('d', &[("os-version", "2.113.*")], &[&[("opt/d", "d")]]);
        device.deploy(
            'e',
            &[("kernel-abi-id", abi)],
            &[&[(&brought[0], "s"), (&brought[1], "ko"), ("boot/vmlinuz", kernel)]],
        );
        device
    };
    let armed = common();
    armed.arm(abi, kernel);
    armed.deploy('f', &[("kernel-version", "6.1.0")], &[&[("opt/f", "f")]]);
    let odd = common();
    odd.record('a', |record| record["State"]["Dead"] = true.into());
    odd.record('b', |record| record["Driver"] = "vfs".into());
    odd.deploy('f', &[], &[]);
    let purged = common();
    std::fs::remove_file(purged.path("mnt/data/remove_me_to_reset")).unwrap();
    let broken = common();
    for (path, text) in
        [("containers/broken/config.v2.json", "{"), ("overlay2/own-a/lower", "l/GONE")]
    {
        broken.0.write(&format!("mnt/data/docker/{path}"), text);
    }
    vec![
        ("fresh", Device::new(), ""),
        ("overrides", common(), ""),
        ("armed-kernel", armed, ""),
        ("next-os", common(), "--os-root=NEXT"),
        (
            "stated-os",
            common(),
            "--os-version=6.0.1 --kernel-release=6.1.0-18-amd64 --kernel-abi=none",
        ),
        ("unknown-facts", common(), "--os-version=2.113.9"),
        ("nothing-layered", purged, ""),
        ("pruned", common(), "--os-layers=122"),
        ("not-mountable", odd, ""),
        ("unreadable", broken, ""),
    ]
}
