//! What people see of kernel overrides, and do about them: `override status|retry|forget`, and `history`.

use serde_json::json;

use super::override_device::{Device, X, Y, Z};
use super::recorded_store::{Container, Store, labels};

const ARM: &str = "kernel_override_abi";
const A: &str = "kernel_override_abi_committed_A";
const B: &str = "kernel_override_abi_committed_B";
const TRIAL: &str = "kernel_override_trial";

#[test]
fn the_status_names_every_record_and_what_cannot_be_read() {
    let device = Device::new(&format!("{ARM}={X}\n{B}={Y}\n{TRIAL}=2\n"));
    device.publish(X);
    device.publish(Z);
    device.0.write("mnt/data/docker/volumes/v/_data/vmlinuz", "kernel");
    device.0.write("mnt/state/override-rejected", &format!("{Z}\n"));
    let before = device.block();
    let finished = device.0.manager(&["override", "status"]).ok();
    let link = "             ../docker/volumes/v/_data/vmlinuz; claimed by";
    let expected = format!(
        "running       the stock kernel in slot A\n\
         armed         {X}, on trial: booted 2 of 3 times\n\
         committed A   the stock kernel\n\
         committed B   {Y}\n\
         rejected      {Z}\n              the history has no event about it\n\
         published     {X}\n {link} a deployed extension\n\
         published     {Z}\n {link} no deployed extension; the next validate forgets it\n"
    );
    assert_eq!(finished.out, expected);
    let document = device.0.manager(&["override", "status", "--format", "json"]).ok().json();
    assert_eq!(
        document,
        json!({
            "schema": 1, "command": "override status", "overrides": true, "running": null, "slot": "A",
            "armed": X, "onTrial": true, "trialBoots": 2, "trialLimit": 3,
            "committed": { "a": null, "b": Y }, "updateWindow": false, "toForget": null,
            "rejected": [{ "abi": Z, "why": "the history has no event about it" }],
            "published": [
                { "abi": X, "target": "../docker/volumes/v/_data/vmlinuz", "bootable": true },
                { "abi": Z, "target": "../docker/volumes/v/_data/vmlinuz", "bootable": true },
            ],
            "claims": [X, Y],
        })
    );
    assert_eq!(device.block(), before);
    // The slot and the claims are gone.
    std::fs::remove_dir_all(device.path("dev/disk")).unwrap();
    std::fs::remove_dir_all(device.path("mnt/data/docker")).unwrap();
    let finished = device.0.manager(&["override", "status"]).ok();
    for text in [
        "running       the stock kernel in slot unknown: ",
        "unknown whether it is on trial",
        "which is missing or no file; unknown whether it is claimed",
        "claims        cannot determine which kernels are claimed",
    ] {
        assert!(finished.out.contains(text), "{text}: {finished}");
    }
}

#[test]
fn the_records_of_a_device_that_is_off_are_reported() {
    let device = Device::new(&format!("{ARM}={X}\n{B}={Y}\n"));
    std::fs::remove_file(device.path("proc/cmdline")).unwrap();
    let finished = device.0.manager(&["override", "status"]).ok();
    for text in [
        "running       unknown: cannot determine which kernel runs: ".to_owned(),
        format!("\narmed         {X}, on trial"),
        format!("\ncommitted B   {Y}\n"),
    ] {
        assert!(finished.out.contains(&text), "{text}: {finished}");
    }
    let document = device.0.manager(&["override", "status", "--format", "json"]).ok().json();
    let why = document["running"]["unreadable"].as_str().unwrap();
    assert!(why.contains("proc/cmdline"), "{why}");
    assert_eq!(document["armed"], X);
}

