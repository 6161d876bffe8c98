//! `kernel fabricate`: a volume is made through the engine, and filled with the image's `/boot`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::host::{Host, version};
use super::recorded_engine::{Answer, Engine};
use crate::capture;
use crate::finished::Finished;
use crate::process;

const VOLUME: &str = "ext_service_0123456789ab_boot";

/// A host with an engine whose data root is `/var/lib/docker`, and an image with a kernel.
struct Machine {
    host: Host,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { host: Host::new(), bodies: Arc::default() };
        std::fs::create_dir_all(machine.volume()).unwrap();
        machine.host.write("rootfs/boot/vmlinuz", "kernel");
        machine
    }

    fn volume(&self) -> PathBuf {
        self.host.path(&format!("var/lib/docker/volumes/{VOLUME}/_data"))
    }

    fn has(&self, name: &str) -> bool {
        self.volume().join(name).symlink_metadata().is_ok()
    }

    /// An engine that says that the volume is at `mountpoint`.
    fn engine_at(&self, mountpoint: &str) -> Engine {
        let mountpoint = mountpoint.to_owned();
        self.engine_that(move || Answer::Json(201, json!({ "Mountpoint": mountpoint })))
    }

    fn engine_that(&self, make: impl Fn() -> Answer + Send + Sync + 'static) -> Engine {
        let bodies = Arc::clone(&self.bodies);
        Engine::with_bodies(&self.host.socket(), move |method, path, body| match (method, path) {
            ("GET", "/_ping") => Answer::Ping("1.41"),
            ("POST", "/volumes/create") => {
                bodies.lock().unwrap().push(body.to_owned());
                make()
            }
            _ => Answer::Json(404, json!({ "message": "page not found" })),
        })
    }

    fn engine(&self) -> Engine {
        self.engine_at(&format!("/var/lib/docker/volumes/{VOLUME}/_data"))
    }

    fn command(&self, more: &[&str]) -> Command {
        let rootfs = self.host.path("rootfs");
        let mut words = vec!["kernel", "fabricate", "--container", "c", "--volume", VOLUME];
        words.extend(["--rootfs", rootfs.to_str().unwrap()]);
        words.extend(more);
        let mut command = self.host.command(&words);
        if !more.contains(&"--caller") {
            command.args(["--caller", &version()]);
        }
        command
    }

    fn call(&self, more: &[&str]) -> Finished {
        capture::run(&mut self.command(more))
    }

    /// Runs a script whose arguments are the call, and whose `$0` is the volume, with a tmpfs there.
    fn call_on_tmpfs(&self, options: &str, script: &str) -> Finished {
        let script = format!("mount -t tmpfs -o {options} x \"$0\" && {script}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let call = self.command(&[]);
        command.arg(self.volume()).arg(call.get_program()).args(call.get_args());
        capture::run(&mut command)
    }

    fn fabricate(&self) -> Finished {
        let _engine = self.engine();
        self.call(&[])
    }
}

#[test]
fn the_volume_gets_the_labels_of_the_image_and_the_content_of_boot() {
    let machine = Machine::new();
    let engine = machine.engine();
    let labels = ["io.balena.image.class=overlay", "io.balena.image.x=a=b", "io.balena.service=s"];
    let words: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    machine.call(&words).silent();
    assert_eq!(std::fs::read_to_string(machine.volume().join("vmlinuz")).unwrap(), "kernel");
    assert!(!machine.has(".fabricating"));
    let body: serde_json::Value =
        serde_json::from_str(&machine.bodies.lock().unwrap().remove(0)).unwrap();
    let labels = json!({ "io.balena.image.class": "overlay", "io.balena.image.x": "a=b" });
    assert_eq!(body, json!({ "Name": VOLUME, "Labels": labels }));
    assert_eq!(engine.requests(), ["GET /_ping", "POST /v1.41/volumes/create"]);
}

#[test]
fn a_volume_that_was_filled_before_is_kept_and_a_half_filled_one_is_filled_again() {
    let machine = Machine::new();
    machine.fabricate().silent();
    machine.host.write("rootfs/boot/vmlinuz", "another");
    machine.fabricate().silent();
    assert_eq!(std::fs::read_to_string(machine.volume().join("vmlinuz")).unwrap(), "kernel");
    std::fs::write(machine.volume().join(".fabricating"), "").unwrap();
    machine.fabricate().silent();
    assert_eq!(std::fs::read_to_string(machine.volume().join("vmlinuz")).unwrap(), "another");
}

