//! `deactivate` at the top of the volumes of stale containers: when it runs, with which environment, and what
//! happens to the container if it fails or a signal arrives.

use super::cleanup::stale;
use super::host::{Host, script};
use super::recorded_engine::Answer;
use super::recorded_store::{Container, Store};
use crate::process;
use crate::runtime::mount_namespace::Machine;
use std::path::Path;

/// A stale container with a volume that has this `deactivate`.
fn with_deactivate(host: &Host, text: &str) -> Container {
    deactivating(host, "a", &host.path("volume"), text)
}

fn deactivating(host: &Host, id: &str, volume: &Path, text: &str) -> Container {
    script(&volume.join("deactivate"), text);
    let volumes = vec![(format!("v-of-{id}"), host.own_path(volume))];
    Container { volumes, ..stale(id) }
}

#[test]
fn after_a_signal_no_hook_and_no_removal_begins() {
    let host = Host::new();
    let ran = |id: &str| host.path(&format!("ran-{id}"));
    let containers = ["a", "b", "c"].map(|id| {
        let text = format!("touch {}; sleep 0.5", ran(id).display());
        deactivating(&host, id, &host.path(&format!("volume-{id}")), &text)
    });
    let store = Store::of(&containers);
    let engine = host.engine(&store);
    let err = tempfile::NamedTempFile::new().unwrap();
    let mut command = host.command(&["cleanup", "--stale-os"]);
    let mut started = process::start(command.stderr(err.reopen().unwrap()));
    let begun = || ["a", "b", "c"].iter().filter(|id| ran(id).exists()).count();
    process::wait_for("a hook", || (begun() == 1).then_some(()));
    process::signal(started.pid(), rustix::process::Signal::TERM);
    assert_eq!(started.wait(), 4);
    assert_eq!(begun(), 1, "the others were waiting for it");
    assert!(engine.removals().is_empty() && store.ids().len() == 3);
    let err = std::fs::read_to_string(err.path()).unwrap();
    assert_eq!(err.matches("is still there").count(), 1, "{err}");
}

#[test]
fn deactivate_runs_before_the_removal_with_exactly_its_environment() {
    let host = Host::new();
    let seen = host.path("seen");
    let text = format!("tr '\\0' '\\n' < /proc/$$/environ > {}; pwd >> {0}", seen.display());
    let store = Store::of(&[with_deactivate(&host, &text)]);
    let _engine = host.engine(&store);
    host.manager(&["cleanup", "--stale-os", "--dry-run"]).ok();
    assert!(!seen.exists(), "a dry run runs nothing");
    host.manager(&["cleanup", "--stale-os"]).ok();
    let volume = host.path("volume").display().to_string();
    let seen = std::fs::read_to_string(seen).unwrap();
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        [
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            format!("EXTENSION_ROOTFS={volume}").as_str(),
            "EXTENSION_IMAGE_CLASS=overlay",
            "EXTENSION_IMAGE_KERNEL_VERSION=5.10.0",
            format!("EXTENSION_VOLUME_DATA={volume}").as_str(),
            "/",
        ]
    );
    assert!(store.ids().is_empty());
}

#[test]
fn a_deactivate_that_fails_is_reported_and_does_not_stop_the_removal() {
    let host = Host::new();
    let store = Store::of(&[with_deactivate(&host, "echo cannot >&2; exit 7")]);
    let _engine = host.engine(&store);
    let finished = host.manager(&["cleanup", "--stale-os", "--format", "json"]);
    assert_eq!(finished.code(), 1, "{finished}");
    let document = finished.json();
    let error = document["objects"][0]["deactivated"][0]["error"].as_str().unwrap();
    assert_eq!(error, "hook deactivate exited with status 7: cannot");
    assert_eq!(document["objects"][0]["result"], "removed");
    assert!(store.ids().is_empty());
}

#[test]
fn a_stale_container_is_removed_after_its_deactivate_even_if_it_was_started_again() {
    let host = Host::new();
    let ran = host.path("ran");
    let container = with_deactivate(&host, &format!("touch {}", ran.display()));
    let store = Store::of(&[Container { error: "it did not start", ..container }]);
    let (seen, mark) = (store.clone(), ran.clone());
    let _engine = host.engine_but(&store, move |_, _| {
        if mark.exists() {
            seen.contents().containers.iter_mut().for_each(|one| one.error = "");
        }
        None
    });
    host.manager(&["cleanup", "--stale-os"]).ok();
    assert!(ran.exists() && store.ids().is_empty());
}

