//! What cannot be seen is unknown: each source of `plan` is broken in turn. Nothing that depends on it is called layered
//! then, and the exit status is not 0.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::XattrFlags;
use serde_json::json;

use super::device::{Device, STORE, id};
use super::stores::KERNELS;
use crate::manager::host::BOOT;
use crate::manager::recorded_engine::Answer;
use crate::manager::recorded_store::{Container, Store};

const GARBAGE_BLOCK: &str = "a block that is garbage";
const RELEASE: &str = "6.1.0-18-amd64";

/// A device that runs an override: one extension claims this system, one brings the kernel, and one claims nothing.
fn device() -> Device {
    let device = Device::new();
    let (kernel, abi) = KERNELS[0];
    device.0.write("proc/cmdline", &format!("quiet balena_kernel_abi={abi}\n"));
    device.arm(abi, kernel);
    device.deploy(
        'a',
        &[("os-version", "2.113.*"), ("kernel-version", "6.1.0")],
        &[&[("opt/a", "a")]],
    );
    let modules = format!("lib/modules/{RELEASE}/x.ko");
    device.deploy('b', &[("kernel-abi-id", abi)], &[&[(&modules, "ko"), ("boot/vmlinuz", kernel)]]);
    device.deploy('c', &[("override", "1")], &[&[("etc/issue", "c")], &[("opt/c", "c")]]);
    device
}

