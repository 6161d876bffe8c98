//! `check` on one bad image for every rule, on every kind of input, and on the sample extension.

mod archives;
mod image;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::capture::run;
use crate::finished::Finished;
use crate::programs;
use image::{Image, Item, archive};

const CLASS: &str = "io.balena.image.class";
const LONG_LINE: &str = concat!(
    "#!/bin/sh -e # 0123456789012345678901234567890123456789012345678901234567890123456789",
    "01234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "01234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789\n",
);
/// Of "abc", from FIPS 180-2, and of nothing.
const ABC_HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Calls the manager.
fn manager(words: &[&str]) -> Finished {
    run(Command::new(programs::manager()).args(words))
}

/// The findings of a check, `rule path` each.
#[track_caller]
fn findings(finished: &Finished) -> BTreeSet<String> {
    let document = finished.json();
    assert_eq!(document["schema"], 1);
    let reports = document["reports"].as_array().unwrap();
    let all = reports.iter().flat_map(|report| report["findings"].as_array().unwrap());
    all.map(|finding| {
        for field in ["message", "fix"] {
            assert!(!finding[field].as_str().unwrap().is_empty(), "{finding}");
        }
        let path = finding["path"].as_str().unwrap_or_default();
        format!("{} {path}", finding["rule"].as_str().unwrap()).trim_end().to_owned()
    })
    .collect()
}