#[test]
fn special_files_are_left_out_with_a_warning() {
    let machine = Machine::new();
    let fifo = machine.host.path("rootfs/boot/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    symlink("vmlinuz", machine.host.path("rootfs/boot/link")).unwrap();
    let finished = machine.fabricate().ok();
    assert!(finished.err.contains(r#"fifo\" in /boot of the image"#), "{finished}");
    assert!(machine.has("link") && !machine.has("fifo"));
}

#[test]
fn ten_thousand_files_are_copied() {
    let machine = Machine::new();
    for number in 0..10_000 {
        std::fs::write(machine.host.path(&format!("rootfs/boot/{number}")), "x").unwrap();
    }
    let _engine = machine.engine();
    // In memory: on a disk, each file takes milliseconds to be durable.
    let count = "\"$@\" && test \"$(ls \"$0\" | wc -l)\" = 10001";
    machine.call_on_tmpfs("mode=755", count).silent();
}

#[test]
fn an_image_that_cannot_be_copied_is_named_with_the_reason() {
    let machine = Machine::new();
    std::fs::write(machine.host.path("rootfs/boot/.fabricating"), "").unwrap();
    machine.fabricate().fails(&["/boot/.fabricating"]);
    assert!(!machine.has("vmlinuz") && !machine.has(".fabricating"));
    std::fs::remove_dir_all(machine.host.path("rootfs/boot")).unwrap();
    machine.fabricate().silent();
    std::fs::write(machine.host.path("rootfs/boot"), "").unwrap();
    machine.fabricate().fails(&["cannot open /boot", "names a file"]);
    std::fs::remove_file(machine.host.path("rootfs/boot")).unwrap();
    symlink("/nowhere", machine.host.path("rootfs/boot")).unwrap();
    machine.fabricate().fails(&["cannot open /boot", "dangling"]);
}

#[test]
fn a_copy_that_does_not_fit_is_refused_with_the_figures_before_anything_is_written() {
    let machine = Machine::new();
    let kernel = std::fs::File::create(machine.host.path("rootfs/boot/vmlinuz")).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 2 << 20), &mut &kernel).unwrap();
    let _engine = machine.engine();
    let finished = machine.call_on_tmpfs("size=2m", "exec \"$@\"");
    finished.fails(&["has 2097152 bytes left", "needs 31"]);
    assert!(!machine.has(".fabricating"));
}

#[test]
fn the_volume_of_another_engine_is_not_filled() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.host.path("other")).unwrap();
    for (mountpoint, expected) in [("/other", "another engine"), ("/nowhere", "another engine")] {
        let _engine = machine.engine_at(mountpoint);
        machine.call(&[]).fails(&[expected, VOLUME, mountpoint, "/var/lib/docker"]);
    }
    std::fs::remove_dir(machine.volume()).unwrap();
    machine.fabricate().fails(&["cannot be opened", VOLUME, "missing"]);
}

#[test]
fn an_engine_that_has_no_volumes_for_kernels_is_named() {
    let machine = Machine::new();
    machine.call(&[]).fails(&["needs a volume of Docker or balenaEngine", "cannot be reached"]);
    let socket = machine.host.socket();
    {
        let _podman = Engine::start(&socket, |_, _| Answer::PodmanPing("1.41"));
        machine.call(&[]).fails(&["is Podman", "needs a volume of Docker or balenaEngine"]);
    }
    {
        let refuse = || Answer::Json(500, json!({ "message": "disk on fire" }));
        let _engine = machine.engine_that(refuse);
        machine.call(&[]).fails(&["make the volume", "status 500", "disk on fire"]);
    }
    let _engine = machine.engine_that(|| Answer::Json(201, json!({})));
    machine.call(&[]).fails(&["does not follow its API"]);
    assert!(!machine.has("vmlinuz"));
}

#[test]
fn an_engine_that_hangs_is_not_waited_for_without_end() {
    let machine = Machine::new();
    let _engine = machine.engine_that(|| Answer::Hang);
    machine.call(&["--request-timeout", "0.2"]).fails(&["no answer from the engine", "0.2 s"]);
}

#[test]
fn only_a_runtime_of_the_same_version_is_served() {
    let machine = Machine::new();
    let _engine = machine.engine();
    let finished = machine.call(&["--caller", "0.0.1"]);
    finished.fails(&["balena-extension-runtime 0.0.1", "both", &version()]);
    assert!(!machine.has("vmlinuz"));
}

#[test]
fn the_data_root_is_the_one_that_the_runtime_sees() {
    let machine = Machine::new();
    let _engine = machine.engine();
    let root = machine.host.path("var/lib/docker");
    let stat = rustix::fs::stat(&root).unwrap();
    machine.call(&["--docker-root-is", "0:1"]).fails(&["is another directory", "process 1"]);
    assert!(!machine.has("vmlinuz"));
    let identity = format!("{}:{}", stat.st_dev, stat.st_ino);
    machine.call(&["--docker-root-is", &identity]).silent();
}

