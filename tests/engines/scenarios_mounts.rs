//! Mount namespaces: hooks of an image run in the mount namespace of process 1, even if the engine has its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::command::{GONE, LIMIT, run};
use crate::ctr::Containerd;
use crate::deployment::Deployment;
use crate::docker::{Docker, Mounts};
use crate::engine::{Engine, Engines};
use crate::image::{Image, touch};
use crate::podman::Podman;
use crate::process::{poll_within, wait_for_within};
use crate::sandbox::MANAGER;
use crate::scenarios_manager::{KERNEL, json, labelled, manager};
use crate::test_list::Suite;

const KINDS: [(&str, Mounts); 3] =
    [("slave", Mounts::Slave), ("private", Mounts::Private), ("shared", Mounts::Shared)];

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    let shared = Arc::clone(engines);
    suite.test("mounts::the_engines_share_those_of_process_1_unless_a_test_says_so", move || {
        let host = namespace("1");
        assert_eq!(namespace("self"), host);
        assert_eq!(namespace(&shared.docker().pid_of_daemon().to_string()), host);
    });
    for (name, mounts) in KINDS {
        suite.test(format!("docker::hooks_reach_the_host_from_{name}_mounts"), move || {
            let docker = Docker::start_among(mounts, &[]);
            let daemon = docker.pid_of_daemon().to_string();
            assert_ne!(namespace(&daemon), namespace("1"));
            reaches_the_host(&docker, &[]);
            reports_mounts(&docker, "has its own mount namespace");
        });
    }
    suite.test("docker::doctor_recognizes_an_engine_with_the_hosts_mounts", || {
        reports_mounts(&Docker::start(&[]), "has the host's mounts");
    });
    suite.test("docker::a_volume_that_only_the_engine_has_reaches_hooks", volume_of_the_engine);
    suite.test("docker::a_container_with_the_hosts_mounts_sees_no_attached_rootfs", observer);
    suite.test("docker::deactivate_reaches_the_host_from_slave_mounts", deactivate);
    suite.test("containerd::hooks_reach_the_host_from_slave_mounts", || {
        reaches_the_host(&Containerd::start_apart(), &[]);
    });
    suite.test("podman::hooks_reach_the_host_from_shared_mounts_apart", || {
        reaches_the_host(&Podman::apart(), &[]);
    });
    suite.test("podman::hooks_reach_the_host_with_a_user_namespace", || {
        reaches_the_host(&Podman::new(), &["--uidmap=0:100000:65536"]);
    });
}

/// The mount namespace of a process.
fn namespace(pid: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap()
}

/// The mounts of the host, which are this process's own, without numbers, and without the mounts below the
/// directories of engines, which some engines share with the host.
fn mounts_of_the_host() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = table.lines().map(|line| line.splitn(4, ' ').last().unwrap().to_owned());
    let is_of_an_engine = |line: &str| {
        let point = line.split(' ').nth(1).unwrap();
        ["/run/scratch/docker", "/run/scratch/podman", "/run/scratch/containerd"]
            .iter()
            .any(|folder| point.starts_with(folder))
    };
    // Other tests may deploy at the same time.
    lines.filter(|line| !is_of_an_engine(line)).filter(|line| !line.contains("of-a-hook")).collect()
}

/// The mount points on the host that a hook of `image` has mounted under this name.
fn mounted(image: &Image, name: &str) -> usize {
    let source = format!(" - tmpfs of-a-hook-{}-{name} ", image.name);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(&source)).count()
}

/// An image whose hooks mount a filesystem on the host and note what they see.
fn image() -> Image {
    let image = Image::extension();
    let name = image.name.clone();
    let script = |hook: &str| {
        format!(
            "mkdir -p $NOTES/{hook}\n\
             mount -t tmpfs of-a-hook-{name}-{hook} $NOTES/{hook} || exit 1\n\
             [ $EXTENSION_ROOTFS/hooks/{hook} -ef $0 ] || exit 2\n\
             readlink /proc/self/ns/mnt > $NOTES/{hook}-namespace"
        )
    };
    let (create, start) = (script("create"), script("start"));
    image.hook("create", &create).hook("start", &start)
}