#[test]
fn a_list_that_cannot_be_seen_is_not_an_empty_list() {
    let device = Device::new(&format!("{ARM}={X}\n"));
    device.publish(X);
    let unknown = |why: &str| {
        let finished = device.0.manager(&["override", "status"]).ok();
        assert!(finished.out.contains(&format!("armed         {X}, on trial")), "{finished}");
        assert!(finished.out.contains(why), "{why}: {finished}");
        device.0.manager(&["override", "status", "--format", "json"]).ok().json()
    };
    let mounts = std::fs::read_to_string(device.path("proc/mounts")).unwrap();
    device.0.mounts(&mounts.replace("/mnt/state", "/mnt/other"));
    let why = "the state partition is not mounted";
    let list = "rejected      unknown: cannot read the list of rejected kernels: ";
    let document = unknown(&format!("{list}{why}"));
    assert!(document["rejected"]["unreadable"].as_str().unwrap().contains(why), "{document}");
    device.0.manager(&["override", "retry", Z]).fails_with(1).fails(&[why]);
    device.0.mounts(&mounts);
    std::fs::create_dir(device.path("mnt/state/override-rejected")).unwrap();
    unknown(list);
    std::fs::rename(device.path("mnt/data/boot-by-abi"), device.path("old")).unwrap();
    for plant in [|path| std::fs::write(path, ""), |path| std::os::unix::fs::symlink("none", path)]
    {
        plant(device.path("mnt/data/boot-by-abi")).unwrap();
        let document = unknown("published     unknown: cannot list the published kernels in");
        assert!(document["published"]["unreadable"].is_string(), "{document}");
        // Nothing is forgotten because of it.
        device.validate().fails_with(1).fails(&["cannot list the published kernels"]);
        assert_eq!(device.block(), format!("{ARM}={X}\n"));
        std::fs::remove_file(device.path("mnt/data/boot-by-abi")).unwrap();
    }
}

#[test]
fn a_device_without_a_block_has_no_overrides_to_show_or_change() {
    let device = Device::new("");
    std::fs::remove_file(device.path("mnt/boot/bootenv")).unwrap();
    let finished = device.0.manager(&["override", "status"]).ok();
    assert!(finished.out.contains("no boot environment block"), "{finished}");
    let document = device.0.manager(&["override", "status", "--format", "json"]).ok().json();
    assert_eq!(document["overrides"], false);
    for verb in ["retry", "forget"] {
        let finished = device.0.manager(&["override", verb, X]);
        assert_eq!(finished.code(), 1, "{finished}");
        assert!(finished.err.contains("no boot environment block"), "{finished}");
    }
}

#[test]
fn retry_is_the_only_way_off_the_list_of_rejected_kernels() {
    let device = Device::new("");
    device.0.write("mnt/state/override-rejected", &format!("{X}\n{Y}\n{X}\n"));
    let finished = device.0.manager(&["override", "retry", X]).ok();
    assert!(finished.err.contains("no longer rejected"), "{finished}");
    assert_eq!(device.state("override-rejected"), Some(format!("{Y}\n")));
    let finished = device.0.manager(&["override", "retry", X]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("is not on the list of rejected kernels"), "{finished}");
    // A line as an editor may leave it counts, and goes.
    device.0.write("mnt/state/override-rejected", &format!("{X}\r\n{Y}\n"));
    device.0.manager(&["override", "retry", X]).ok();
    assert_eq!(device.state("override-rejected"), Some(format!("{Y}\n")));
    device.0.manager(&["validate", "--settle", "0"]).ok();
    assert_eq!(device.state("override-rejected"), Some(format!("{Y}\n")));
    let upper = X.replace('1', "A");
    for word in ["", "1", &upper, "../x"] {
        let finished = device.0.manager(&["override", "retry", word]);
        assert_eq!(finished.code(), 2, "{finished}");
        assert!(finished.err.contains("64 lowercase hex digits"), "{finished}");
    }
}

#[test]
fn forget_removes_a_kernel_from_both_slots_and_rejects_nothing() {
    let device = Device::new(&format!("{ARM}={X}\n{A}={X}\n{B}={X}\n{TRIAL}=1\n"));
    device.publish(X);
    device.publish(Y);
    device.prestate();
    device.0.manager(&["override", "forget", X]).ok();
    assert_eq!((device.block().as_str(), device.published()), ("", vec![Y.to_owned()]));
    assert!(!device.has_prestate());
    assert_eq!(device.state("override-rejected"), None);
    let finished = device.0.manager(&["override", "forget", X]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("nothing is recorded about the kernel"), "{finished}");
    // The trial of another one goes on.
    let device = Device::new(&format!("{ARM}={X}\n{A}={Y}\n{TRIAL}=1\n"));
    device.prestate();
    device.0.manager(&["override", "forget", Y]).ok();
    assert_eq!(device.block(), format!("{ARM}={X}\n{TRIAL}=1\n"));
    assert!(device.has_prestate());
}

