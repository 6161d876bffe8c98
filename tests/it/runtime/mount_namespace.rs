//! Hooks of an image run in the mount namespace of process 1, even if the engine has its own: contract, §7.
//! Each test has its own machine: a process 1 with its mounts, an engine in another mount namespace, and a
//! container with a slave view of the host, as with `docker run -v /:/host:ro,rslave`.

use std::path::Path;
use std::process::Command;

use nix::libc;
use seccompiler::SeccompAction;
use serde_json::json;

use crate::container::Container;
use crate::finished::Finished;
use crate::process::{self, Started};
use crate::seccomp_filter::with_filter;

const FOLDER: &str = "/run/balena-extension-runtime-rootfs";
/// The script of process 1. It ignores its arguments, which contain the name of the test's directory.
const PROCESS_1: &str = r#"
    mount -t tmpfs run /run && mount --make-rshared / || exit
    unshare --mount --propagation "$1" sleep 600 &
    unshare --mount --propagation slave sleep 601 &
    wait"#;

pub(crate) struct Machine {
    pub(crate) host: i32,
    pub(crate) engine: i32,
    container: i32,
    _process: Started,
}

impl Machine {
    /// A machine whose engine has its own mount namespace with this propagation.
    pub(crate) fn new(propagation: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["--propagation", "private", "sh", "-c", PROCESS_1, "sh", propagation]);
        let process = process::start(command.stdin(std::process::Stdio::null()));
        let find = |parent: i32, words: &'static str| {
            process::wait_for(words, || {
                let found = |pid: &i32| command_line(*pid).starts_with(words);
                process::children_of(parent).into_iter().find(found)
            })
        };
        let host = find(process.pid(), "sh -c");
        let (engine, container) = (find(host, "sleep 600"), find(host, "sleep 601"));
        Self { host, engine, container, _process: process }
    }

    /// `command` in the namespaces of the process `pid`.
    pub(crate) fn command(&self, pid: i32, command: &Command) -> Command {
        let mut entering = Command::new("nsenter");
        entering.args(["--mount", "--pid", "--target", &pid.to_string(), "--"]);
        entering.arg(command.get_program()).args(command.get_args());
        entering
    }

    /// Runs a shell script there.
    #[track_caller]
    pub(crate) fn shell(&self, pid: i32, script: &str) -> Finished {
        crate::capture::run(&mut self.command(pid, Command::new("sh").arg("-c").arg(script)))
    }

    #[track_caller]
    fn create(&self, container: &Container) -> Finished {
        container.create_by(&mut self.command(self.engine, &container.create_command()))
    }

    /// A verb, as the engine calls it.
    #[track_caller]
    fn call(&self, container: &Container, words: &[&str]) -> Finished {
        self.call_from(self.engine, container, words)
    }

    #[track_caller]
    fn call_from(&self, pid: i32, container: &Container, words: &[&str]) -> Finished {
        let command = container.command(&[words, &[&container.id]].concat());
        container.finish(&mut self.command(pid, &command))
    }

    fn mounts(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.host)).unwrap()
    }

    /// Fails the test unless nothing is left of a hook's mounts.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        for pid in [self.host, self.engine, self.container] {
            let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
            assert!(!mounts.contains(FOLDER), "{mounts}");
        }
        let left = self.shell(self.host, &format!("ls -A {FOLDER} 2>/dev/null"));
        assert_eq!(left.out, "");
    }
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// A container whose rootfs is only mounted for the engine, as with every storage driver.
fn mounted(machine: &Machine) -> Container {
    let container = Container::new();
    let rootfs = container.path("rootfs");
    let image = container.beside("image");
    std::fs::rename(&rootfs, &image).unwrap();
    std::fs::create_dir(&rootfs).unwrap();
    let script = format!("mount --bind {} {}", image.display(), rootfs.display());
    machine.shell(machine.engine, &script).ok();
    container
}

/// Writes a hook of the image.
fn hook(container: &Container, verb: &str, script: &str) {
    let path = container.beside("image/hooks").join(verb);
    crate::bundle::executable(&path, format!("#!/bin/sh\n{script}\n").as_bytes());
}