fn unmount(image: &Image) {
    for hook in ["create", "start"] {
        while mounted(image, hook) > 0 {
            run(Command::new("umount").arg(image.note(hook))).ok();
        }
    }
}

/// Deploys twice, and fails unless the host has the mounts of the hooks and no other changes.
#[track_caller]
fn reaches_the_host(engine: &dyn Engine, arguments: &[&str]) {
    let before = mounts_of_the_host();
    let extension = Deployment::of(image(), engine);
    let image = &extension.image;
    extension.run(arguments).ok();
    extension.assert_deployed();
    let (create, start) = (mounted(image, "create"), mounted(image, "start"));
    let namespaces = ["create-namespace", "start-namespace"].map(|name| image.read(name));
    unmount(image);
    assert_eq!((create, start), (1, 1), "on the host");
    let host = namespace("1").display().to_string();
    assert_eq!(namespaces.map(|one| one.trim().to_owned()), [host.clone(), host]);
    let logs = engine.logs(&extension.name);
    assert!(!logs.contains("warn"), "{logs}");
    nothing_else_is_mounted(&before);
    extension.remove();
    nothing_else_is_mounted(&before);
}

/// The directory where the runtime attaches a rootfs for hooks.
const ATTACHED: &str = "/run/balena-extension-runtime-rootfs";

#[track_caller]
fn nothing_else_is_mounted(before: &[String]) {
    let mut differences = Vec::new();
    let same = poll_within(GONE, || {
        let now = mounts_of_the_host();
        // Other tests may be deploying.
        let new = now.iter().filter(|line| !before.contains(line) && !line.contains(ATTACHED));
        let gone = before.iter().filter(|line| !now.contains(line) && !line.contains(ATTACHED));
        differences = new.chain(gone).cloned().collect();
        differences.is_empty().then_some(())
    });
    assert!(same.is_some(), "the host's mounts have changed: {differences:#?}");
}

/// The answers of `doctor` and `status` about an engine and an extension on it.
#[track_caller]
fn reports_mounts(docker: &Docker, mounts: &str) {
    let doctor = json(&manager(docker, &["doctor", "--format", "json"]));
    let checks = doctor["checks"].as_array().unwrap();
    let line = checks.iter().find(|line| line["check"] == "mounts").unwrap();
    assert!(line["text"].as_str().unwrap().contains(mounts), "{line}");
    assert_eq!(line["level"], "ok", "{line}");

    let extension = Deployment::of(image(), docker);
    extension.run(&[]).ok();
    extension.assert_deployed();
    unmount(&extension.image);
    let status = json(&manager(docker, &["status", "--format", "json"]).ok());
    assert_eq!(status["extensions"][0]["verdict"], "applied", "{status:#}");
    let listed = docker.docker(&["ps", "--all", "--format", "{{.Status}}"]).ok();
    assert!(listed.out.starts_with("Exited (0)"), "{listed}");
    extension.remove();
}

/// A volume on a mount that only the engine's namespace has. Hooks see the volume, not the directory below it.
fn volume_of_the_engine() {
    let docker = Docker::start_among(Mounts::Slave, &[]);
    let hook = "echo \"$EXTENSION_VOLUME_DATA\" > $NOTES/volume; cat $EXTENSION_VOLUME_DATA/whose > $NOTES/whose; \
                echo hook > $EXTENSION_VOLUME_DATA/written";
    let extension = Deployment::of(Image::extension().hook("start", hook), &docker);
    let folder = extension.image.note("data");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("whose"), "host").unwrap();
    let folder = folder.display().to_string();
    let script = format!("mount -t tmpfs volume {folder}; echo engine > {folder}/whose");
    docker.on_its_host(&["sh", "-ec", &script]).ok();
    extension.run(&["--volume", &format!("{folder}:/data")]).ok();
    extension.assert_deployed();
    assert_eq!(extension.image.read("whose"), "engine\n");
    assert_ne!(extension.image.read("volume").trim(), folder);
    docker.on_its_host(&["cat", &format!("{folder}/written")]).ok().says("hook");
    assert!(!fs::exists(format!("{folder}/written")).unwrap());
}