/// The first bytes of a program for another machine (elf(5)): S/390.
fn foreign_program() -> Vec<u8> {
    let mut head = b"\x7fELF\x02\x02\x01".to_vec();
    head.resize(16, 0);
    head.extend([0, 2, 0, 22]);
    head.resize(64, 0);
    head
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The root of a host: `/lib` is a link, as on a merged-/usr system.
fn host() -> tempfile::TempDir {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let host = tempfile::tempdir().unwrap();
    write(host.path(), "usr/bin/sh", "#!/bin/true\n");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(host.path().join("usr/bin/sh"), executable).unwrap();
    write(host.path(), "usr/lib/taken", "");
    symlink("usr/bin", host.path().join("bin")).unwrap();
    symlink("usr/lib", host.path().join("lib")).unwrap();
    std::fs::create_dir(host.path().join("srv")).unwrap();
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(host.path().join("srv"), closed).unwrap();
    host
}

/// One bad image for every rule that an image can break: the fault, and all findings.
fn bad_images() -> Vec<(Image, &'static str)> {
    let good = Image::good;
    let hook =
        |text: &str| Image { items: Vec::new(), ..Image::good() }.file("hooks/start", 0o755, text);
    let mut no_class = good();
    no_class.labels = json!({ "maintainer": "x" });
    let mut no_command = good();
    no_command.config["config"]["Cmd"] = Value::Null;
    let mut health_check = good();
    health_check.config["config"]["Healthcheck"] = json!({ "Test": ["CMD", "true"] });
    let kernel = || {
        let image = good().label("kernel-abi-id", ABC_HASH).file("boot/bzImage", 0o644, "abc");
        image.file("lib/modules/6.1.0/Module.symvers", 0o644, "")
    };
    let twice = good().file("./usr/share/sample", 0o644, "x");
    let zstd = |bytes: Vec<u8>| {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        compress_to_vec(bytes.as_slice(), CompressionLevel::Fastest)
    };
    let foreign = |path| Item::File(path, 0o755, foreign_program());
    let empty = || Image { items: Vec::new(), ..Image::good() };
    vec![
        (no_class, "class"),
        (good().label("overide", "1"), "label-unknown"),
        (good().label("store", &"x".repeat(200_000)), "label-environment"),
        (good().label("STORE", "x").label("store", "y"), "label-collision, label-unknown"),
        (good().label("override", "high"), "override"),
        (good().label("requires-reboot", "perhaps"), "requires-reboot"),
        (good().label("os-version", "5.*,6.[0"), "os-version"),
        (good().label("os-version", ">=2.119.0"), "os-version-pattern"),
        (good().label("os-version", "2.119.x"), "os-version-pattern"),
        (twice, "layer usr/share/sample"),
        (Image { pack: zstd, ..good() }, "layer-zstd"),
        (good().with(Item::Raw("../usr/x")), "path-out ../usr/x"),
        (good().with(Item::Capable("usr/bin/ping")), "capability usr/bin/ping"),
        (good().label("kernel-version", "6.1.83-yocto"), "kernel-version"),
        (good().label("kernel-abi-id", "abc"), "kernel-abi"),
        (
            kernel().label("kernel-abi-id", &"a".repeat(64)),
            "kernel-abi-file boot, kernel-override boot",
        ),
        (
            good().label("kernel-abi-id", ABC_HASH).file("boot/bzImage", 0o644, "abc"),
            "module-symvers, kernel-override boot",
        ),
        (
            kernel().label("kernel-abi-id", EMPTY_HASH).file("boot/empty", 0o644, ""),
            "kernel-abi-file boot, kernel-override boot",
        ),
        (
            kernel().file("boot/.fabricating", 0o644, "x"),
            "boot-marker boot/.fabricating, kernel-override boot",
        ),
        (
            good().label("kernel-version", "6.1.83").file("lib/modules/5.10.1/a.ko", 0o644, "x"),
            "module-release lib/modules/5.10.1",
        ),
        (
            good().label("kernel-version", "6.1.83").file(
                "usr/lib/drv/foo.ko",
                0o644,
                "\0vermagic=5.10.1-other SMP \0",
            ),
            "module-release usr/lib/drv/foo.ko",
        ),
        (good().file("lib/modules/6.1.0/a.ko", 0o644, "x"), "module-claim lib/modules/6.1.0"),
        (
            good().file("usr/lib/drv/foo.ko", 0o644, "\0vermagic=5.10.1-other SMP \0"),
            "module-claim usr/lib/drv/foo.ko",
        ),
        (no_command, "command"),
        (health_check, "health-check"),
        (empty(), "empty"),
        (empty().file("hooks/start", 0o644, "#!/bin/sh\n"), "hook hooks/start"),
        (good().with(Item::Folder("hooks/create", 0o755)), "hook hooks/create"),
        (
            good().with(Item::Link("hooks/create", "/missing")),
            "hook hooks/create, link-out hooks/create",
        ),
        (good().file("hooks/create.sh", 0o755, "#!/bin/sh\n"), "hook-name hooks/create.sh"),
        (hook(LONG_LINE), "hook-first-line hooks/start"),
        (hook("echo\n"), "hook-format hooks/start"),
        (hook("#!/bin/sh\r\n"), "hook-line-ends hooks/start"),
        (hook("#!sh\n"), "hook-interpreter hooks/start"),
        (hook("#!/usr/bin/env sh -e\n"), "hook-interpreter hooks/start"),
        (hook("#!/usr/bin/python3\n"), "hook-host hooks/start"),
        (good().with(foreign("hooks/create")), "hook-architecture hooks/create"),
        (good().with(foreign("usr/bin/x")), "architecture usr/bin/x"),
        (good().with(foreign("hooks/bin/helper")), "architecture hooks/bin/helper"),
        (
            good().with(Item::File("usr/share/emulator/rom", 0o644, foreign_program())),
            "foreign-data usr/share/emulator/rom",
        ),
        (good().file("run/x/y", 0o644, "x"), "mounted-over run"),
        (good().file("etc/ld.so.cache", 0o644, "x"), "index-file etc/ld.so.cache"),
        (good().file("etc/passwd", 0o644, "x"), "host-file etc/passwd"),
        (good().file("usr/.wh.share2", 0o644, ""), "whiteout usr/share2"),
        (good().file("usr/bin/x", 0o4755, "x"), "setuid usr/bin/x"),
        (good().file("usr/bin/x", 0o666, "x"), "world-writable usr/bin/x"),
        (good().with(Item::Folder("usr/open", 0o777)), "world-writable usr/open"),
        (good().with(Item::Fifo("usr/fifo")), "special-file usr/fifo"),
        (good().with(Item::Owned("usr/mine", 1000)), "owner usr/mine"),
        (good().with(Item::Link("usr/link", "../../../etc")), "link-out usr/link"),
        (good().with(Item::Link("usr/link", "/usr/nowhere")), "link-out usr/link"),
    ]
}

fn severities() -> std::collections::BTreeMap<String, String> {
    let rules = manager(&["check", "--rules"]).ok().out;
    let row = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    rules.lines().map(row).collect()
}

#[test]
fn every_rule_finds_its_bad_image_and_nothing_else_in_it() {
    let severities = severities();
    for (image, expected) in bad_images() {
        let (_folder, path) = image.save();
        let path = path.to_str().unwrap();
        let finished = manager(&["check", "--format", "json", path]);
        let expected: BTreeSet<String> = expected.split(", ").map(str::to_owned).collect();
        assert_eq!(findings(&finished), expected, "{finished}");
        let rules: Vec<&str> =
            expected.iter().map(|found| found.split(' ').next().unwrap()).collect();
        let has = |severity: &str| rules.iter().any(|rule| severities[*rule] == severity);
        let status = if has("error") { 4 } else { 3 };
        assert_eq!(finished.code(), status, "{finished}");
        // An allowed finding is reported, but does not count.
        let allowed = manager(&["check", "--format", "json", "--allow", &rules.join(","), path]);
        assert_eq!(findings(&allowed.ok()), expected);
        // For people, the rule and its fix.
        let text = manager(&["check", path]);
        assert_eq!((text.code(), text.err.as_str()), (status, ""));
        assert!(text.out.contains("\n    fix: "), "{text}");
        for rule in rules {
            assert!(text.out.contains(&format!("[{rule}]")), "{text}");
        }
    }
}

#[test]
fn every_rule_has_a_bad_image() {
    // These need another input than an image: a directory, a bundle, a host.
    let elsewhere = [
        "no-labels",
        "configuration",
        "cut-off",
        "hidden-by-host",
        "type-conflict",
        "directory-mode",
    ];
    let mut shown: BTreeSet<String> = elsewhere.map(str::to_owned).into();
    for (_, expected) in bad_images() {
        let rules = expected.split(", ").map(|found| found.split(' ').next().unwrap().to_owned());
        shown.extend(rules);
    }
    assert_eq!(shown, severities().into_keys().collect());
}

#[test]
fn a_good_image_is_fine() {
    let (_folder, path) = Image::good().save();
    let finished = manager(&["check", path.to_str().unwrap()]).ok();
    assert!(finished.out.ends_with("(image): fine: 0 errors, 0 warnings, 0 notes\n"), "{finished}");
    assert!(finished.out.contains("sample:1"), "{finished}");
}

#[test]
fn an_image_is_compared_with_the_root_of_a_host() {
    let host = host();
    let root = host.path().to_str().unwrap();
    let against = |image: Image| {
        let (_folder, path) = image.save();
        let words = ["check", "--format", "json", "--against", root, path.to_str().unwrap()];
        findings(&manager(&words)).into_iter().collect::<Vec<_>>()
    };
    assert!(against(Image::good()).is_empty());
    let taken = || Image::good().file("usr/lib/taken", 0o644, "");
    assert_eq!(against(taken()), ["hidden-by-host usr/lib/taken"]);
    assert!(against(taken().label("override", "10")).is_empty());
    let folder = Image::good().file("lib/firmware/x", 0o644, "");
    assert_eq!(against(folder), ["type-conflict lib"]);
    let open = || Image::good().with(Item::Folder("srv", 0o755));
    assert_eq!(against(open().label("override", "10")), ["directory-mode srv"]);
    assert!(against(open()).is_empty());
    let python = Image { items: Vec::new(), ..Image::good() };
    let python = python.file("hooks/start", 0o755, "#!/usr/bin/python3\n");
    assert_eq!(against(python), ["hook-interpreter hooks/start"]);
    let link = Image::good().with(Item::Link("usr/link", "/usr/lib/taken"));
    assert!(against(link).is_empty());
}

#[test]
fn a_bundle_is_judged_as_the_runtime_judges_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "rootfs/usr/share/x", "");
    let path = folder.path().to_str().unwrap();
    let check = |config: Value| {
        write(folder.path(), "config.json", &config.to_string());
        manager(&["check", "--format", "json", path])
    };
    let good = json!({ "ociVersion": "1.0.2", "process": {}, "root": { "path": "rootfs" },
        "annotations": { CLASS: "overlay" } });
    check(good.clone()).ok();
    for (change, expected) in [
        (json!({ "ociVersion": "2.0.0" }), "unsupported ociVersion"),
        (json!({ "root": { "path": ".." } }), "outside the bundle"),
        (json!({ "process": null }), "no process"),
    ] {
        let mut config = good.clone();
        for (name, value) in change.as_object().unwrap() {
            config[name] = value.clone();
        }
        let finished = check(config);
        assert_eq!(finished.code(), 4);
        let finding = &finished.json()["reports"][0]["findings"][0];
        assert_eq!(finding["rule"], "configuration");
        assert!(finding["message"].as_str().unwrap().contains(expected), "{finding}");
    }
    let mut volume = good;
    volume["annotations"][CLASS] = json!("volume");
    let finished = check(volume);
    assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["class"]);
}