#[test]
fn a_hooks_mount_is_on_the_host_and_nothing_else_is_left() {
    for propagation in ["slave", "private", "shared"] {
        let machine = Machine::new(propagation);
        let container = mounted(&machine);
        let target = container.beside("target");
        std::fs::create_dir(&target).unwrap();
        hook(&container, "start", &format!("mount -t tmpfs ext {}", target.display()));
        hook(&container, "delete", &format!("umount {}", target.display()));
        let before = machine.mounts();
        machine.create(&container).ok();
        machine.call(&container, &["start"]).ok();
        let after = machine.mounts();
        let target = target.to_str().unwrap();
        let more: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
        assert!(more.len() == 1 && more[0].contains(target), "{propagation}: {more:?}");
        machine.is_clean();
        machine.call(&container, &["delete"]).silent();
        assert_eq!(machine.mounts(), before, "{propagation}");
    }
}

#[test]
fn the_rootfs_is_brought_along_and_the_bundle_is_the_working_directory() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    hook(
        &container,
        "create",
        "echo $0 $EXTENSION_ROOTFS > seen; pwd >> seen; cat $EXTENSION_ROOTFS/content >> seen",
    );
    std::fs::write(container.beside("image/content"), "of the image").unwrap();
    machine.create(&container).ok();
    let inode = {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(container.root().join(&container.id)).unwrap().ino()
    };
    let rootfs = format!("{FOLDER}/{}-{inode}/rootfs", container.id);
    let seen = format!("{rootfs}/hooks/create {rootfs}\n{}\nof the image", container.text());
    assert_eq!(container.read("seen"), seen);
    machine.call(&container, &["delete", "--force"]).ok();
    machine.is_clean();
}

#[test]
fn a_bundle_and_volumes_that_only_the_engine_has_are_brought_along_or_left() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    let (volume, file, both) =
        (container.beside("volume"), container.beside("file"), container.beside("both"));
    for folder in [&volume, &both] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(&file, "the host's").unwrap();
    std::fs::write(container.beside("engine's"), "the engine's").unwrap();
    let script = format!(
        r#"mount -t tmpfs v {} && mount --bind "{}" {}"#,
        volume.display(),
        container.beside("engine's").display(),
        file.display()
    );
    machine.shell(machine.engine, &script).ok();
    container.configure(|config| {
        config["mounts"] = json!([
            { "destination": "/volume", "source": volume },
            { "destination": "/file", "source": file },
            { "destination": "/both", "source": both },
            { "destination": "/missing", "source": "/none/at/all" },
            { "destination": "/proc", "type": "proc", "source": "proc" },
        ]);
    });
    let out = container.beside("seen");
    let script = format!(
        "exec > {}; pwd; cat $EXTENSION_VOLUME_FILE; echo; echo $EXTENSION_VOLUME_BOTH; \
         echo $EXTENSION_VOLUME_MISSING $EXTENSION_VOLUME_PROC; echo written > $EXTENSION_VOLUME_VOLUME/by-the-hook",
        out.display()
    );
    hook(&container, "create", &script);
    let (bundle, copy) = (container.path(""), container.beside("copy"));
    std::fs::create_dir(&copy).unwrap();
    let script = format!(
        "cp {0}config.json {1} && mkdir {1}/rootfs && mount --bind {1} {0} && mount --bind {2} {0}rootfs",
        bundle.display(),
        copy.display(),
        container.beside("image").display()
    );
    machine.shell(machine.engine, &script).ok();
    machine.create(&container).ok();
    let seen = std::fs::read_to_string(out).unwrap();
    let expected = format!("/\nthe engine's\n{}\n/none/at/all proc\n", both.display());
    assert_eq!(seen, expected);
    let script = format!("cat {}/by-the-hook", volume.display());
    assert_eq!(machine.shell(machine.engine, &script).out, "written\n");
    machine.call(&container, &["delete", "--force"]).ok();
    machine.is_clean();
}

