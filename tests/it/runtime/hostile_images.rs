//! Malicious images and bundles: every call is bounded in time and memory, does not leave the rootfs, and has
//! one clear error. Merely wrong input is in `bad_input`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::container::Container;
use crate::finished::Finished;
use crate::process;

/// The limits of a call in time and address space.
const LIMIT: Duration = Duration::from_secs(10);
const MEMORY: &str = "--as=268435456";

/// Calls create with little memory. Fails the test if it takes too long.
fn create_bounded(container: &Container) -> Finished {
    let create = container.create_command();
    let mut bounded = Command::new("prlimit");
    bounded.arg(MEMORY).arg("--").arg(create.get_program()).args(create.get_args());
    let begun = Instant::now();
    let finished = container.create_by(&mut bounded);
    assert!(begun.elapsed() < process::allowed(LIMIT), "took {:?}", begun.elapsed());
    finished
}

fn annotate(container: &Container, count: usize) {
    container.configure(|config| {
        for number in 0..count {
            config["annotations"][format!("a{number}")] = "".into();
        }
    });
}

#[test]
fn a_million_annotations_are_refused_for_their_size() {
    let container = Container::new();
    annotate(&container, 1_000_000);
    container.configure(|config| config["annotations"]["long"] = "x".repeat(8 << 20).into());
    create_bounded(&container).fails(&["config.json", "at most 16777216"]);
    container.left_nothing();
}

#[test]
fn a_hundred_thousand_annotations_are_only_slow() {
    let container = Container::new();
    annotate(&container, 100_000);
    create_bounded(&container).ok();
    container.start().ok();
    container.delete().ok();
}

#[test]
fn a_million_labels_for_the_hooks_are_refused() {
    let container = Container::new();
    container.configure(|config| {
        for number in 0..200_000 {
            config["annotations"][format!("io.balena.image.{number}")] = "".into();
        }
    });
    create_bounded(&container).fails(&["cannot be passed to the hooks"]);
    container.left_nothing();
}

#[test]
fn documents_nested_without_end_are_refused() {
    for text in ["[".repeat(1 << 20), r#"{"a":"#.repeat(1 << 20)] {
        let container = Container::new();
        std::fs::write(container.path("config.json"), text).unwrap();
        create_bounded(&container).fails(&["config.json"]);
        container.left_nothing();
    }
}

#[test]
fn a_label_of_a_mebibyte_is_refused_by_name() {
    let container = Container::new();
    container.label("io.balena.image.big", &"x".repeat(1 << 20));
    create_bounded(&container).fails(&["io.balena.image.big", "131072"]);
    container.left_nothing();
}

#[test]
fn a_mount_of_a_mebibyte_is_refused_without_being_quoted_whole() {
    let container = Container::new();
    let destination = format!("/{}", "y".repeat(1 << 20));
    container.configure(|config| {
        config["mounts"] = serde_json::json!([{ "destination": destination, "source": "/s" }]);
    });
    let finished = create_bounded(&container);
    finished.fails(&["the mount at", "131072"]);
    assert!(finished.error().len() < 1000, "{} bytes", finished.error().len());
}

#[test]
fn names_and_values_cannot_set_another_variable() {
    for (name, text) in [
        ("io.balena.image.a=LD_PRELOAD", "/evil"),
        ("io.balena.image.a\nPATH", "/evil"),
        ("io.balena.image.a\u{0}b", "c"),
        ("io.balena.image.a", "b\u{0}PATH=/evil"),
    ] {
        let container = Container::new();
        container.label(name, text);
        create_bounded(&container).fails(&["label", "cannot be passed to the hooks"]);
        container.left_nothing();
    }
}

#[test]
fn a_chain_of_forty_links_is_followed_inside_and_a_longer_one_is_refused() {
    for (links, fits) in [(40, true), (41, false)] {
        let container = Container::new();
        container.hook("real", "touch \"$EXTENSION_ROOTFS/../ran\"");
        let folder = container.path("rootfs/hooks");
        let name = |number: usize| match number {
            0 => "create".to_owned(),
            number if number == links => "real".to_owned(),
            number => format!("link{number}"),
        };
        for number in 0..links {
            symlink(format!("/hooks/{}", name(number + 1)), folder.join(name(number))).unwrap();
        }
        let finished = container.create();
        if fits {
            finished.ok();
        } else {
            finished.fails(&["hooks/create", "link"]);
        }
        assert_eq!(container.has("ran"), fits);
    }
}

#[test]
fn sockets_and_devices_in_the_place_of_a_hook_are_refused() {
    for kind in [rustix::fs::FileType::CharacterDevice, rustix::fs::FileType::Socket] {
        let container = Container::new();
        let path = container.path("rootfs/hooks/create");
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, rustix::fs::makedev(1, 5)).unwrap();
        container.create().fails(&["hooks/create", "not an executable file"]);
        container.left_nothing();
    }
}

#[test]
fn other_files_in_the_hooks_directory_are_ignored() {
    let container = Container::new();
    container.hook("create", "touch \"$EXTENSION_ROOTFS/../ran\"");
    for name in [&b"start\n"[..], b"cre\xffate", b"delete\x1b[2J"] {
        std::fs::write(container.path("rootfs/hooks").join(OsStr::from_bytes(name)), "").unwrap();
    }
    container.create().ok();
    container.start().ok();
    assert!(container.has("ran"));
}