#[test]
fn an_export_and_a_directory_have_the_labels_that_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let tar = folder.path().join("export.tar");
    let items = [
        Item::File(".dockerenv", 0o755, Vec::new()),
        Item::File("etc/hosts", 0o755, Vec::new()),
        Item::File("usr/share/x", 0o644, b"x".to_vec()),
    ];
    std::fs::write(&tar, archive(&items)).unwrap();
    write(folder.path(), "rootfs/usr/share/x", "");
    for path in [tar, folder.path().join("rootfs")] {
        let path = path.to_str().unwrap();
        let finished = manager(&["check", "--format", "json", path]).ok();
        assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["no-labels"]);
        let label = format!("{CLASS}=volume");
        let finished = manager(&["check", "--format", "json", "--label", &label, path]);
        assert_eq!(finished.code(), 4);
        assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["class"]);
    }
}

/// Most rules need labels, so without them nothing is fine: the report names the rules that were not
/// applied, and what to pass.
#[test]
fn without_labels_the_report_says_which_rules_were_not_applied() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "usr/share/x", "");
    let path = folder.path().to_str().unwrap();
    for options in [&[][..], &["--allow", "no-labels"]] {
        let finished = manager(&[&["check", path], options].concat()).ok();
        assert!(!finished.out.contains("fine"), "{finished}");
        assert!(finished.out.contains("no errors, but the labels were not checked"), "{finished}");
    }
    let finished = manager(&["check", path]).ok();
    assert!(finished.out.contains("--label io.balena.image.class=overlay"), "{finished}");
    let note = finished.out.lines().next().unwrap();
    for rule in ["class", "os-version", "kernel-abi-file", "module-claim"] {
        assert!(note.contains(&format!(" {rule}")), "{finished}");
    }
    let class = format!("{CLASS}=overlay");
    let finished = manager(&["check", "--label", &class, path]).ok();
    assert!(finished.out.ends_with("(directory): fine: 0 errors, 0 warnings, 0 notes\n"));
}

