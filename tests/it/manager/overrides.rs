//! `validate` and `hup` on the records of a device: each row of the decision table, with every record that it leaves.

use std::time::Duration;

use serde_json::json;

use super::override_device::{Device, X, Y, Z};
use crate::capture::{run, start};
use crate::process::{self, wait_for};

const ARM: &str = "kernel_override_abi";
const A: &str = "kernel_override_abi_committed_A";
const B: &str = "kernel_override_abi_committed_B";
const TRIAL: &str = "kernel_override_trial";
const RELAY: &str = "kernel_override_abi_rejected";

#[test]
fn a_kernel_that_runs_and_is_healthy_is_committed() {
    let device = Device::new(&format!("other=1\n{ARM}={X}\n{TRIAL}=1\n"));
    device.publish(X);
    device.prestate();
    device.boot(Some(X));
    // Its output is the journal's, its environment is exactly this.
    device.check("echo checked; env | sort; test \"$ROLLBACK_HEALTH_VARIABLES\"");
    let finished = device.validate().ok();
    let variables = device.path("mnt/state/extension-health-variables");
    let expected = format!(
        "checked\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\nROLLBACK_HEALTH_VARIABLES={}\n",
        variables.display()
    );
    assert_eq!(finished.out.replace("SHLVL=0\n", ""), expected);
    assert!(finished.err.contains(&format!("committed the kernel {X} in slot A")), "{finished}");
    assert_eq!(device.block(), format!("other=1\n{ARM}={X}\n{A}={X}\n"));
    assert!(!device.has_prestate());
    assert_eq!(device.published(), [X]);
    assert_eq!(device.state("override-rejected"), None);
    // Nothing is left to do.
    let before = std::fs::metadata(device.path("mnt/boot/bootenv")).unwrap();
    device.check("exit 1");
    device.validate().ok();
    let after = std::fs::metadata(device.path("mnt/boot/bootenv")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
}

#[test]
fn a_kernel_that_runs_and_is_never_healthy_is_rejected_for_good() {
    let device = Device::new(&format!("{ARM}={X}\n{A}={Y}\n{B}={X}\n{TRIAL}=2\n"));
    device.publish(X);
    device.publish(Y);
    device.prestate();
    device.boot(Some(X));
    device.check("echo run >> $0.log; echo it is broken; exit 3");
    let finished = device.validate().ok();
    let log = std::fs::read_to_string(device.path("usr/bin/rollback-tests.log")).unwrap();
    assert_eq!(log, "run\nrun\n");
    assert!(finished.err.contains("health check 2 of 2 failed"), "{finished}");
    assert!(finished.err.contains("exited with status 3: it is broken"), "{finished}");
    assert!(finished.err.contains("must be rebooted"), "{finished}");
    assert_eq!(device.block(), format!("{ARM}={Y}\n{A}={Y}\n"));
    assert_eq!(device.state("override-rejected"), Some(format!("{X}\n")));
    let audit = device.state("override-health-triggered").unwrap();
    assert!(audit.ends_with(&format!("Z: by=health from={X} to={Y} slot=A\n")), "{audit}");
    assert_eq!(device.published(), [Y]);
    assert!(!device.has_prestate());
}

#[test]
fn a_kernel_that_never_runs_is_pending_and_after_three_boots_rejected() {
    for (trial, boots) in [("", 0), ("2", 2), (" 2 ", 2), ("-1", 0), ("many", 0)] {
        let device = Device::new(&format!("{ARM}={X}\n{TRIAL}={trial}\n"));
        device.publish(X);
        device.prestate();
        let before = device.block();
        let finished = device.validate().ok();
        let text = format!("it was booted {boots} of 3 times");
        assert!(finished.err.contains(&text), "{trial:?}: {finished}");
        assert_eq!((device.block(), device.has_prestate()), (before, true), "{trial:?}");
    }
    for (trial, boots) in [("3", "3"), ("7", "7")] {
        let device = Device::new(&format!("{ARM}={X}\n{TRIAL}={trial}\n"));
        device.publish(X);
        device.prestate();
        let finished = device.validate().ok();
        assert!(!finished.err.contains("reboot"), "{finished}");
        assert_eq!(device.block(), "");
        assert_eq!(device.state("override-rejected"), Some(format!("{X}\n")));
        let audit = device.state("override-health-triggered").unwrap();
        let expected = format!("by=boots from={X} to=none slot=A boots={boots}\n");
        assert!(audit.ends_with(&expected), "{audit}");
        assert!(device.published().is_empty() && !device.has_prestate());
    }
}

#[test]
fn what_was_committed_is_armed_again_and_what_is_not_published_is_forgotten() {
    let device = Device::new(&format!("{A}={X}\n{B}={Y}\n"));
    device.publish(X);
    device.validate().ok();
    assert_eq!(device.block(), format!("{A}={X}\n{B}={Y}\n{ARM}={X}\n"));

    let device = Device::new(&format!("{ARM}={X}\n{B}={X}\n{TRIAL}=1\n"));
    device.prestate();
    device.validate().ok();
    assert_eq!(device.block(), "");
    assert_eq!(device.state("override-rejected"), None, "it was never tried");
    assert!(!device.has_prestate());
}

#[test]
fn a_kernel_that_no_container_claims_is_swept_and_its_trial_with_it() {
    let device = Device::new(&format!("{ARM}={X}\n{A}={X}\n{B}={Y}\n{TRIAL}=1\n"));
    for abi in [X, Y, Z] {
        device.publish(abi);
    }
    device.prestate();
    std::fs::create_dir(device.path("mnt/data/boot-by-abi/other")).unwrap();
    device.link("x", &format!("mnt/data/boot-by-abi/{Y}.new"));
    device.remove_container("x");
    device.container("dead", &json!({ "Dead": true }), X);
    device.container("going", &json!({ "RemovalInProgress": true }), X);
    let finished = device.validate().ok();
    assert!(finished.err.contains(&format!("{X}, {Z}")), "{finished}");
    assert!(finished.err.contains("in /mnt/data/boot-by-abi is not the link"), "{finished}");
    assert_eq!(device.block(), format!("{B}={Y}\n"));
    assert_eq!(device.published(), [Y, "other"]);
    assert!(!device.has_prestate());
    let history = device.0.manager(&["history", "--format", "json"]).ok().json();
    let swept = history["entries"].as_array().unwrap().iter().map(|entry| {
        assert_eq!(entry["event"], "swept");
        entry["abi"].as_str().unwrap()
    });
    assert_eq!(swept.collect::<Vec<_>>(), [X, Z]);
}

#[test]
fn the_trial_of_a_claimed_kernel_survives_the_sweep_of_another() {
    let device = Device::new(&format!("{ARM}={X}\n{TRIAL}=2\n"));
    device.publish(X);
    device.publish(Z);
    device.prestate();
    device.validate().ok();
    assert_eq!(device.block(), format!("{ARM}={X}\n{TRIAL}=2\n"));
    assert_eq!(device.published(), [X]);
    assert!(device.has_prestate());
}

#[test]
fn claims_that_cannot_be_told_sweep_nothing() {
    let lines = format!("{ARM}={Z}\n{TRIAL}=1\n");
    type Hide<'a> = &'a dyn Fn(&Device);
    let cases: [(&str, Hide<'_>); 5] = [
        ("no data root", &|device| {
            std::fs::remove_dir_all(device.path("mnt/data/docker")).unwrap();
        }),
        ("no containers", &|device| {
            std::fs::remove_dir_all(device.path("mnt/data/docker/containers")).unwrap();
        }),
        ("a purge is pending", &|device| {
            std::fs::remove_file(device.path("mnt/data/remove_me_to_reset")).unwrap();
        }),
        ("half a record", &|device| {
            device.0.write("mnt/data/docker/containers/x/config.v2.json", "{\"ID\":");
        }),
        ("a record that is a directory", &|device| {
            let record = device.path("mnt/data/docker/containers/y/config.v2.json");
            std::fs::remove_file(&record).unwrap();
            std::fs::create_dir(record).unwrap();
        }),
    ];
    for (name, hide) in cases {
        let device = Device::new(&lines);
        device.publish(Z);
        hide(&device);
        let finished = device.validate().ok();
        assert!(finished.err.contains("no kernel is forgotten"), "{name}: {finished}");
        assert_eq!(
            (device.block(), device.published()),
            (lines.clone(), vec![Z.to_owned()]),
            "{name}"
        );
    }
}

#[test]
fn an_update_that_can_roll_back_judges_the_kernel_but_a_relay_is_consumed() {
    let device = Device::new(&format!(
        "upgrade_available=1\n{ARM}={X}\n{A}={Y}\n{B}={Y}\n{TRIAL}=3\n{RELAY}={Y}\n"
    ));
    device.publish(X);
    device.publish(Y);
    device.publish(Z);
    device.boot(Some(X));
    device.check("exit 1");
    let finished = device.validate().ok();
    assert!(finished.err.contains("an OS update can still roll back"), "{finished}");
    assert_eq!(device.block(), format!("upgrade_available=1\n{ARM}={X}\n"));
    assert_eq!(device.published(), [X, Z], "nothing is swept");
    assert_eq!(device.state("override-rejected"), None);
}

#[test]
fn malformed_values_are_removed_before_any_verdict() {
    let upper = X.replace('1', "A");
    let line_end = format!("{X}\r");
    for value in
        ["x", &upper, &format!("{X}1"), &format!(" {X}"), &line_end, &Y[1..], "../../etc/passwd"]
    {
        let lines = format!("{ARM}={value}\n{A}={X}\n{B}={value}\n{TRIAL}=1\nz=1\n");
        let device = Device::new(&format!("{lines}{RELAY}={value}\n"));
        device.publish(X);
        device.validate().ok();
        assert_eq!(device.block(), format!("{A}={X}\nz=1\n{ARM}={X}\n"), "{value:?}");
    }
    // Not the arm: its trial goes on.
    let device = Device::new(&format!("{ARM}={X}\n{B}=bad\n{TRIAL}=1\n"));
    device.publish(X);
    device.validate().ok();
    assert_eq!(device.block(), format!("{ARM}={X}\n{TRIAL}=1\n"));
}

#[test]
fn an_unknown_slot_is_an_error_after_the_sweep_and_before_any_verdict() {
    let lines = format!("{ARM}={X}\n{TRIAL}=3\n");
    let device = Device::new(&format!("{RELAY}={Y}\n{lines}"));
    device.publish(X);
    device.publish(Z);
    std::fs::remove_file(device.path("dev/disk/by-label/resin-rootA")).unwrap();
    let finished = device.validate();
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("the running root filesystem slot is unknown"), "{finished}");
    assert_eq!(device.block(), format!("{ARM}={X}\n"), "the relay was consumed");
    assert_eq!(device.published(), [X], "what nobody claims was swept");
    let lines = device.block();
    for verb in ["commit", "reject"] {
        let finished = device.0.manager(&["hup", verb]);
        assert_eq!(finished.code(), 1, "{finished}");
        assert_eq!(device.block(), lines);
    }
}

#[test]
fn a_check_that_could_not_run_is_no_verdict() {
    let lines = format!("{ARM}={X}\n{TRIAL}=1\n");
    let device = Device::new(&lines);
    device.publish(X);
    device.prestate();
    device.boot(Some(X));
    let unchanged = |device: &Device| {
        assert_eq!(device.block(), lines);
        assert_eq!(device.state("override-rejected"), None);
        assert!(device.has_prestate());
    };
    let program = device.path("usr/bin/rollback-tests");
    let cases: [(&str, &str, &dyn Fn()); 4] = [
        ("missing", "there is no rollback-tests in /usr/sbin, /usr/bin, /sbin, /bin", &|| {
            std::fs::remove_file(&program).unwrap();
        }),
        ("not executable", "cannot be run", &|| std::fs::write(&program, "#!/bin/sh\n").unwrap()),
        ("without its interpreter", "interpreter", &|| device.check("#")),
        ("a directory", "cannot be run", &|| {
            std::fs::remove_file(&program).unwrap();
            std::fs::create_dir(&program).unwrap();
        }),
    ];
    for (name, expected, plant) in cases {
        plant();
        if name == "without its interpreter" {
            std::fs::write(&program, "#!/none/sh\n").unwrap();
        }
        let finished = device.validate();
        assert_eq!(finished.code(), 1, "{name}: {finished}");
        assert!(finished.err.contains(expected), "{name}: {finished}");
        assert!(finished.err.contains("no verdict was taken"), "{name}: {finished}");
        unchanged(&device);
    }
    // It hangs.
    std::fs::remove_dir(&program).unwrap();
    device.check("sleep 600");
    let finished = run(&mut device.validate_command(&["--deadline", "1"]));
    assert_eq!(finished.code(), 4, "{finished}");
    assert!(finished.err.contains("--deadline"), "{finished}");
    unchanged(&device);
}

#[test]
fn a_check_that_a_signal_kills_has_failed_unless_the_unit_is_stopped() {
    let lines = format!("{ARM}={X}\n");
    let device = Device::new(&lines);
    device.publish(X);
    device.boot(Some(X));
    // As systemd does: the check gets the signal, too, and may end first.
    device.check("echo up > $0.up; trap 'exit 143' TERM; sleep 600 & wait");
    let running = start(&mut device.validate_command(&[]));
    let up = device.path("usr/bin/rollback-tests.up");
    wait_for("the health check", || up.exists().then_some(()));
    process::signal(running.pid(), rustix::process::Signal::TERM);
    let finished = running.finish_within(Duration::from_secs(60));
    assert_eq!(finished.code(), 4, "{finished}");
    assert_eq!(device.block(), lines);
    assert_eq!(device.state("override-rejected"), None);
    // Its own death is a failure.
    device.check("kill -9 $$");
    device.validate().ok();
    assert_eq!(device.state("override-rejected"), Some(format!("{X}\n")));
}

#[test]
fn another_kernel_that_was_armed_during_the_trial_owns_its_own_boot() {
    for (check, rejected) in [("exit 0", None), ("exit 1", Some(format!("{X}\n")))] {
        let device = Device::new(&format!("{ARM}={X}\n{B}={X}\n{TRIAL}=1\n"));
        device.publish(X);
        device.publish(Y);
        device.prestate();
        device.boot(Some(X));
        let block = device.path("mnt/boot/bootenv");
        let (at, lines) = (block.display(), format!("{ARM}={Y}\n{B}={X}\n"));
        let new = device.path("new");
        device.check(&format!("cat {} > {at}; {check}", new.display()));
        let old = std::fs::read(&block).unwrap();
        device.set_block(&lines);
        std::fs::rename(&block, &new).unwrap();
        std::fs::write(&block, old).unwrap();
        let finished = device.validate().ok();
        assert!(finished.err.contains("another kernel was armed meanwhile"), "{finished}");
        assert_eq!(device.block(), lines);
        assert!(device.has_prestate(), "it is that kernel's now");
        assert_eq!(device.state("override-rejected"), rejected);
        let left: &[&str] = if rejected.is_some() { &[Y] } else { &[X, Y] };
        assert_eq!(device.published(), left);
    }
}

/// A person calls it while the unit waits, say. A verdict removes the prestate, so the other call's check fails.
#[test]
fn a_kernel_that_another_call_has_committed_meanwhile_is_not_rejected() {
    let device = Device::new(&format!("{ARM}={X}\n{TRIAL}=1\n"));
    device.publish(X);
    device.prestate();
    device.boot(Some(X));
    let other = format!("{:?}", device.validate_command(&[])).replace('"', "'");
    device.check(&format!(
        "test -e $0.other && exit 0; touch $0.other; {other}; rm $0.other; exit 1"
    ));
    let finished = device.validate().ok();
    // The other call's output is that of the check.
    assert!(finished.out.contains("committed the kernel"), "{finished}");
    assert!(finished.err.contains("health check 2 of 2 failed"), "{finished}");
    assert!(!finished.err.contains("reboot"), "{finished}");
    assert_eq!(device.block(), format!("{ARM}={X}\n{A}={X}\n"));
    assert_eq!((device.published(), device.state("override-rejected")), (vec![X.to_owned()], None));
}

#[test]
fn a_rejection_that_a_crash_interrupted_is_completed_without_a_new_trial() {
    for (running, reboots) in [(Some(X), true), (None, false)] {
        let device = Device::new(&format!("{ARM}={X}\n{A}={X}\n{B}={Y}\n{TRIAL}=1\n"));
        device.publish(X);
        device.publish(Y);
        device.prestate();
        device.boot(running);
        device.0.write("mnt/state/override-rejected", &format!("{X}\n"));
        device.check("touch $0.ran");
        let finished = device.validate().ok();
        assert!(!device.path("usr/bin/rollback-tests.ran").exists(), "{finished}");
        assert_eq!(finished.err.contains("must be rebooted"), reboots, "{finished}");
        assert_eq!(device.block(), format!("{B}={Y}\n"));
        assert_eq!(device.published(), [Y]);
        assert!(!device.has_prestate());
    }
}

#[test]
fn an_update_commits_the_kernel_that_runs() {
    let lines = format!("upgrade_available=1\n{ARM}={X}\n{TRIAL}=1\n");
    let device = Device::new(&lines);
    device.publish(X);
    device.prestate();
    // It does not run: nothing is proven.
    let finished = device.0.manager(&["hup", "commit"]).ok();
    assert!(finished.err.contains("nothing is committed"), "{finished}");
    assert_eq!(device.block(), lines);
    device.boot(Some(X));
    device.0.manager(&["hup", "commit"]).ok();
    assert_eq!(device.block(), format!("upgrade_available=1\n{ARM}={X}\n{A}={X}\n"));
    assert!(device.has_prestate(), "the window is still open");
    // A rejected one is never committed.
    let device = Device::new(&lines);
    device.boot(Some(X));
    device.0.write("mnt/state/override-rejected", &format!("{X}\n"));
    device.0.manager(&["hup", "commit"]).ok();
    assert_eq!(device.block(), lines);
}

#[test]
fn an_update_that_rolls_back_condemns_no_kernel() {
    let window = "upgrade_available=1\n";
    for (lines, running, expected, to) in [
        // The other slot has committed nothing: it boots the stock kernel, and forgets the one that runs.
        (format!("{ARM}={X}\n{TRIAL}=1\n"), Some(X), format!("{TRIAL}=1\n{RELAY}={X}\n"), "none"),
        (format!("{ARM}={X}\n{B}={Y}\n"), Some(X), format!("{ARM}={Y}\n{B}={Y}\n{RELAY}={X}\n"), Y),
        // It does not run: it may be tried later.
        (format!("{ARM}={X}\n{B}={Y}\n"), None, format!("{ARM}={Y}\n{B}={Y}\n"), Y),
        (format!("{ARM}={X}\n{B}={X}\n"), Some(X), format!("{ARM}={X}\n{B}={X}\n"), X),
    ] {
        let device = Device::new(&format!("{window}{lines}"));
        device.publish(X);
        device.boot(running);
        device.0.manager(&["hup", "reject"]).ok();
        assert_eq!(device.block(), format!("{window}{expected}"), "{lines}");
        let audit = device.state("override-health-triggered").unwrap();
        assert!(audit.ends_with(&format!("by=health from={X} to={to} slot=B\n")), "{audit}");
        assert_eq!(device.state("override-rejected"), None);
        assert_eq!(device.published(), [X]);
    }
    // Nothing is armed.
    let device = Device::new(window);
    let finished = device.0.manager(&["hup", "reject"]).ok();
    assert!(finished.err.contains("no kernel is armed"), "{finished}");
    assert_eq!(
        (device.block(), device.state("override-health-triggered")),
        (window.to_owned(), None)
    );
}

#[test]
fn a_device_without_a_block_has_no_overrides_and_one_that_hides_it_is_an_error() {
    let device = Device::new("");
    std::fs::remove_file(device.path("mnt/boot/bootenv")).unwrap();
    for words in [&["validate"][..], &["hup", "commit"], &["hup", "reject"]] {
        let finished = device.0.manager(words).ok();
        assert!(finished.err.contains("no boot environment block"), "{finished}");
    }
    device.0.mounts("/dev/sda2 / ext4 ro 0 0\n");
    for words in [&["validate"][..], &["hup", "commit"], &["hup", "reject"]] {
        let finished = device.0.manager(words);
        assert_eq!(finished.code(), 1, "{finished}");
        assert!(finished.err.contains("not mounted"), "{finished}");
    }
}