#[test]
fn a_hook_that_shares_its_file_with_another_is_run() {
    let container = Container::new();
    container.hook("create", "echo \"${0##*/}\" >> \"$EXTENSION_ROOTFS/../ran\"");
    let hooks = container.path("rootfs/hooks");
    std::fs::hard_link(hooks.join("create"), hooks.join("start")).unwrap();
    container.create().ok();
    container.start().ok();
    assert_eq!(container.read("ran"), "create\nstart");
}

#[test]
fn a_rootfs_swapped_meanwhile_gives_one_hook_or_the_other_or_an_error() {
    let container = Container::new();
    container.hook("create", "echo one >> \"$PWD/ran\"");
    let (rootfs, other) = (container.path("rootfs"), container.path("other"));
    std::fs::create_dir_all(other.join("hooks")).unwrap();
    crate::bundle::executable(
        &other.join("hooks/create"),
        b"#!/bin/sh\necho two >> \"$PWD/ran\"\n",
    );
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                let folder = rustix::fs::CWD;
                rustix::fs::renameat_with(folder, &rootfs, folder, &other, exchange).unwrap();
            }
        });
        for _ in 0..40 {
            let begun = Instant::now();
            let created = process::start(&mut container.create_command()).wait() == 0;
            assert!(begun.elapsed() < process::allowed(LIMIT));
            if created {
                container.delete_by_force().ok();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let ran = container.read("ran");
    assert!(ran.lines().all(|line| line == "one" || line == "two"), "{ran}");
}

/// Contract §3: start runs the hook that create has checked, or fails.
#[test]
fn a_rootfs_swapped_between_verbs_fails_start_and_not_delete() {
    let container = Container::new();
    for verb in ["create", "start", "delete"] {
        container.hook(verb, "echo one ${0##*/} >> ran");
    }
    let (rootfs, other) = (container.path("rootfs"), container.path("other"));
    std::fs::create_dir_all(other.join("hooks")).unwrap();
    for verb in ["start", "delete"] {
        let hook = "#!/bin/sh\necho two ${0##*/} >> ran\n";
        crate::bundle::executable(&other.join("hooks").join(verb), hook.as_bytes());
    }
    container.create().ok();
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let folder = rustix::fs::CWD;
    rustix::fs::renameat_with(folder, &rootfs, folder, &other, exchange).unwrap();
    container.start().fails(&["is not the one that create saw", rootfs.to_str().unwrap()]);
    let deleted = container.delete().ok();
    assert!(deleted.warnings().contains("hooks/delete is skipped"), "{deleted}");
    assert_eq!(container.read("ran"), "one create");
}

#[test]
fn a_rootfs_that_became_a_link_out_of_the_bundle_fails_start() {
    let container = Container::created();
    let (rootfs, outside) = (container.path("rootfs"), container.beside("outside"));
    std::fs::create_dir_all(outside.join("hooks")).unwrap();
    let hook = b"#!/bin/sh\ntouch ran\n";
    crate::bundle::executable(&outside.join("hooks/start"), hook);
    std::fs::remove_dir_all(&rootfs).unwrap();
    symlink(&outside, &rootfs).unwrap();
    container.start().fails(&["is not the one that create saw", rootfs.to_str().unwrap()]);
    assert!(!container.has("ran"));
}

#[test]
fn a_hook_that_create_saw_and_start_does_not_find_is_an_error() {
    let container = Container::new();
    container.hook("start", "true");
    container.hook("delete", "true");
    container.create().ok();
    std::fs::remove_dir_all(container.path("rootfs/hooks")).unwrap();
    container.start().fails(&["hooks/start was in the rootfs", "missing now"]);
    let deleted = container.delete().ok();
    assert!(deleted.warnings().contains("hooks/delete was in the rootfs"), "{deleted}");
}

#[test]
fn hooks_that_the_create_hook_makes_are_what_create_has_seen() {
    let container = Container::new();
    let made =
        "printf '#!/bin/sh\\necho made > ran\\n' > rootfs/hooks/start; chmod +x rootfs/hooks/start";
    container.hook("create", made);
    container.create().ok();
    std::fs::remove_file(container.path("rootfs/hooks/start")).unwrap();
    container.start().fails(&["hooks/start was in the rootfs"]);
}

#[test]
fn a_state_of_an_earlier_version_takes_the_rootfs_as_it_is() {
    let container = Container::new();
    container.create().ok();
    let path = container.root().join(&container.id).join("state.json");
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state.as_object_mut().unwrap().remove("seen").expect("what create saw");
    std::fs::write(&path, state.to_string()).unwrap();
    container.hook("start", "echo start > ran");
    container.start().ok();
    assert_eq!(container.read("ran"), "start");
}

#[test]
fn a_rootfs_removed_between_verbs_fails_start_but_not_delete() {
    for replace in [None, Some("/dev/null"), Some("/nowhere/at/all"), Some("rootfs")] {
        let container = Container::new();
        container.hook("start", "echo start >> ran");
        container.create().ok();
        let rootfs = container.path("rootfs");
        std::fs::rename(&rootfs, container.path("elsewhere")).unwrap();
        if let Some(target) = replace {
            symlink(target, &rootfs).unwrap();
        }
        container.start().fails(&["the rootfs", "create saw", rootfs.to_str().unwrap()]);
        assert_eq!(container.status(), "stopped");
        let deleted = container.delete().ok();
        assert!(deleted.warnings().contains("hooks/delete is skipped"), "{deleted}");
        assert!(!container.has("ran"));
    }
}
