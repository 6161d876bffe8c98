//! The sandbox: a separate machine for one row, made of namespaces.
//!
//! Its root is an overlay over the row's root filesystem, with all changes in memory. It has its own processes,
//! mounts, network and cgroups. So nothing in it can harm the host, and when its process 1 ends, the kernel
//! ends everything else.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::SigSet;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::cgroups::{Cgroups, Hierarchy, Version};
use crate::engines_document::{self, Results};
use crate::interrupts::Interrupts;
use crate::programs;
use crate::rows::Row;

/// The stage of the program.
pub(crate) const STAGE: &str = "ENGINES_STAGE";
/// Process 1 of the sandbox.
pub(crate) const INIT: &str = "init";
/// The tests themselves.
pub(crate) const TESTS: &str = "tests";
/// The row under test.
pub(crate) const ROW: &str = "ENGINES_ROW";
const ROOT: &str = "ENGINES_ROOT";
const CGROUPS: &str = "ENGINES_CGROUPS";
const BINARIES: [&str; 2] = ["ENGINES_RUNTIME", "ENGINES_MANAGER"];
const RESULTS: &str = "ENGINES_RESULTS";

/// The places of both programs in the sandbox.
pub(crate) const RUNTIME: &str = "/run/under-test/balena-extension-runtime";
pub(crate) const MANAGER: &str = "/run/under-test/balena-extension-manager";
/// The directory for engines and images: in memory, with a path that is short enough for sockets.
pub(crate) const SCRATCH: &str = "/run/scratch";

/// The outcome of a row.
pub(crate) enum Outcome {
    /// With the results for docs/engines.md; `None` if no test ran.
    Passed(Option<Results>),
    Failed(String),
    Interrupted,
}

/// The outermost stage: runs the tests of `row` and removes what does not end with the namespaces.
pub(crate) fn run(row: &Row, interrupts: &Interrupts) -> Result<Outcome, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let results = tempfile::tempdir().map_err(|error| error.to_string())?;
    let cgroups = Cgroups::create();
    let enter = cgroups.shell_to_enter();
    let mut child = Command::new("sh")
        .arg("-ec")
        .arg(format!(
            "{enter} exec unshare --mount --net --pid --ipc --uts --cgroup \
             --fork --kill-child -- \"$0\" \"$@\""
        ))
        .arg(this)
        .args(std::env::args_os().skip(1))
        .envs([(STAGE, INIT), (ROW, row.name), (CGROUPS, row.cgroups.name())])
        .env(ROOT, &row.root)
        .envs(BINARIES.into_iter().zip([programs::runtime(), programs::manager()]))
        .env(RESULTS, results.path())
        // The lifeline: process 1 ends when it closes, also if this process is killed.
        .stdin(Stdio::piped())
        // Ctrl-C only reaches this process, which then ends the sandbox cleanly.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("sh: {error}"))?;
    let lifeline = child.stdin.take();
    interrupts.on_interrupt(move || drop(lifeline));
    let status = child.wait().map_err(|error| format!("waiting for the sandbox: {error}"))?;
    let left = cgroups.remove();
    Ok(if !left.is_empty() {
        Outcome::Failed(format!("left behind: {}", left.join(", ")))
    } else if interrupts.came() {
        Outcome::Interrupted
    } else if status.success() {
        let listed = !results.path().join("results").exists();
        Outcome::Passed(if listed {
            None
        } else {
            Some(engines_document::collect(row.name, results.path())?)
        })
    } else {
        Outcome::Failed(format!("the tests ended with {status}"))
    })
}

/// The middle stage: builds the machine, starts the tests, and reaps all orphans.
pub(crate) fn be_process_one() -> ExitCode {
    SigSet::all().thread_unblock().expect("sigprocmask");
    build_machine();
    std::thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        end_at_once();
    });
    #[expect(clippy::zombie_processes, reason = "the loop below reaps it, among all others")]
    let tests = Command::new("/run/under-test/engines")
        .args(std::env::args_os().skip(1))
        .env_clear()
        .envs([
            (STAGE, TESTS),
            (ROW, &std::env::var(ROW).unwrap()),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("TMPDIR", SCRATCH),
        ])
        // The extent of the tests, which the caller chooses.
        .envs(std::env::var_os("STRESS").map(|value| ("STRESS", value)))
        .stdin(Stdio::null())
        .spawn()
        .expect("start the tests");
    let tests = Some(Pid::from_raw(i32::try_from(tests.id()).unwrap()));
    loop {
        let status = nix::sys::wait::wait().expect("wait");
        if status.pid() != tests {
            continue;
        }
        if let WaitStatus::Exited(_, code) = status {
            return ExitCode::from(u8::try_from(code).unwrap_or(101));
        }
        eprintln!("the tests ended with {status:?}");
        return ExitCode::from(101);
    }
}