#[test]
fn a_cleanup_under_way_is_waited_for() {
    let machine = Machine::new();
    let _engine = machine.engine();
    let path = machine.host.path("run/balena-extension-manager.lock");
    let lock = std::fs::File::create(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    lock.lock().unwrap();
    let finished = machine.call(&["--timeout", "0.3"]);
    finished.fails(&["another balena-extension-manager"]);
    assert!(!machine.has("vmlinuz"));
    drop(lock);
    machine.call(&["--timeout", "5"]).silent();
}

#[test]
fn a_signal_ends_it_and_the_next_call_fills_the_volume() {
    let machine = Machine::new();
    let _engine = machine.engine_that(|| Answer::Hang);
    let mut started = process::start(&mut machine.command(&[]));
    process::wait_for("the request", || (!machine.bodies.lock().unwrap().is_empty()).then_some(()));
    process::signal(started.pid(), rustix::process::Signal::TERM);
    assert_ne!(started.wait(), 0);
    drop(_engine);
    machine.fabricate().silent();
    assert!(machine.has("vmlinuz"));
}

/// There are no inodes left, which the check for room does not see.
#[test]
fn a_disk_that_becomes_full_leaves_the_marker_and_the_next_call_fills_the_volume() {
    let machine = Machine::new();
    machine.host.write("rootfs/boot/z", "last");
    let _engine = machine.engine();
    let script = "! \"$@\" && test -e \"$0\"/.fabricating && ! test -e \"$0\"/z &&
        mount -o remount,nr_inodes=100 x \"$0\" && \"$@\" && ! test -e \"$0\"/.fabricating &&
        test \"$(cat \"$0\"/z)\" = last";
    // The directory, the marker and the first file.
    let finished = machine.call_on_tmpfs("mode=755,nr_inodes=3", script).ok();
    let expected = r#"cannot copy "z" from /boot of the image to the volume"#;
    assert!(finished.err.contains(expected), "{finished}");
    // Not even the marker.
    let script = "! \"$@\" && test -z \"$(ls -A \"$0\")\"";
    let finished = machine.call_on_tmpfs("mode=755,nr_inodes=1", script).ok();
    assert!(finished.err.contains("cannot write the marker .fabricating"), "{finished}");
}

/// Nobody reads from it, so a program that opens it to write waits.
#[test]
fn a_fifo_in_the_place_of_the_marker_is_an_error_and_no_wait() {
    let machine = Machine::new();
    let marker = machine.volume().join(".fabricating");
    nix::unistd::mkfifo(&marker, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _engine = machine.engine();
    let finished = machine.call(&["--timeout", "5"]).fails_with(1);
    finished.fails(&["cannot write the marker .fabricating"]);
}

#[test]
fn of_calls_that_meet_one_fills_the_volume() {
    let machine = Machine::new();
    for number in 0..100 {
        std::fs::write(machine.host.path(&format!("rootfs/boot/{number}")), "x").unwrap();
    }
    let engine = machine.engine();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| machine.call(&[]).silent());
        }
    });
    assert_eq!(std::fs::read_dir(machine.volume()).unwrap().count(), 101);
    assert!(!machine.has(".fabricating"));
    assert_eq!(engine.requests().len(), 20);
}

/// Kills it at one system call after the other, each time with an empty volume, and fills that then.
#[test]
fn a_call_that_is_killed_at_any_step_is_completed_by_the_next() {
    let machine = Machine::new();
    machine.host.write("rootfs/boot/a/b", "deep");
    symlink("vmlinuz", machine.host.path("rootfs/boot/link")).unwrap();
    let _engine = machine.engine();
    let mut killed = 0;
    for call in ["openat", "fsync", "mkdirat", "symlinkat", "fchmod", "copy_file_range", "unlinkat"]
    {
        for count in 1.. {
            let left = || std::fs::read_dir(machine.volume()).unwrap();
            left().for_each(|entry| remove(&entry.unwrap().path()));
            let (command, inject) =
                (machine.command(&[]), format!("inject={call}:signal=KILL:when={count}"));
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]).arg(command.get_program());
            let finished = capture::run(strace.args(command.get_args()));
            if finished.succeeded() {
                break;
            }
            killed += 1;
            let is_half_filled = left().count() > 0;
            assert!(!is_half_filled || machine.has(".fabricating") || is_whole(&machine));
            machine.call(&[]).silent();
            assert!(is_whole(&machine), "{call} {count}");
        }
    }
    assert!(killed > 20, "{killed}");
}

fn is_whole(machine: &Machine) -> bool {
    let text = |name: &str| std::fs::read_to_string(machine.volume().join(name)).ok();
    text("vmlinuz").as_deref() == Some("kernel")
        && text("a/b").as_deref() == Some("deep")
        && machine.has("link")
        && !machine.has(".fabricating")
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir_all(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
}
