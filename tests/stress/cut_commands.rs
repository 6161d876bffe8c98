//! Every command that changes the records of kernel overrides, with the device on which it is called.

use crate::cut_device::{CONTENT, Case, VOLUME, device, history, kernel, tear_block};
use crate::support::host::version;
use crate::support::override_device::Device;
use crate::support::recorded_engine::{Answer, Engine};
use serde_json::json;
use std::os::unix::fs::symlink;

const VALIDATE: &[&str] = &["validate", "--settle", "0", "--retry", "0", "--attempts", "1"];
const ARM: &str = "kernel_override_abi";
const A: &str = "kernel_override_abi_committed_A";
const B: &str = "kernel_override_abi_committed_B";
const TRIAL: &str = "kernel_override_trial";
const RELAY: &str = "kernel_override_abi_rejected";

/// A command, and how its device is made.
pub(crate) type Cut = (&'static str, fn() -> Case);

/// Each failing health check takes a second, so this one is a part of the full run only.
pub(crate) const SLOW: Cut = ("validate_rejects", || on_trial(1, "exit 1"));

pub(crate) const ALL: [Cut; 15] = [
    ("fabricate", fabricate),
    ("fabricate_again", fabricate_again),
    ("activate", activate),
    ("activate_another", activate_another),
    ("validate_commits", || on_trial(1, "exit 0")),
    ("validate_rejects_after_three_boots", validate_rejects_after_three_boots),
    ("validate_completes_a_rejection", validate_completes_a_rejection),
    ("validate_sweeps", validate_sweeps),
    ("validate_forgets_after_a_rollback", validate_forgets_after_a_rollback),
    ("validate_restores", validate_restores),
    ("validate_completes_a_write", validate_completes_a_write),
    ("hup_commit", hup_commit),
    ("hup_reject", hup_reject),
    ("override_forget", override_forget),
    ("override_retry", override_retry),
];

fn abi(name: &str) -> String {
    kernel(name).1
}

pub(crate) fn fabricate() -> Case {
    let device = with_image("");
    std::fs::create_dir_all(device.path(&format!("mnt/{CONTENT}"))).unwrap();
    let volume = format!("/mnt/{CONTENT}");
    let engine = Engine::start(&device.0.socket(), move |method, path| match (method, path) {
        ("GET", "/_ping") => Answer::Ping("1.41"),
        _ => Answer::Json(201, json!({ "Mountpoint": volume })),
    });
    let mut case = Case::new(device, &["kernel", "fabricate"]);
    case.words.extend(of_container(&case.device));
    case.engine = Some(engine);
    case
}

/// After a call that was interrupted.
fn fabricate_again() -> Case {
    let case = fabricate();
    for (name, text) in [(".fabricating", ""), ("vmlinuz", "ker"), ("deep/a/b", "b"), ("c", "c")] {
        case.device.0.write(&format!("mnt/{CONTENT}/{name}"), text);
    }
    case
}

/// The first one on a device.
pub(crate) fn activate() -> Case {
    let device = with_image("");
    // The partition is there, so there are no links.
    let mounts = std::fs::read_to_string(device.path("proc/mounts")).unwrap();
    device.0.mounts(&format!("{mounts}/dev/sda5 /mnt/data ext4 rw 0 0\n"));
    std::fs::remove_dir(device.path("mnt/data/boot-by-abi")).unwrap();
    activation(device)
}

/// While another kernel is on trial, and a third one is to be forgotten.
fn activate_another() -> Case {
    let (y, z) = (abi("y"), abi("z"));
    let lines = format!("{ARM}={y}\n{B}={z}\n{RELAY}={z}\n{TRIAL}=2\n");
    let device = with_image(&lines);
    device.prestate();
    let mut case = activation(device);
    case.harmless = Some(z);
    case
}

fn activation(device: Device) -> Case {
    let (bytes, abi) = kernel("x");
    let volume = device.path(&format!("mnt/{CONTENT}"));
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("vmlinuz"), bytes).unwrap();
    device.claim("new", &abi);
    let mut case = Case::new(device, &["kernel", "activate"]);
    case.words.extend(of_container(&case.device));
    case.words.extend(["--label".to_owned(), format!("io.balena.image.kernel-abi-id={abi}")]);
    case
}

/// A device with an image that brings the kernel x, and with y and z as published kernels, if the block names them.
fn with_image(lines: &str) -> Device {
    let published: &[&str] = if lines.is_empty() { &[] } else { &["y", "z"] };
    let device = device(lines, published);
    let host = &device.0;
    host.write("rootfs/usr/lib/modules/6.1.83/Module.symvers", "");
    host.write("rootfs/boot/vmlinuz", "");
    std::fs::write(host.path("rootfs/boot/vmlinuz"), kernel("x").0).unwrap();
    host.write("rootfs/boot/dtb/a/board.dtb", "board");
    host.write("rootfs/boot/config", "CONFIG_X=y\n");
    symlink("vmlinuz", host.path("rootfs/boot/link")).unwrap();
    device
}