#[test]
fn start_finds_a_rootfs_that_only_the_proxys_namespace_has() {
    let machine = Machine::new("private");
    let container = mounted(&machine);
    let seen = container.beside("seen");
    hook(&container, "start", &format!("echo $EXTENSION_ROOTFS > {}", seen.display()));
    machine.create(&container).ok();
    machine.call_from(machine.host, &container, &["start"]).silent();
    assert!(std::fs::read_to_string(seen).unwrap().starts_with(FOLDER));
    machine.is_clean();
    let deleted = machine.call_from(machine.host, &container, &["delete"]).ok();
    assert!(deleted.warnings().contains("hooks/delete is skipped"), "{deleted}");
}

/// Such a container could write the next hook that runs as root of the host.
#[test]
fn a_container_with_a_slave_view_of_the_host_never_sees_the_rootfs() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    let (begun, looked) = (container.beside("begun"), container.beside("looked"));
    let script = format!(
        "test -e $EXTENSION_ROOTFS/hooks/create && touch {}; while [ ! -e {} ]; do sleep 0.02; done",
        begun.display(),
        looked.display()
    );
    hook(&container, "create", &script);
    let mut command = machine.command(machine.engine, &container.create_command());
    let mut create = process::start(command.stdin(std::process::Stdio::null()));
    process::wait_for("the hook", || begun.exists().then_some(()));
    let view = machine.shell(
        machine.container,
        &format!(
            "cd {FOLDER}/* || exit; find .; rmdir rootfs; mv rootfs other; touch new; echo x > rootfs/x; true"
        ),
    );
    std::fs::write(looked, "").unwrap();
    assert_eq!(create.wait(), 0);
    assert_eq!(view.out, ".\n./rootfs\n", "{view}");
    assert_eq!(view.err.matches("Read-only").count(), 4, "{view}");
    machine.call(&container, &["delete", "--force"]).ok();
    machine.is_clean();
}

/// The system calls that a guard only makes for another namespace.
const CALLS: [(&str, libc::c_long); 8] = [
    ("open_tree", libc::SYS_open_tree),
    ("chroot", libc::SYS_chroot),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fspick", libc::SYS_fspick),
    ("move_mount", libc::SYS_move_mount),
    ("mount", libc::SYS_mount),
];

#[test]
fn a_system_call_that_is_refused_fails_the_verb_before_the_hook_begins() {
    let machine = Machine::new("slave");
    let before = machine.mounts();
    for (name, call) in CALLS {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let container = mounted(&machine);
            let ran = container.beside("ran");
            hook(&container, "create", &format!("touch {}", ran.display()));
            let what = SeccompAction::Errno(errno.unsigned_abs());
            let mut create = machine.command(machine.engine, &container.create_command());
            let created = with_filter(call, what, &mut create);
            created.fails(&["hook hooks/create was not run", name, "seccomp profile"]);
            assert!(!ran.exists(), "{name}");
            machine.is_clean();
        }
    }
    assert_eq!(machine.mounts(), before);
}

/// The kernel itself refuses it.
#[test]
fn a_missing_capability_and_an_unbindable_rootfs_are_named() {
    let machine = Machine::new("slave");
    for (without, texts) in [
        ("sys_ptrace", ["open /proc/1/ns/mnt", "CAP_SYS_PTRACE"]),
        ("sys_chroot", ["setns is refused (EPERM)", "CAP_SYS_ADMIN"]),
    ] {
        let container = mounted(&machine);
        hook(&container, "create", "touch ran");
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", &format!("-{without}"), "--"]);
        let create = container.create_command();
        command.arg(create.get_program()).args(create.get_args());
        let created = container.create_by(&mut machine.command(machine.engine, &command));
        created.fails(&texts);
        assert!(!container.has("ran"));
    }
    let container = mounted(&machine);
    hook(&container, "create", "touch ran");
    let rootfs = container.path("rootfs");
    machine.shell(machine.engine, &format!("mount --make-unbindable {}", rootfs.display())).ok();
    machine.create(&container).fails(&["open_tree is refused (EINVAL)", "unbindable"]);
    assert!(!container.has("ran"));
    machine.is_clean();
}

