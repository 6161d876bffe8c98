//! `--host-root`: no command touches a file of this machine that is not below it, wherever the links of the copy lead.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::host::version;
use super::override_device::{Device, X};
use super::plan::device::deploy;
use super::recorded_engine::{Answer, Engine};
use super::recorded_store::{Container, KERNEL, Store, labels};
use crate::capture::run;
use crate::finished::Finished;
use crate::programs;

/// The ABI of the kernel "a".
const ABI: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
const VOLUME: &str = "ext_service_0123456789ab_boot";
/// What a static program needs of the machine that runs it: what its own process is, and nothing.
const OWN: [&str; 2] = ["/proc/self", "/dev/null"];

/// The guard of a program that is run, such as the health check, looks for its descendants.
fn is_process(path: &str) -> bool {
    let numbers = path.strip_prefix("/proc/").and_then(|rest| rest.strip_suffix("/stat"));
    path == "/proc" || numbers.is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The files outside `root` that the calls of a trace name. A path that is not absolute counts unless it is relative to
/// an open directory.
fn outside<'a>(trace: &'a str, root: &Path) -> Vec<&'a str> {
    let top = root.to_str().unwrap().trim_end_matches('/');
    let is_below = |top: &str, path: &str| {
        path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_inside = |path: &str| {
        is_below(top, path) || OWN.iter().any(|own| is_below(own, path)) || is_process(path)
    };
    let touches = |line: &&str| {
        let Some((call, arguments)) = line.split_once('(') else { return false };
        // Programs run in the root directory; `simulate` compares it with the one that it is given; and of the path to
        // that one, each part may be a link.
        let of_root =
            ["chdir(\"/\")", "open(\"/\", O_RDONLY|O_LARGEFILE|O_CLOEXEC|O_PATH|O_DIRECTORY)"];
        let way = root.ancestors().filter_map(Path::to_str);
        if of_root.iter().any(|call| line.contains(call))
            || way.skip(1).any(|part| line.contains(&format!("readlink(\"{part}\"")))
        {
            return false;
        }
        // The program itself, by the test.
        if call.ends_with("execve") && arguments.starts_with(&format!("{:?}", programs::manager()))
        {
            return false;
        }
        let mut before = "";
        let mut parts = arguments.split('"');
        if call.contains("symlink") {
            // Where the new link leads.
            parts.by_ref().take(2).for_each(drop);
        }
        while let (Some(between), Some(path)) = (parts.next(), parts.next()) {
            before = if before.is_empty() && between.is_empty() { "AT_FDCWD, " } else { between };
            let by_itself = before.ends_with("AT_FDCWD, ") || path.starts_with('/');
            let in_root = arguments.contains("RESOLVE_IN_ROOT") && !before.ends_with("AT_FDCWD, ");
            if by_itself && !in_root && !path.is_empty() && !is_inside(path) {
                return true;
            }
            // The rest are the arguments of a new program, or where a link leads.
            if call.ends_with("execve") || call.contains("readlink") {
                break;
            }
        }
        false
    };
    trace.lines().filter(touches).collect()
}

