//! A root filesystem that is an overlay: the layers of the OS are told apart from those of extensions.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::device::{Device, STORE, id};
use super::kernel::{Overlay, bind, in_own_mounts};
use crate::capture::run;
use crate::programs;

/// The OS's own image in the root partition.
const IMAGE: &str = "balena/overlay2";

#[test]
fn the_layers_of_an_os_are_told_apart_from_those_of_extensions() {
    in_own_mounts(|top| {
        let device = Device::new();
        device.deploy(
            'a',
            &[("override", "1")],
            &[&[("etc/issue", "of the extension")], &[("opt/a", "a")]],
        );
        device.deploy('b', &[], &[&[("etc/issue", "another"), ("opt/a", "b")]]);
        let sysroot = top.join("sysroot");
        os_layers(&sysroot.join(IMAGE));
        let boot = tempfile::Builder::new().prefix("mobynit-lower").tempdir_in("/tmp").unwrap();
        let links = boot.path();
        // The boot has layered only the first extension.
        let layers = [
            device.path(STORE).join("overlay2/own-a/diff"),
            device.path(STORE).join("overlay2/a0/diff"),
            device.path(STORE).join("overlay2/a1/diff"),
            sysroot.join(IMAGE).join("upper/diff"),
            sysroot.join(IMAGE).join("base/diff"),
        ];
        // Those of the OS have the first numbers.
        let numbers = [2, 3, 4, 0, 1];
        for (number, layer) in numbers.iter().zip(&layers) {
            symlink(layer, links.join(number.to_string())).unwrap();
        }
        let names = numbers.map(|number| format!("{}/{number}", links.to_str().unwrap()));
        let root = top.join("root");
        let _root = Overlay::mount(&root, &format!("lowerdir={}", names.join(":"))).unwrap();
        fs::create_dir(top.join("run")).unwrap();
        fs::copy(programs::manager(), device.path("mnt/data/manager")).unwrap();
        for (from, to) in [
            (Path::new("/proc"), "proc"),
            (Path::new("/usr"), "usr"),
            (&top.join("run"), "run"),
            (&device.path("mnt/data"), "mnt/data"),
            (&sysroot, "mnt/sysroot/active"),
        ] {
            bind(from, &root.join(to));
        }

        // The running system has the links of the boot, which lead to where the initramfs saw the layers.
        let moved = top.join("run/initramfs").join(links.file_name().unwrap());
        fs::create_dir_all(&moved).unwrap();
        let of_extension = |name: &str| format!("/tmp/mobynit-data/docker/overlay2/l/{name:X<26}");
        let targets = [
            of_extension("OWN0A"),
            of_extension("A0"),
            of_extension("A1"),
            format!("/{IMAGE}/upper/diff"),
            format!("/{IMAGE}/base/diff"),
        ];
        for (number, target) in numbers.iter().zip(&targets) {
            symlink(target, moved.join(number.to_string())).unwrap();
        }
        let document = plan(&root);
        let known = (&document["osLayers"], &document["osLayersAssumed"]);
        assert_eq!(known, (&2.into(), &false.into()), "{document:#}");
        assert_eq!(document["unknownFiles"], serde_json::json!([]), "{document:#}");
        let shown: Vec<Option<&str>> = document["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["extension"].as_str())
            .collect();
        let (a, b) = (id('a'), id('b'));
        let (of_a, of_b) = (Some(a.as_str()), Some(b.as_str()));
        assert_eq!(shown, [of_a, of_a, of_a, None, None, of_b, of_b], "{document:#}");
        // The OS's file is seen although the extension hides it now; it is what the upper layer of the OS has.
        assert_eq!(
            hidden(&document),
            [
                "a hides /etc/issue of OS",
                "a hides /etc/issue of b",
                "a hides /opt/a of b",
                "b loses /etc/issue to a",
                "b loses /opt/a to a"
            ]
        );

        // One link is not there any more: then whose layer that was is unknown.
        fs::remove_file(moved.join("1")).unwrap();
        let document = plan(&root);
        let known = (&document["osLayers"], &document["osLayersAssumed"]);
        assert_eq!(known, (&1.into(), &true.into()), "{document:#}");
        let why = document["unknownFiles"][0].as_str().unwrap();
        assert!(why.contains("cannot be told from those of extensions"), "{why}");
        assert_eq!(
            hidden(&document),
            [
                "a hides /etc/issue of b",
                "a hides /opt/a of b",
                "b loses /etc/issue to a",
                "b loses /opt/a to a"
            ]
        );
        let table = manager(&root, &[]);
        let said = table.lines().any(|line| line.starts_with("some hidden files are unknown: "));
        assert!(said && table.contains("unknown how many layers the OS has, assumed 1"), "{table}");
    });
}

/// Two layers of an OS, as its engine stores them.
fn os_layers(store: &Path) {
    let directory = |path: &str| fs::create_dir_all(store.join(path)).unwrap();
    for path in [
        "proc",
        "usr",
        "run",
        "tmp",
        "mnt/data",
        "mnt/sysroot/active",
        "mnt/boot",
        "mnt/state",
        "etc",
    ] {
        directory(&format!("base/diff/{path}"));
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), store.join("base/diff").join(name)).unwrap();
    }
    fs::write(store.join("base/diff/etc/os-release"), "VERSION_ID=5.0.0\n").unwrap();
    directory("upper/diff/etc");
    fs::write(store.join("upper/diff/etc/issue"), "of the OS").unwrap();
}

fn manager(root: &Path, words: &[&str]) -> String {
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .args(["/mnt/data/manager", "plan", "--host=unix:///nowhere.sock"])
        .args(words);
    let finished = run(&mut command);
    assert!(matches!(finished.code(), 0 | 1), "{finished}");
    finished.out
}

fn plan(root: &Path) -> Value {
    serde_json::from_str(&manager(root, &["--format=json", "--files"])).unwrap()
}

fn hidden(document: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for extension in document["extensions"].as_array().unwrap() {
        for (field, verb, preposition) in [("hides", "hides", "of"), ("hidden", "loses", "to")] {
            for path in extension[field]["paths"].as_array().unwrap() {
                let short = |id: &Value| {
                    id.as_str()
                        .map_or("OS", |id| if id.starts_with('a') { "a" } else { "b" })
                        .to_owned()
                };
                let (one, other) = (short(&extension["id"]), short(&path["extension"]));
                all.push(format!(
                    "{one} {verb} {} {preposition} {other}",
                    path["path"].as_str().unwrap()
                ));
            }
        }
    }
    all.sort();
    all
}