#[test]
fn a_signal_that_ends_manager_and_deactivate_keeps_the_container() {
    let host = Host::new();
    // systemd stops a unit with a signal to all its processes. Here the hook signals the manager, which is its
    // guard's parent, and then ends as if it had been signalled as well.
    let text = "kill -TERM $(cut -d ' ' -f 4 /proc/$PPID/stat); exit 143";
    let store = Store::of(&[with_deactivate(&host, text)]);
    let engine = host.engine(&store);
    let finished = host.manager(&["cleanup", "--stale-os"]);
    assert_eq!(finished.code(), 4, "{finished}");
    assert!(finished.err.contains("stopped by a signal"), "{finished}");
    assert!(!finished.err.contains("the removal continued"), "{finished}");
    assert!(engine.removals().is_empty(), "{:?}", engine.removals());
    assert_eq!(store.ids().len(), 1);
}

#[test]
fn a_deactivate_that_is_a_link_out_of_its_volume_does_not_run() {
    let host = Host::new();
    let container = with_deactivate(&host, "exit 0");
    script(&host.path("outside"), &format!("touch {}", host.path("escaped").display()));
    let link = host.path("volume/deactivate");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(host.path("outside"), &link).unwrap();
    let store = Store::of(&[container]);
    let _engine = host.engine(&store);
    let finished = host.manager(&["cleanup", "--stale-os"]);
    assert!(finished.code() == 1 && finished.err.contains("link"), "{finished}");
    assert!(!host.path("escaped").exists() && store.ids().is_empty());
}

#[test]
fn a_deactivate_that_hangs_ends_with_the_time_and_is_killed() {
    let host = Host::new();
    let pid = host.path("pid");
    let text = format!("echo $$ > {}; exec sleep 100", pid.display());
    let store = Store::of(&[with_deactivate(&host, &text)]);
    let _engine = host.engine(&store);
    let finished = host.manager(&["cleanup", "--stale-os", "--timeout", "1"]);
    assert_eq!(finished.code(), 4, "{finished}");
    assert!(finished.out.contains("not-tried"), "{finished}");
    let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    process::wait_for("the hook to be killed", || (!process::is_alive(pid)).then_some(()));
}

#[test]
fn root_of_a_user_namespace_cleans_nothing_up() {
    let host = Host::new();
    let ran = host.path("ran");
    let store = Store::of(&[with_deactivate(&host, &format!("touch {}", ran.display()))]);
    let engine = host.engine(&store);
    let words = host.command(&["cleanup", "--stale-os"]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(words.get_program()).args(words.get_args());
    let finished = crate::capture::run(&mut command);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("must run as root of the host"), "{finished}");
    assert!(!ran.exists() && engine.removals().is_empty() && store.ids().len() == 1);
}

#[test]
fn no_deactivate_runs_in_a_volume_shared_with_a_container_that_is_not_an_extension() {
    let host = Host::new();
    let ran = host.path("ran");
    let text = format!("touch {}", ran.display());
    let volume = "/volume";
    std::os::unix::fs::symlink(volume, host.path("link")).unwrap();
    let foreign = |name: &str, path: &str| Container {
        labels: serde_json::Value::Null,
        state: "exited",
        volumes: vec![(name.to_owned(), path.to_owned())],
        ..Container::new("app")
    };
    for (name, path) in [
        ("v-of-a", volume),
        // Binds of the directory and of its contents, by any path.
        ("", volume),
        ("", "/link"),
        ("", &format!("{volume}/deactivate")),
        ("other-name", volume),
    ] {
        let store = Store::of(&[with_deactivate(&host, &text), foreign(name, path)]);
        let _engine = host.engine(&store);
        let why = "container name-of-app, which is not an extension, also uses";
        let dry = host.manager(&["cleanup", "--stale-os", "--dry-run"]);
        assert!(dry.out.contains("does not run deactivate of volume v-of-a"), "{dry}");
        assert!(dry.out.contains(why), "{dry}");
        let finished = host.manager(&["cleanup", "--stale-os", "--format", "json"]);
        assert_eq!(finished.code(), 1, "{name:?} {path:?}: {finished}");
        assert!(finished.err.contains(why), "{finished}");
        let document = finished.json();
        assert_eq!(document["objects"][0]["deactivated"][0]["ran"], false);
        assert_eq!(document["objects"][0]["result"], "removed", "the removal goes on");
        assert!(!ran.exists() && store.ids() == ["app"], "{name:?} {path:?}");
    }
}