#[test]
fn a_file_outside_is_found_in_a_trace() {
    for (line, expected) in [
        (r#"openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 3"#, true),
        (r#"12 openat(AT_FDCWD, "/rootx/a", O_RDONLY) = 3"#, true),
        (r#"openat(AT_FDCWD, "a", O_RDONLY) = 3"#, true),
        (r#"open("a", O_RDONLY) = 3"#, true),
        (r#"openat(3, "/etc/passwd", O_RDONLY) = 4"#, true),
        (r#"connect(3, {sa_family=AF_UNIX, sun_path="/run/x.sock"}, 110) = 0"#, true),
        (r#"execve("/bin/sh", ["sh", "/x"], 0x7 /* 0 vars */) = 0"#, true),
        (r#"renameat(3, "a", AT_FDCWD, "/b") = 0"#, true),
        (r#"openat(AT_FDCWD, "/root", O_PATH) = 3"#, false),
        (r#"openat(AT_FDCWD, "/root/etc/x", O_PATH) = 3"#, false),
        (r#"openat(3, "a", O_RDONLY) = 4"#, false),
        (r#"openat2(3, "/etc/x", {flags=O_RDONLY, resolve=RESOLVE_IN_ROOT}, 24) = 4"#, false),
        (r#"readlink("/proc/self/fd/3", "/root/x", 4096) = 7"#, false),
        (r#"symlinkat("../x", 3, "/a") = 0"#, true),
        (r#"readlink("/etc", 0x1, 1023) = -1 EINVAL"#, true),
        (r#"symlinkat("../x", 3, "a") = 0"#, false),
        (r#"readlinkat(3, "", "/etc/x", 4096) = 6"#, false),
        (r#"newfstatat(3, "", {st_mode=S_IFREG}, AT_EMPTY_PATH) = 0"#, false),
        ("+++ exited with 0 +++", false),
    ] {
        assert_eq!(!outside(line, Path::new("/root/")).is_empty(), expected, "{line}");
    }
}

/// A copy of a device, most of whose directories are links that lead elsewhere outside the copy.
struct Copy {
    /// Dropped first: it ends by its socket in the copy.
    engine: Option<Engine>,
    device: Device,
}

impl Copy {
    fn new(lines: &str) -> Self {
        let device = Device::new(lines);
        let host = &device.0;
        host.write("rootfs/boot/vmlinuz", "a");
        host.write("rootfs/lib/modules/6.1.0/Module.symvers", "");
        host.write(&format!("mnt/data/docker/volumes/{VOLUME}/_data/vmlinuz"), "a");
        std::fs::create_dir_all(host.path("mnt/data/docker/volumes/new/_data")).unwrap();
        std::fs::create_dir_all(host.path("var/lib")).unwrap();
        device.link("/mnt/data/docker", "var/lib/docker");
        device.publish(X);
        host.deployed("a", &["hooks/start"]);
        // Static programs, so that they touch nothing themselves.
        for program in ["usr/bin/rollback-tests", "mnt/data/docker/volumes/old/_data/deactivate"] {
            std::fs::create_dir_all(host.path(program).parent().unwrap()).unwrap();
            let _old = std::fs::remove_file(host.path(program));
            std::fs::copy(programs::runtime(), host.path(program)).unwrap();
        }
        for directory in ["mnt/state", "run"] {
            let moved = format!("of-the-copy-{}", directory.replace('/', "-"));
            std::fs::rename(host.path(directory), host.path(&moved)).unwrap();
            device.link(&format!("/{moved}"), directory);
        }
        device.link("/run", "var/run");
        let old = ("old".to_owned(), "/var/lib/docker/volumes/old/_data".to_owned());
        let stale = Container {
            labels: labels(&[(KERNEL, "5.10.0")]),
            volumes: vec![old],
            ..Container::new("stale")
        };
        let store = Store::of(&[Container::new("a"), stale]);
        let engine = host.engine_but(&store, |method, path| match (method, path) {
            ("POST", "/volumes/create") => {
                let mountpoint = "/var/lib/docker/volumes/new/_data";
                Some(Answer::Json(201, json!({ "Mountpoint": mountpoint })))
            }
            ("GET", "/info") => {
                Some(Answer::Json(200, json!({ "DockerRootDir": "/var/lib/docker" })))
            }
            _ => None,
        });
        Self { engine: Some(engine), device }
    }

    fn root(&self) -> PathBuf {
        self.device.path("")
    }

    /// Runs a command, and fails if it touches anything outside.
    #[track_caller]
    fn traced(&self, words: &[&str]) -> Finished {
        self.traced_but(words, "")
    }

    /// The same, apart from what is below `also`.
    #[track_caller]
    fn traced_but(&self, words: &[&str], also: &str) -> Finished {
        let trace = self.device.path("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-s", "4096", "-e", "trace=%file,connect", "-o"]).arg(&trace);
        let call = self.device.0.command(words);
        strace.arg(call.get_program()).args(call.get_args()).env_remove("DOCKER_HOST");
        let finished = run(&mut strace);
        let trace = std::fs::read_to_string(&trace).unwrap();
        let mut seen = outside(&trace, &self.root());
        seen.retain(|line| also.is_empty() || !line.contains(&format!("\"{also}/")));
        assert!(seen.is_empty(), "{words:?}: {seen:#?}\n{finished}");
        assert!(trace.contains("execve("), "{words:?}: {finished}");
        finished
    }
}

const ARMED: &str =
    "kernel_override_abi=1111111111111111111111111111111111111111111111111111111111111111\n";

#[test]
fn no_command_about_extensions_touches_a_file_outside() {
    let copy = Copy::new("");
    for words in [&["list"][..], &["status"], &["inspect", "a"], &["logs", "a"]] {
        copy.traced(words).ok();
    }
    copy.traced(&["doctor"]);
    copy.traced(&["cleanup"]).ok();
    copy.traced(&["cleanup", "--stale-os", "--dry-run"]).ok();
    // A hook runs in the mount namespace of process 1.
    let finished = copy.traced_but(&["cleanup", "--stale-os"], "/proc/1");
    assert!(finished.text().contains("hook deactivate exited with status"), "{finished}");
    let image = copy.device.path("rootfs");
    copy.traced(&["check", image.to_str().unwrap()]);
    // It would run a command on this machine.
    copy.traced(&["try", image.to_str().unwrap()]).fails_with(125).says("--host-root");
}

#[test]
fn no_command_about_kernels_touches_a_file_outside() {
    let copy = Copy::new("");
    let (rootfs, label) =
        (copy.device.path("rootfs"), format!("io.balena.image.kernel-abi-id={ABI}"));
    let version = version();
    for (verb, volume) in [("fabricate", "ext_new_0123456789ab_boot"), ("activate", VOLUME)] {
        let rootfs = rootfs.to_str().unwrap();
        copy.traced(&[
            "kernel",
            verb,
            "--container",
            "c",
            "--caller",
            &version,
            "--rootfs",
            rootfs,
            "--volume",
            volume,
            "--label",
            &label,
        ]);
    }
    assert!(copy.device.block().contains(ABI), "{}", copy.device.block());
    for words in [&["override", "status"][..], &["history"], &["override", "forget", ABI]] {
        copy.traced(words).ok();
    }
    for words in [&["hup", "commit"][..], &["hup", "reject"]] {
        let copy = Copy::new(ARMED);
        copy.device.boot(Some(X));
        copy.traced(words).ok();
        assert_ne!(copy.device.block(), ARMED);
    }
    let copy = Copy::new(ARMED);
    copy.device.boot(Some(X));
    let finished =
        copy.traced(&["validate", "--settle", "0", "--retry", "0", "--attempts", "1"]).ok();
    assert!(finished.err.contains("rejected the kernel"), "{finished}");
    copy.traced(&["override", "retry", X]).ok();
    let finished =
        copy.traced(&["simulate", "deploy=k", "boot", "healthy", "cut=1", "healthy"]).ok();
    assert!(finished.out.contains("committed the kernel"), "{finished}");
}

#[test]
fn a_plan_touches_no_file_outside() {
    let mut copy = Copy::new(&format!("kernel_override_abi={ABI}\n"));
    let host = &copy.device.0;
    host.write(&format!("mnt/data/boot-by-abi/{ABI}"), "a");
    let modules = ["lib/modules/6.6.20/Module.symvers", "lib/modules/6.6.20/x.ko", "boot/vmlinuz"];
    let kernel = [(modules[0], "s"), (modules[1], "ko"), (modules[2], "a")];
    deploy(host, 'a', &[("kernel-abi-id", ABI)], &[&kernel]);
    deploy(host, 'b', &[("override", "1")], &[&[("etc/os-release", "b")], &[("etc/new", "b")]]);
    for link in ["etc/new", "lib/links"] {
        // A link of an image leads into the image.
        let link = host.path(&format!("mnt/data/docker/overlay2/b0/diff/{link}"));
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
    }
    let next = host.path("next");
    host.write("next/etc/os-release", "VERSION_ID=6.0.0\n");
    host.write("next/lib/modules/6.1.0/x.ko", "");
    let (os_root, layered) = (next.to_str().unwrap(), "the override ca978112ca1b");
    for down in [false, true] {
        if down {
            drop(copy.engine.take());
        }
        for words in [
            &["plan", "--files"][..],
            &["plan", "--os-root", os_root],
            &["plan", "--os-version", "6.0.0"],
        ] {
            // The directory is one of this machine, whose mounts show whether it is an overlay.
            let also = if words.contains(&"--os-root") { "/proc" } else { "" };
            let finished = copy.traced_but(words, also);
            let is_planned = finished.out.contains(" above OS ") && finished.out.contains(" OS ");
            assert!(is_planned, "{finished}");
            let is_stated = words.contains(&"--os-version");
            assert_eq!(finished.out.contains(layered), !is_stated, "{finished}");
        }
    }
}

#[test]
fn without_an_engine_the_store_of_the_copy_is_read() {
    let mut copy = Copy::new("");
    drop(copy.engine.take());
    for words in [&["list"][..], &["status"], &["inspect", "x"]] {
        copy.traced(words).ok();
    }
}