#[test]
fn the_history_has_every_step_of_a_trial() {
    let device = Device::new(&format!("{ARM}={X}\n{TRIAL}=1\n"));
    let finished = device.0.manager(&["history"]).ok();
    assert_eq!(finished.out, "nothing is recorded about kernel overrides\n");
    device.publish(X);
    device.boot(Some(X));
    device.check("echo not yet; exit 1");
    device.validate().ok();
    let document = device.0.manager(&["history", "--format", "json"]).ok().json();
    let entries = document["entries"].as_array().unwrap();
    let events: Vec<&str> = entries.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["trial", "health-failed", "health-failed", "rejected-by-health"]);
    for entry in entries {
        assert_eq!((&entry["by"], &entry["abi"]), (&json!("validate"), &json!(X)), "{entry}");
    }
    assert_eq!(entries[1]["slot"], "A");
    let detail = entries[2]["detail"].as_str().unwrap();
    assert!(detail.starts_with("health check 2 failed") && detail.ends_with("not yet"), "{detail}");
    let finished = device.0.manager(&["override", "status"]).ok();
    assert!(finished.out.contains("Z: rejected the kernel"), "{finished}");
    let finished = device.0.manager(&["history"]).ok();
    assert_eq!(finished.out.lines().count(), 5, "{finished}");
}