#[test]
fn a_guard_that_is_killed_at_any_call_leaves_nothing_after_the_next_command() {
    let machine = Machine::new("slave");
    let before = machine.mounts();
    for (name, call) in [&CALLS[..], &[("umount2", libc::SYS_umount2)]].concat() {
        let container = mounted(&machine);
        hook(&container, "start", "true");
        machine.create(&container).ok();
        let words = ["start", &container.id];
        let mut start = machine.command(machine.engine, &container.command(&words));
        let killed = with_filter(call, SeccompAction::KillProcess, &mut start);
        assert_ne!(killed.code(), 0, "{name}: {killed}");
        container.new_log_lines();
        machine.call(&container, &["delete", "--force"]).ok();
        machine.is_clean();
    }
    assert_eq!(machine.mounts(), before);
}

#[test]
fn a_guard_that_its_hook_kills_is_named_and_leaves_nothing() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    hook(&container, "create", "kill -9 $PPID; exec sleep 600.75");
    machine
        .create(&container)
        .fails(&["hooks/create was killed", "guard process was killed by signal 9"]);
    machine.is_clean();
    process::wait_for("the hook to be gone", || sleeping("600.75").is_none().then_some(()));
}

#[test]
fn a_hook_that_outlives_runtime_and_guard_is_ended_by_a_forced_delete() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    // The guard is stopped first, otherwise it would notice the end of the runtime and kill the hook.
    let script = "runtime=$(cut -d ' ' -f 4 /proc/$PPID/stat); kill -STOP $PPID; kill -9 $runtime; \
                  kill -9 $PPID; exec sleep 600.5";
    hook(&container, "start", script);
    machine.create(&container).ok();
    let killed = machine.call(&container, &["start"]);
    assert_eq!(killed.code(), 128 + 9, "{killed}");
    let hook = process::wait_for("the hook alone", || sleeping("600.5"));
    assert!(machine.mounts().contains(FOLDER), "nobody could take it away");
    let deleted = machine.call(&container, &["delete", "--force"]).ok();
    assert!(deleted.warnings().contains("left its hook running"), "{deleted}");
    process::wait_for("the hook to be gone", || (!process::is_alive(hook)).then_some(()));
    machine.is_clean();
}

/// The process that sleeps for this time.
fn sleeping(seconds: &str) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|&pid: &i32| command_line(pid).trim() == format!("sleep {seconds}"))
}

#[test]
fn the_hook_runs_and_log_and_record_warn_when_the_namespace_cannot_be_determined() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    let seen = container.beside("seen");
    hook(&container, "start", &format!("echo $EXTENSION_ROOTFS > {}", seen.display()));
    machine.shell(machine.engine, "mount -t tmpfs hidden /proc/1").ok();
    machine.create(&container).ok();
    let started = machine.call(&container, &["start"]).ok();
    assert!(started.warnings().contains("mount namespace of process 1"), "{started}");
    let rootfs = container.path("rootfs");
    assert_eq!(std::fs::read_to_string(seen).unwrap().trim(), rootfs.to_str().unwrap());
    let record = format!("cat /run/balena-extension-runtime-deploys/{}.json", container.id);
    let record = machine.shell(machine.engine, &record).json();
    let steps = record["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["hooks"][0]["mountNamespace"], "unknown", "{record}");
    machine.call(&container, &["delete"]).ok();
}

#[test]
fn a_hook_that_cannot_be_executed_is_explained_from_what_the_host_has() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    let shell = container.beside("shell");
    std::fs::create_dir(&shell).unwrap();
    let script = format!("mount -t tmpfs s {0} && cp /bin/sh {0}/sh", shell.display());
    machine.shell(machine.engine, &script).ok();
    let path = container.beside("image/hooks/create");
    crate::bundle::executable(&path, format!("#!{}/sh\n", shell.display()).as_bytes());
    let interpreter = shell.join("sh");
    machine.create(&container).fails(&[
        "its interpreter",
        interpreter.to_str().unwrap(),
        "not on this host",
    ]);
    machine.is_clean();
}

#[test]
fn hooks_of_the_spec_run_in_the_engines_namespace() {
    let machine = Machine::new("slave");
    let container = mounted(&machine);
    container.spec_hook("createRuntime", "readlink /proc/self/ns/mnt > seen", |_| {});
    machine.create(&container).ok();
    let engine = std::fs::read_link(format!("/proc/{}/ns/mnt", machine.engine)).unwrap();
    assert_eq!(Path::new(&container.read("seen")), engine);
    machine.call(&container, &["delete", "--force"]).ok();
}