#[test]
fn a_source_that_cannot_be_read_is_never_taken_for_layered() {
    const ALL: &str = "below-os below-os above-os";
    const UNKNOWN: &str = "unpredictable";
    let (code, document, reasons) = device().reasons(&[]);
    assert_eq!((code, reasons.as_str()), (0, ALL), "{document:#}");
    let own_c = format!("{STORE}/overlay2/own-c");
    let record_c = format!("{STORE}/containers/{}/config.v2.json", id('c'));
    let mount_id_c = format!("{STORE}/image/overlay2/layerdb/mounts/{}/mount-id", id('c'));
    let kernel = format!("mnt/data/boot-by-abi/{}", KERNELS[0].1);
    let lib_b = format!("{STORE}/overlay2/b0/diff/lib");
    let only_c = format!("below-os below-os {UNKNOWN}");
    let only_b = format!("below-os {UNKNOWN} above-os");
    let unplanned = format!("{UNKNOWN} {UNKNOWN} above-os");
    let without_c = format!("{UNKNOWN} {UNKNOWN}");
    type Change<'a> = &'a dyn Fn(&Device);
    let remove = |path: &str| {
        let path = path.to_owned();
        move |device: &Device| fs::remove_file(device.path(&path)).unwrap()
    };
    // A directory cannot be read as a file, and a link that leads to itself cannot be followed, not even by root.
    let directory = |path: &str| {
        let path = path.to_owned();
        move |device: &Device| {
            fs::remove_file(device.path(&path)).unwrap();
            fs::create_dir(device.path(&path)).unwrap();
        }
    };
    let garbage = |path: &str| {
        let path = path.to_owned();
        move |device: &Device| device.0.write(&path, "{")
    };
    let looping = |path: &str| {
        let path = path.to_owned();
        move |device: &Device| {
            fs::remove_file(device.path(&path)).unwrap();
            symlink("loop", device.path(&path)).unwrap();
            symlink("loop", device.path(&path).with_file_name("loop")).unwrap();
        }
    };
    let rows: &[(&str, Change<'_>, &str)] = &[
        // Without the record, it is unknown which kernels are claimed, and so which one boots.
        ("a record that is garbage", &garbage(&record_c), &without_c),
        ("a record that cannot be read", &directory(&record_c), &without_c),
        ("no mount-id", &remove(&mount_id_c), &only_c),
        ("mount-id cannot be read", &directory(&mount_id_c), &only_c),
        ("mount-id that is empty", &|it| it.0.write(&mount_id_c, "\n"), &only_c),
        ("no link", &remove(&format!("{own_c}/link")), &only_c),
        (
            "the link of another",
            &|it| it.0.write(&format!("{own_c}/link"), "C0XXXXXXXXXXXXXXXXXXXXXXXX"),
            &only_c,
        ),
        ("no lower", &remove(&format!("{own_c}/lower")), &only_c),
        ("lower cannot be read", &directory(&format!("{own_c}/lower")), &only_c),
        ("lower that is empty", &|it| it.0.write(&format!("{own_c}/lower"), ""), &only_c),
        (
            "a short link is missing",
            &remove(&format!("{STORE}/overlay2/l/C1XXXXXXXXXXXXXXXXXXXXXXXX")),
            &only_c,
        ),
        (
            "a layer is missing",
            &|it| fs::remove_dir_all(it.path(&format!("{STORE}/overlay2/c1/diff"))).unwrap(),
            &only_c,
        ),
        (
            "a layer is a file",
            &|it| {
                fs::remove_dir_all(it.path(&format!("{STORE}/overlay2/c0/diff"))).unwrap();
                it.0.write(&format!("{STORE}/overlay2/c0/diff"), "");
            },
            &only_c,
        ),
        (
            "a directory that is renamed in the layer",
            &|it| {
                let (name, value) = ("trusted.overlay.redirect", b"usr/lib");
                rustix::fs::setxattr(it.path(&lib_b), name, value, XattrFlags::empty()).unwrap();
            },
            &only_b,
        ),
        (
            "a record without a driver",
            &|it| it.record('c', |record| drop(record.as_object_mut().unwrap().remove("Driver"))),
            &only_c,
        ),
        ("no command line", &remove("proc/cmdline"), "unpredictable unpredictable unpredictable"),
        ("no os-release", &remove("etc/os-release"), "claims-unknown below-os above-os"),
        (
            "os-release cannot be read",
            &directory("etc/os-release"),
            "claims-unknown below-os above-os",
        ),
        (
            "os-release without a version",
            &|it| it.0.write("etc/os-release", "ID=x\n"),
            "claims-unknown below-os above-os",
        ),
        ("no release", &remove("proc/sys/kernel/osrelease"), &unplanned),
        (GARBAGE_BLOCK, &|it| it.0.write("mnt/boot/bootenv", "x"), &unplanned),
        ("a block that cannot be read", &looping("mnt/boot/bootenv"), &unplanned),
        ("the kernel cannot be read", &looping(&kernel), &unplanned),
        (
            "the mark cannot be read",
            &looping("mnt/data/remove_me_to_reset"),
            "unpredictable unpredictable unpredictable",
        ),
        (
            "data is not mounted",
            &|it| {
                it.0.mounts(&format!("/dev/sda2 / ext4 ro 0 0\n{BOOT}"));
                fs::remove_file(it.path("mnt/data/remove_me_to_reset")).unwrap();
            },
            "unpredictable unpredictable unpredictable",
        ),
    ];
    for (name, change, expected) in rows {
        let device = device();
        change(&device);
        let (code, document, reasons) = device.reasons(&[]);
        assert_eq!((code, reasons.as_str()), (1, *expected), "{name}: {document:#}");
        // The program waits for a block to become whole.
        if *name != GARBAGE_BLOCK {
            let seen = device.plan(&[]).fails_with(1);
            assert!(seen.out.contains("unknown"), "{name}: {seen}");
        }
    }
}

#[test]
fn an_extension_that_only_the_engine_knows_is_named_and_not_safe() {
    let device = device();
    let ids = [id('a'), id('b'), id('c')];
    let known: Vec<Container> = ids.iter().map(|id| Container::new(id)).collect();
    let engine_of = |containers: &[Container], root: &'static str| {
        device.0.engine_but(&Store::of(containers), move |_, path| {
            let info = json!({ "DockerRootDir": root, "Runtimes": {} });
            (path == "/info").then_some(Answer::Json(200, info))
        })
    };
    let engine = engine_of(&known, "/mnt/data/docker");
    let (_, document, _) = device.reasons(&[]);
    assert_eq!(document["unreadable"], json!([]), "{document:#}");
    drop(engine);
    let ghost = [known.as_slice(), &[Container::new("d0d0d0d0d0d0d0d0")]].concat();
    let engine = engine_of(&ghost, "/mnt/data/docker");
    let (code, document, _) = device.reasons(&[]);
    let unreadable = document["unreadable"].as_array().unwrap();
    assert!(
        unreadable[0].as_str().unwrap().contains("lists the extension d0d0d0d0d0d0"),
        "{document:#}"
    );
    assert_eq!((code, unreadable.len()), (1, 1), "{document:#}");
    drop(engine);
    // A store that is not there is no store without extensions.
    let _engine = engine_of(&known, "/mnt/elsewhere");
    let error = device.plan(&[]).fails_with(1).error();
    assert!(error.contains("/mnt/elsewhere/containers"), "{error}");
}