fn of_container(device: &Device) -> Vec<String> {
    let path = |name: &str| device.path(name).to_str().unwrap().to_owned();
    let words = [
        ["--container", "c"].map(str::to_owned),
        ["--volume", VOLUME].map(str::to_owned),
        ["--caller".to_owned(), version()],
        ["--rootfs".to_owned(), path("rootfs")],
        ["--docker-root".to_owned(), path("mnt/data/docker")],
    ];
    words.concat()
}

/// x runs and is on trial, slot A has committed y, slot B has committed x.
fn on_trial(boots: u32, check: &str) -> Case {
    let (x, y) = (abi("x"), abi("y"));
    let device = device(&format!("{ARM}={x}\n{A}={y}\n{B}={x}\n{TRIAL}={boots}\n"), &["x", "y"]);
    device.prestate();
    device.check(check);
    let mut case = Case::new(device, VALIDATE);
    case.running = Some(x);
    case
}

pub(crate) fn validate_rejects_after_three_boots() -> Case {
    Case { running: None, ..on_trial(3, "exit 1") }
}

/// A power cut came after the record.
fn validate_completes_a_rejection() -> Case {
    let case = on_trial(2, "exit 0");
    case.device.0.write("mnt/state/override-rejected", &format!("{}\n", abi("x")));
    case
}

/// No extension claims y and z any more, a value is malformed, and the history is too long.
pub(crate) fn validate_sweeps() -> Case {
    let (x, y, z) = (abi("x"), abi("y"), abi("z"));
    let lines = format!("{ARM}={z}\n{A}=bad\n{B}={y}\n{TRIAL}=1\n");
    let device = device(&lines, &["x", "y", "z"]);
    device.remove_container("y");
    device.remove_container("z");
    device.prestate();
    device.link("../docker/volumes/x/_data/vmlinuz", &format!("mnt/data/boot-by-abi/{x}.new"));
    device.0.write("mnt/state/override-history.jsonl", &history(400));
    Case::new(device, VALIDATE)
}

fn validate_forgets_after_a_rollback() -> Case {
    let (x, y) = (abi("x"), abi("y"));
    let device = device(&format!("{A}={x}\n{B}={y}\n{RELAY}={y}\n{TRIAL}=1\n"), &["x", "y"]);
    device.prestate();
    Case { harmless: Some(y), ..Case::new(device, VALIDATE) }
}

fn validate_restores() -> Case {
    let (x, y) = (abi("x"), abi("y"));
    let device = device(&format!("{A}={x}\n{B}={y}\n"), &["x", "y"]);
    Case::new(device, VALIDATE)
}

/// A power cut came while the write that armed x was half done.
pub(crate) fn validate_completes_a_write() -> Case {
    let (x, y) = (abi("x"), abi("y"));
    let device = device(&format!("{ARM}={y}\n{A}={y}\n"), &["x", "y"]);
    device.prestate();
    tear_block(&device, &y, &x);
    Case { running: Some(y), ..Case::new(device, VALIDATE) }
}

/// The update has proven slot A, with x.
fn hup_commit() -> Case {
    let (x, y) = (abi("x"), abi("y"));
    let lines = format!("{ARM}={x}\n{B}={y}\nupgrade_available=1\n{TRIAL}=1\n");
    let device = device(&lines, &["x", "y"]);
    device.prestate();
    let case = Case::new(device, &["hup", "commit"]);
    Case { running: Some(x), before_boot: close_window, ..case }
}

/// The update rolls back from slot A, where x runs, to slot B, which has committed y.
fn hup_reject() -> Case {
    let case = Case { words: vec!["hup".to_owned(), "reject".to_owned()], ..hup_commit() };
    Case { before_boot: roll_back, ..case }
}

fn override_forget() -> Case {
    let (x, y) = (abi("x"), abi("y"));
    let device = device(&format!("{ARM}={x}\n{A}={x}\n{B}={y}\n"), &["x", "y"]);
    device.prestate();
    Case { running: Some(x.clone()), ..Case::new(device, &["override", "forget", &x]) }
}

/// A rejected kernel, which was left in the block.
fn override_retry() -> Case {
    let (x, y) = (abi("x"), abi("y"));
    let device = device(&format!("{ARM}={x}\n{A}={y}\n{B}={x}\n{TRIAL}=2\n"), &["x", "y"]);
    device.0.write("mnt/state/override-rejected", &format!("{}\n{x}\n", abi("w")));
    Case::new(device, &["override", "retry", &x])
}

fn close_window(device: &Device) {
    device.set_block(&device.block().replace("upgrade_available=1\n", ""));
}

fn roll_back(device: &Device) {
    close_window(device);
    let mounts = std::fs::read_to_string(device.path("proc/mounts")).unwrap();
    let other = mounts.replace("/dev/sda2 /mnt/sysroot", "/dev/sda3 /mnt/sysroot");
    device.0.mounts(&other);
}