#[test]
fn a_history_that_cannot_be_written_changes_no_verdict_and_one_that_cannot_be_read_is_an_error() {
    let device = Device::new(&format!("{ARM}={X}\n"));
    device.publish(X);
    device.boot(Some(X));
    std::fs::create_dir(device.path("mnt/state/override-history.jsonl")).unwrap();
    let finished = device.validate().ok();
    assert!(finished.err.contains("cannot write the history"), "{finished}");
    assert_eq!(device.block(), format!("{ARM}={X}\n{A}={X}\n"));
    let finished = device.0.manager(&["history"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("cannot read"), "{finished}");
    std::fs::remove_dir(device.path("mnt/state/override-history.jsonl")).unwrap();
    device.0.mounts("/dev/sda2 / ext4 ro 0 0\n");
    let finished = device.0.manager(&["history"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("the state partition is not mounted"), "{finished}");
}

#[test]
fn what_could_not_be_done_is_not_reported_as_done() {
    for check in ["exit 0", "exit 1"] {
        let device = Device::new(&format!("{ARM}={X}\n"));
        device.publish(X);
        device.boot(Some(X));
        device.check(check);
        // No record of a change of the block can be made.
        std::fs::create_dir(device.path("mnt/state/override-block-redo.new")).unwrap();
        let finished = device.validate().fails_with(1);
        assert!(finished.err.contains("cannot record a change"), "{finished}");
        for text in ["committed the kernel", "rejected the kernel"] {
            assert!(!finished.err.contains(text), "{finished}");
        }
        std::fs::remove_dir(device.path("mnt/state/override-block-redo.new")).unwrap();
        device.validate().ok();
        let status = device.0.manager(&["override", "status"]).ok();
        let is_explained = status.out.contains("Z: completed the rejection of the kernel");
        assert_eq!(is_explained, check == "exit 1", "{status}");
    }
}

/// The unit may be started again and again, and no verdict shortens the file.
#[test]
fn trials_without_a_verdict_do_not_let_the_history_grow_for_ever() {
    let device = Device::new(&format!("{ARM}={X}\n"));
    device.publish(X);
    device.boot(Some(X));
    std::fs::remove_file(device.path("usr/bin/rollback-tests")).unwrap();
    device.validate().fails_with(1);
    let line = device.state("override-history.jsonl").unwrap();
    device.0.write("mnt/state/override-history.jsonl", &line.repeat(64 * 1024 / line.len() + 1));
    device.validate().fails_with(1);
    let left = device.state("override-history.jsonl").unwrap();
    assert!(left.len() < 40 * 1024 && left.ends_with('\n'), "{} bytes", left.len());
}

/// The level and the text of a check of doctor.
fn doctor(device: &Device, check: &str) -> (String, String) {
    let document = device.0.manager(&["doctor", "--format", "json"]).json();
    let checks = document["checks"].as_array().unwrap();
    let found = checks.iter().filter(|one| one["check"] == check);
    let found: Vec<&serde_json::Value> = found.collect();
    let last = found.last().unwrap_or_else(|| panic!("no {check}: {document:#}"));
    let text = |field: &str| last[field].as_str().unwrap().to_owned();
    (text("level"), text("text"))
}

#[test]
fn doctor_knows_the_room_the_unit_and_the_records_of_kernel_overrides() {
    let device = Device::new(&format!("{ARM}={X}\n"));
    device.publish(X);
    device.0.write("mnt/state/override-rejected", &format!("{Z}\n"));
    let is = |level: &str, text: &str| (level.to_owned(), text.to_owned());
    let check = "kernel-overrides";
    assert_eq!(doctor(&device, check), is("ok", "kernels: 1 published, 1 rejected"));
    assert_eq!(doctor(&device, "boot-environment").0, "ok");
    assert_eq!(
        doctor(&device, "unit"),
        is("warning", "extension-rollback.service is not installed")
    );
    device.0.write("usr/lib/systemd/system/extension-rollback.service", "");
    assert_eq!(doctor(&device, "unit"), is("warning", "extension-rollback.service is not enabled"));
    std::fs::create_dir_all(device.path("etc/systemd/system/multi-user.target.wants")).unwrap();
    device.link("/x", "etc/systemd/system/multi-user.target.wants/extension-rollback.service");
    assert_eq!(doctor(&device, "unit"), is("ok", "extension-rollback.service is enabled"));

    // All values at once need 397 bytes.
    for (filled, expected) in [(598, "ok"), (599, "warning")] {
        device.set_block(&format!("{ARM}={X}\nx={}\n", "1".repeat(filled)));
        assert_eq!(doctor(&device, "boot-environment").0, expected, "{filled}");
    }
    let text = doctor(&device, "boot-environment").1;
    assert!(text.ends_with("kernel overrides can need 1 more"), "{text}");

    device.0.write("mnt/data/boot-by-abi/other", "");
    let others = is("warning", "names that are not links to kernels: other");
    assert_eq!(doctor(&device, check), others);
    device.link("x", &format!("mnt/data/boot-by-abi/{Y}.new"));
    let unfinished = format!("links to kernels were never completed: {Y}.new");
    assert_eq!(doctor(&device, check), is("warning", &unfinished));
    std::fs::remove_dir_all(device.path("dev/disk")).unwrap();
    std::fs::create_dir(device.path("mnt/state/override-history.jsonl")).unwrap();
    std::fs::remove_file(device.path("mnt/state/override-rejected")).unwrap();
    std::fs::create_dir(device.path("mnt/state/override-rejected")).unwrap();
    std::fs::remove_dir_all(device.path("mnt/data/boot-by-abi")).unwrap();
    device.0.write("mnt/data/boot-by-abi", "");
    let (level, text) = doctor(&device, check);
    assert_eq!(level, "problem");
    for why in [
        "cannot list the published kernels",
        "cannot read the list of rejected kernels",
        "the running root filesystem slot is unknown",
        "cannot read the history",
    ] {
        assert!(text.contains(why), "{why}: {text}");
    }
    // A host without a block has none of this.
    let device = Device::new("");
    std::fs::remove_file(device.path("mnt/boot/bootenv")).unwrap();
    let document = device.0.manager(&["doctor", "--format", "json"]).json();
    assert!(!document.to_string().contains("extension-rollback"), "{document:#}");
    assert!(!document.to_string().contains(check), "{document:#}");
}

#[test]
fn status_tells_a_trial_by_the_block_the_slot_and_the_kernel_that_runs() {
    let device = Device::new(&format!("{ARM}={X}\n{TRIAL}=1\n"));
    let host = &device.0;
    let kernel = labels(&[("io.balena.image.kernel-abi-id", X)]);
    let store = Store::of(&[Container { labels: kernel, ..Container::new("kernel") }]);
    host.deployed("kernel", &["hooks/start"]);
    let _engine = host.engine(&store);
    let seen = || {
        let document = host.manager(&["status", "--format", "json"]).ok().json();
        let one = &document["extensions"][0];
        ["verdict", "reason", "detail"].map(|field| one[field].as_str().unwrap().to_owned())
    };
    let is = |verdict: &str, reason: &str| {
        let [found, code, _] = seen();
        assert_eq!((found.as_str(), code.as_str()), (verdict, reason));
    };
    is("pending-reboot", "kernel-armed");
    assert!(seen()[2].ends_with("it was booted 1 of 3 times and does not run"), "{:?}", seen());
    device.boot(Some(X));
    is("on-trial", "kernel-on-trial");
    assert_eq!(seen()[2], "its kernel runs on trial (booted 1 of 3 times)");
    device.set_block(&format!("{ARM}={X}\n{B}={X}\n"));
    is("on-trial", "kernel-on-trial");
    device.set_block(&format!("{ARM}={X}\n{A}={X}\n"));
    is("applied", "hooks-ran");
    // What a crash leaves is no evidence of a trial.
    device.prestate();
    is("applied", "hooks-ran");
    std::fs::remove_dir_all(device.path("dev/disk")).unwrap();
    is("unknown", "slot-unknown");
    device.set_block(&format!("{ARM}={X}\n"));
    is("on-trial", "kernel-on-trial");
}