/// What `docker export` has of every container, beside the files of the image.
#[test]
fn an_export_is_compared_with_a_host_without_what_the_engine_added() {
    let folder = tempfile::tempdir().unwrap();
    let tar = folder.path().join("export.tar");
    let items = [
        Item::File(".dockerenv", 0o755, Vec::new()),
        Item::Folder("etc", 0o755),
        Item::File("etc/hosts", 0o755, Vec::new()),
        Item::File("etc/hostname", 0o755, Vec::new()),
        Item::Link("etc/mtab", "/proc/mounts"),
        Item::File("etc/resolv.conf", 0o755, Vec::new()),
        Item::Folder("proc", 0o755),
        Item::Folder("sys", 0o755),
        Item::File("usr/share/x", 0o644, b"x".to_vec()),
    ];
    std::fs::write(&tar, archive(&items)).unwrap();
    let host = host();
    for file in ["etc/hosts", "etc/hostname", "etc/mtab", "etc/resolv.conf"] {
        write(host.path(), file, "x");
    }
    for folder in ["proc", "sys"] {
        use std::os::unix::fs::PermissionsExt as _;
        let path = host.path().join(folder);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    let (root, path) = (host.path().to_str().unwrap(), tar.to_str().unwrap());
    let class = format!("{CLASS}=overlay");
    let mut words = vec!["check", "--format", "json", "--label", &class, "--against", root, path];
    assert_eq!(findings(&manager(&words).ok()), BTreeSet::new());
    words.extend(["--label", "io.balena.image.override=1"]);
    assert_eq!(findings(&manager(&words).ok()), BTreeSet::new());
}

#[test]
fn a_machine_has_the_name_that_uname_or_images_have_for_it_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("usr")).unwrap();
    let program = folder.path().join("usr/x");
    std::fs::write(&program, foreign_program()).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    let path = folder.path().to_str().unwrap();
    let check = |machine: &str| {
        let class = format!("{CLASS}=overlay");
        manager(&["check", "--format", "json", "--label", &class, "--machine", machine, path])
    };
    assert_eq!(findings(&check("s390x").ok()), BTreeSet::new());
    for machine in ["amd64", "x86_64", "arm64", "aarch64", "arm", "386"] {
        let finished = check(machine);
        assert_eq!(findings(&finished).into_iter().collect::<Vec<_>>(), ["architecture usr/x"]);
        let said = format!("--machine is {machine}");
        assert!(finished.out.contains(&said), "{finished}");
    }
    for machine in ["amd46", "arm64x", "AMD64", ""] {
        let finished = check(machine);
        assert_eq!((finished.code(), finished.out.as_str()), (2, ""), "{finished}");
        assert!(finished.err.contains("amd64") && finished.err.contains("armv7l"), "{finished}");
    }
    let mut program = foreign_program();
    program[5] = 1;
    program[16..20].copy_from_slice(&[2, 0, 62, 0]);
    std::fs::write(folder.path().join("usr/x"), program).unwrap();
    assert_eq!(findings(&check("amd64").ok()), BTreeSet::new());
}