#[test]
fn each_exit_status_has_its_case() {
    let table = |device: &Device, words: &[&str], code: i32| {
        let finished = device.plan(words);
        assert_eq!(finished.code(), code, "{finished}");
        finished.out
    };
    // 0: everything that is applied will be layered; and nothing is there.
    assert!(!table(&device(), &[], 0).contains("applied now, but"));
    assert!(table(&Device::new(), &[], 0).ends_with("\nthere are no extensions\n"));
    // 0: what is not applied now cannot be lost.
    for (field, value) in
        [("Dead", json!(true)), ("Error", json!("hook failed")), ("ExitCode", json!(1))]
    {
        let failed = Device::new();
        failed.deploy('a', &[("os-version", "1.*")], &[&[("opt/a", "a")]]);
        table(&failed, &[], 0);
        failed.deploy('b', &[], &[&[("opt/b", "b")]]);
        failed.record('b', |record| {
            record["State"][field] = value;
            record["Driver"] = "vfs".into();
        });
        let (code, document, reasons) = failed.reasons(&[]);
        assert_eq!(code, 0, "{document:#}");
        assert!(!reasons.contains("below-os"), "{reasons}");
    }
    // 1: each way to lose one that is applied.
    let lost = |change: &dyn Fn(&Device), words: &[&str], reason: &str| {
        let device = device();
        change(&device);
        let (code, document, reasons) = device.reasons(words);
        assert!(code == 1 && reasons.contains(reason), "{reason}: {document:#}");
        let out = table(&device, words, 1);
        assert!(
            out.ends_with('\n')
                && out.contains("\napplied now, but will not be layered or may not be: "),
            "{out}"
        );
    };
    let nothing = |_: &Device| {};
    lost(&|it| it.record('c', |record| record["Driver"] = "vfs".into()), &[], "storage-driver");
    lost(&|it| it.0.write("proc/cmdline", "emergency\n"), &[], "nothing-layered");
    lost(
        &|it| fs::remove_file(it.path("mnt/data/remove_me_to_reset")).unwrap(),
        &[],
        "nothing-layered",
    );
    lost(&|it| it.set_block(""), &[], "other-system");
    let unclaimed = |it: &Device| {
        it.record('b', |record| {
            let labels = record["Config"]["Labels"].as_object_mut().unwrap();
            labels.remove("io.balena.image.kernel-abi-id").unwrap();
        });
    };
    lost(&unclaimed, &[], "stock-kernel");
    let abi = format!("--kernel-abi={}", KERNELS[1].1);
    lost(
        &nothing,
        &[&abi, &format!("--kernel-release={RELEASE}"), "--os-version=2.113.4"],
        "other-system",
    );
    lost(&nothing, &["--page-size=1024", "--os-layers=30"], "no-room");
    lost(&nothing, &["--os-version=3.0.0"], "other-system");
    lost(&nothing, &["--kernel-release=6.1.0"], "claims-unknown");
    // 2: the command line.
    for words in
        [&["--os-root=/", "--os-version=1"][..], &["--page-size=1"], &["--os-version="], &["x"]]
    {
        table(&device(), words, 2);
    }
}