/// A container that could see the attached rootfs could write the next hook. This one has the programs of the
/// host.
fn observer() {
    const LOOK: &str = "cd /host/run/balena-extension-runtime-rootfs 2>/dev/null || exit 0
        for place in */; do
            echo $place
            ls -d $place/rootfs/hooks $place/*/hooks 2>/dev/null
            echo '#!/bin/sh' > $place/rootfs/hooks/start
        done 2>/dev/null
        exit 0";
    let docker = Docker::start_among(Mounts::Slave, &[]);
    let hook = "readlink -f $EXTENSION_ROOTFS > $NOTES/rootfs; while [ ! -e $NOTES/go ]; do sleep 0.1; done";
    let extension = Deployment::of(Image::extension().hook("start", hook), &docker);
    let other = Image::unlabelled();
    for name in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), other.rootfs().join(name)).unwrap();
    }
    docker.import(&other);
    let mut words = vec!["run", "--detach", "--name=observer", "--network=none", "--pid=host"];
    words.extend([
        "--volume=/usr:/usr:ro",
        "--volume=/:/host:ro,rslave",
        &other.name,
        "sleep",
        "300",
    ]);
    docker.docker(&words).ok();
    let mut running = extension.begin_run(&[]);
    let rootfs = extension.await_note(&mut running, "rootfs");
    let rootfs = rootfs.trim();
    assert!(rootfs.starts_with(ATTACHED), "{rootfs}");
    let content = fs::read_to_string(format!("{rootfs}/hooks/start"));
    let seen = docker.docker(&["exec", "observer", "sh", "-c", LOOK]).ok();
    let there = docker.docker(&["exec", "observer", "ls", &format!("/host{rootfs}/hooks")]);
    let unchanged = fs::read_to_string(format!("{rootfs}/hooks/start"));
    touch(&extension.image.note("go"));
    running.finish_within(LIMIT).ok();
    docker.docker(&["rm", "--force", "observer"]).ok();
    docker.remove_image(&other);
    assert!(content.unwrap().contains("readlink"), "the host has it");
    assert!(unchanged.unwrap().contains("readlink"));
    assert!(!seen.out.contains("hooks"), "{seen}");
    assert!(!there.succeeded(), "{there}");
    extension.assert_deployed();
    // The copy of its mount point was removed with it.
    wait_for_within(GONE, "the end of the mount point", || {
        (fs::read_dir(ATTACHED).map_or(0, Iterator::count) == 0).then_some(())
    });
    extension.remove();
}

/// The manager may have its own mounts too, for example in a unit with `PrivateTmp=`.
fn deactivate() {
    let docker = Docker::start_among(Mounts::Slave, &[]);
    let extension = Deployment::of(labelled(KERNEL, "1.2.3"), &docker);
    let image = &extension.image;
    extension.run(&["--volume", "data:/data"]).ok();
    extension.assert_deployed();
    let volume = docker.inspect(&extension.name, "{{(index .Mounts 0).Source}}");
    let target = image.note("start").display().to_string();
    let script = format!(
        "#!/bin/sh\nmkdir -p {target}\nmount -t tmpfs of-a-hook-{}-start {target} || exit 1\n\
         [ $EXTENSION_ROOTFS/deactivate -ef $0 ] || exit 2\n",
        image.name
    );
    let program = format!("{volume}/deactivate");
    fs::write(&program, script).unwrap();
    run(Command::new("chmod").args(["0755", &program])).ok();
    let socket = format!("unix://{}", docker.socket().display());
    let words = ["--mount", "--propagation=slave", MANAGER];
    let mut manager = Command::new("unshare");
    manager.args(words).args(["--host", &socket, "cleanup", "--stale-os"]);
    let cleaned = run(&mut manager).ok();
    let reached = mounted(image, "start");
    unmount(image);
    assert_eq!(reached, 1, "{cleaned}");
    assert!(docker.id(&extension.name).is_empty(), "{cleaned}");
}