#[expect(clippy::exit, reason = "the kernel kills all others with process 1, which is the point")]
fn end_at_once() -> ! {
    std::process::exit(130)
}

fn build_machine() {
    let lower = std::env::var(ROOT).unwrap();
    let results = std::env::var(RESULTS).unwrap();
    let version = std::env::var(CGROUPS).unwrap();
    let version = Version::ALL.into_iter().find(|known| known.name() == version).unwrap();
    let hierarchies = version.hierarchies();
    let elsewhere = if lower == "/" { other_filesystems() } else { Vec::new() };
    // Read before the root changes, because they may not be reachable afterwards.
    let binaries = BINARIES
        .map(|name| fs::read(std::env::var(name).unwrap()).expect("read the program under test"));
    let this = fs::read("/proc/self/exe").expect("read this program");

    mount(&["-t", "tmpfs", "-o", "mode=755", "engines", "/mnt"]);
    for dir in ["upper", "work", "root"] {
        fs::create_dir(Path::new("/mnt").join(dir)).unwrap();
    }
    let overlay = format!("lowerdir={lower},upperdir=/mnt/upper,workdir=/mnt/work");
    mount(&["-t", "overlay", "-o", &overlay, "engines", "/mnt/root"]);
    for dir in &elsewhere {
        mount(&["--bind", "-o", "ro", dir, &format!("/mnt/root{dir}")]);
    }
    mount(&["-t", "proc", "proc", "/mnt/root/proc"]);
    mount(&["-t", "sysfs", "sysfs", "/mnt/root/sys"]);
    mount(&["--rbind", "/dev", "/mnt/root/dev"]);
    mount(&["-t", "tmpfs", "-o", "mode=755", "run", "/mnt/root/run"]);
    mount_cgroups(&hierarchies);
    let place = format!("/mnt/root{}", engines_document::RESULTS);
    fs::create_dir(&place).unwrap();
    mount(&["--bind", &results, &place]);

    fs::create_dir("/mnt/root/run/old").unwrap();
    rustix::process::pivot_root("/mnt/root", "/mnt/root/run/old").expect("pivot_root");
    std::env::set_current_dir("/").unwrap();
    command("umount", &["-l", "/run/old"]);
    fs::remove_dir("/run/old").unwrap();
    mount(&["-t", "tmpfs", "-o", "mode=1777", "shm", "/dev/shm"]);
    // As systemd does on a host: mounts propagate to slave copies of this namespace.
    mount(&["--make-rshared", "/"]);
    command("ip", &["link", "set", "lo", "up"]);

    fs::create_dir_all(SCRATCH).unwrap();
    fs::create_dir_all("/run/under-test").unwrap();
    for (place, binary) in [RUNTIME, MANAGER].iter().zip(&binaries) {
        install(place, binary);
    }
    install("/run/under-test/engines", &this);
}

/// The mount points of the host that an overlay over `/` does not show.
fn other_filesystems() -> Vec<String> {
    let hidden =
        ["/proc", "/sys", "/dev", "/run", "/mnt", "/var/lib/docker", "/var/lib/containers"];
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let is_hidden = |point: &str| hidden.iter().any(|dir| Path::new(point).starts_with(dir));
    points
        .filter(|point| *point != "/" && !is_hidden(point) && Path::new(point).is_dir())
        .map(str::to_owned)
        .collect()
}

/// Mounts the hierarchies that are mounted outside, with the sandbox's own cgroups as roots.
fn mount_cgroups(hierarchies: &[Hierarchy]) {
    if !hierarchies.iter().any(|hierarchy| hierarchy.mount_point == Path::new("/sys/fs/cgroup")) {
        mount(&["-t", "tmpfs", "-o", "mode=755", "cgroups", "/mnt/root/sys/fs/cgroup"]);
    }
    for Hierarchy { mount_point, kind, options } in hierarchies {
        let target = format!("/mnt/root{}", mount_point.display());
        fs::create_dir_all(&target).unwrap();
        let options = if options.is_empty() { "rw" } else { options };
        mount(&["-t", kind, "-o", options, "cgroup", &target]);
        if kind == "cgroup2" {
            // A cgroup that contains processes cannot enable controllers for its children.
            fs::create_dir(format!("{target}/init")).unwrap();
            fs::write(format!("{target}/init/cgroup.procs"), "0").unwrap();
        }
    }
}

fn install(path: &str, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn mount(arguments: &[&str]) {
    command("mount", arguments);
}

fn command(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {}: {status}", arguments.join(" "));
}