#[test]
fn a_deactivate_runs_where_others_use_other_folders() {
    let host = Host::new();
    let ran = host.path("ran");
    let container = with_deactivate(&host, &format!("touch {}", ran.display()));
    let binds = ["/", "/nowhere", "/proc"];
    let volumes = binds.map(|path| (String::new(), path.to_owned()));
    let app = Container {
        labels: serde_json::Value::Null,
        volumes: volumes.into(),
        ..Container::new("app")
    };
    let store = Store::of(&[container, app]);
    let _engine = host.engine(&store);
    host.manager(&["cleanup", "--stale-os"]).ok();
    assert!(ran.exists());
}

#[test]
fn a_volume_is_treated_as_shared_when_the_engine_does_not_list_everything() {
    let host = Host::new();
    let ran = host.path("ran");
    let store = Store::of(&[with_deactivate(&host, &format!("touch {}", ran.display()))]);
    let listed = store.clone();
    let odd = [serde_json::json!(7), serde_json::json!({ "Id": "app", "Labels": null })];
    let next = std::sync::atomic::AtomicUsize::new(0);
    let _engine = host.engine_but(&store, move |method, path| {
        let Answer::Json(200, mut all) = listed.answer(method, path) else { return None };
        let item = odd[next.load(std::sync::atomic::Ordering::SeqCst) % 2].clone();
        (path == "/containers/json?all=1").then(|| {
            next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            all.as_array_mut().unwrap().push(item);
            Answer::Json(200, all)
        })
    });
    for _ in 0..2 {
        store.contents().containers = vec![with_deactivate(&host, "exit 0")];
        script(&host.path("volume/deactivate"), &format!("touch {}", ran.display()));
        let finished = host.manager(&["cleanup", "--stale-os"]);
        assert!(finished.code() == 1 && !ran.exists(), "{finished}");
        assert!(finished.err.contains("another object may also use the volume"), "{finished}");
    }
}

#[test]
fn a_dry_run_names_each_program_that_would_be_run() {
    let host = Host::new();
    let container = with_deactivate(&host, "exit 0");
    let program = host.path("volume/deactivate").display().to_string();
    let empty = Container { volumes: Vec::new(), ..stale("b") };
    let store = Store::of(&[container, empty]);
    let _engine = host.engine(&store);
    let dry = host.manager(&["cleanup", "--stale-os", "--dry-run"]).ok();
    assert!(dry.out.contains(&format!("  runs {program}\n")), "{dry}");
    let document =
        host.manager(&["cleanup", "--stale-os", "--dry-run", "--format", "json"]).ok().json();
    assert_eq!(document["objects"][0]["deactivated"][0]["program"], program);
    let plain = host.manager(&["cleanup", "--dry-run"]).ok();
    assert!(!plain.out.contains("runs"), "{plain}");
}

#[test]
fn a_deactivate_runs_on_the_host_though_the_manager_has_mounts_of_its_own() {
    let machine = Machine::new("slave");
    let host = Host::new();
    let (own, both) = (host.path("own"), host.path("both"));
    let target = host.path("target");
    for folder in [&own, &both, &target] {
        std::fs::create_dir(folder).unwrap();
    }
    let mount = format!("mount -t tmpfs own {}", own.display());
    machine.shell(machine.engine, &mount).ok();
    let text = format!("echo $EXTENSION_ROOTFS >> {0}/seen; umount {0}/mounted", target.display());
    for (volume, id) in [(&own, "own"), (&both, "both")] {
        let path = host.path(id).with_extension("script");
        script(&path, &text);
        let copy = format!("cp -p {} {}/deactivate", path.display(), volume.display());
        machine.shell(machine.engine, &copy).ok();
    }
    // Each unmounts what process 1 has mounted.
    let mounted = target.join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    let mount = format!("mount -t tmpfs x {0}; mount -t tmpfs x {0}", mounted.display());
    machine.shell(machine.host, &mount).ok();
    let volume = |id: &str, path: &Path| Container {
        volumes: vec![(format!("v-of-{id}"), host.own_path(path))],
        ..stale(id)
    };
    let store = Store::of(&[volume("a", &own), volume("b", &both)]);
    let _engine = host.engine(&store);
    let words = host.command(&["cleanup", "--stale-os"]);
    crate::capture::run(&mut machine.command(machine.engine, &words)).ok();
    let seen = std::fs::read_to_string(target.join("seen")).unwrap();
    let mut seen: Vec<&str> = seen.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].starts_with("/run/balena-extension-runtime-rootfs/@deactivate-"), "{seen:?}");
    assert_eq!(seen[1], both.to_str().unwrap());
    let left =
        machine.shell(machine.host, &format!("grep {} /proc/1/mountinfo", mounted.display()));
    assert_eq!(left.out, "", "both were taken off");
    machine.is_clean();
}