#[test]
fn an_archive_may_come_from_standard_input() {
    let (_folder, path) = Image::good().save();
    let script = "exec \"$0\" check - <\"$1\"";
    run(Command::new("sh").arg("-c").arg(script).arg(programs::manager()).arg(path)).ok();
}

#[test]
fn an_input_that_cannot_be_read_is_an_error_and_not_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "text.tar", "hello");
    write(folder.path(), "bundle/config.json", "{}");
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (_image, whole) = Image::good().save();
    let whole = std::fs::read(whole).unwrap();
    std::fs::write(at("half.tar"), &whole[..whole.len() / 3]).unwrap();
    for (path, expected) in [
        (at("missing.tar"), ": missing"),
        (at("text.tar"), "not a tar archive"),
        (at("half.tar"), "cannot read the tar archive"),
    ] {
        let finished = manager(&["check", &path]);
        assert_eq!((finished.code(), finished.out.as_str()), (1, ""), "{finished}");
        finished.fails(&[&path, expected]);
    }
    let (_image, path) = Image::good().save();
    let path = path.to_str().unwrap();
    let finished = manager(&["check", "--against", &at("nowhere"), path]);
    finished.fails(&["--against", ": missing"]);
    let finished = manager(&["check", "--allow", "everything", path]);
    assert_eq!(finished.code(), 2);
    assert!(finished.err.contains("unknown rule \"everything\""), "{finished}");
    let socket = format!("unix://{}", at("engine.sock"));
    let finished = manager(&["--host", &socket, "check", "no/such-image"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("no/such-image") && finished.err.contains("engine.sock"));
}

#[test]
fn the_sample_extension_passes() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sample-extension");
    let rootfs = top.join("rootfs");
    let label = format!("{CLASS}=overlay");
    let host = host();
    let root = host.path().to_str().unwrap();
    let rootfs = rootfs.to_str().unwrap();
    manager(&["check", "--label", &label, "--against", root, rootfs]).ok();
    // With the labels of the sample's Dockerfile.
    let labels: Vec<String> = std::fs::read_to_string(top.join("Dockerfile"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("LABEL "))
        .map(|text| text.replace('"', ""))
        .collect();
    assert!(!labels.is_empty(), "the Dockerfile has no labels");
    let mut words = vec!["check", "--format", "json", rootfs];
    for label in &labels {
        words.extend(["--label", label]);
    }
    let finished = manager(&words).ok();
    assert_eq!(findings(&finished), BTreeSet::new(), "{labels:?}");
}
