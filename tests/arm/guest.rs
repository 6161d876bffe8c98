//! Process 1 of the emulated machine: mounts what a host has mounted, runs the parts, reports each, and powers off.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::parts::{BLACK_BOX, CANNOT_RUN, CHECKS, LARGE_NUMBERS, MARK, Part, VERDICT};
use crate::root::{MODULES, NEW_ROOT, PROGRAMS};
use crate::{clock, figures};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Does all that, and ends the machine.
pub(crate) fn be_process_one() -> ! {
    mount_everything();
    load_modules();
    println!("{MARK}the kernel is {}, up for {} s", read("/proc/sys/kernel/osrelease"), uptime());
    let parts = Part::wanted();
    for part in &parts {
        println!("{MARK}{} begins", part.name());
        let started = Instant::now();
        let result = run(*part);
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("{MARK}{}: passed in {seconds:.1} s", part.name()),
            Err(why) => println!("{MARK}{}: FAILED after {seconds:.1} s: {why}", part.name()),
        }
    }
    println!("{VERDICT} {}", parts.len());
    let _ = rustix::termios::tcdrain(rustix::stdio::stdout());
    let error = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    panic!("power off: {error:?}");
}

/// The stages that are processes of their own, so that their failure is not that of process 1.
pub(crate) fn run_stage(stage: &str) -> ExitCode {
    match stage {
        "in-guest-clock" => clock::check(),
        "in-guest-figures" => figures::measure(),
        figures::NOTHING => {}
        other => panic!("{other}: no such stage"),
    }
    ExitCode::SUCCESS
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn uptime() -> String {
    read("/proc/uptime").split(' ').next().unwrap_or_default().to_owned()
}

fn mount_everything() {
    let none = MountFlags::empty();
    let data = |text: &str| CString::new(text).unwrap();
    // The kernel's first root can be neither moved nor left. Mounted once more, it is like that of any host.
    rustix::mount::mount_bind("/", NEW_ROOT).expect("bind the root");
    rustix::process::chdir(NEW_ROOT).expect("chdir");
    rustix::mount::mount_move(".", "/").expect("move the root");
    rustix::process::chroot(".").expect("chroot");
    rustix::process::chdir("/").expect("chdir");
    let mount = |kind: &str, place: &str, options: &str| {
        fs::create_dir_all(place).unwrap_or_else(|error| panic!("{place}: {error}"));
        rustix::mount::mount(kind, place, kind, none, Some(data(options).as_c_str()))
            .unwrap_or_else(|error| panic!("mount {kind} on {place}: {error}"));
    };
    mount("proc", "/proc", "");
    mount("sysfs", "/sys", "");
    mount("devtmpfs", "/dev", "");
    mount("devpts", "/dev/pts", "mode=620,ptmxmode=666");
    mount("tmpfs", "/dev/shm", "mode=1777");
    mount("tmpfs", "/run", "mode=755");
    mount("tmpfs", "/tmp", "mode=1777");
    mount("cgroup2", "/sys/fs/cgroup", "");
    for (link, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        std::os::unix::fs::symlink(target, format!("/dev/{link}")).expect("a link in /dev");
    }
    // As systemd does.
    rustix::mount::mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .expect("share the mounts");
}

fn load_modules() {
    let mut paths: Vec<_> =
        fs::read_dir(MODULES).unwrap().map(|item| item.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let file = fs::File::open(&path).unwrap();
        rustix::system::finit_module(file, c"", 0)
            .unwrap_or_else(|error| panic!("load {}: {error}", path.display()));
    }
}

/// Runs a part.
fn run(part: Part) -> Result<(), String> {
    match part {
        Part::Sample => run_to_end(demo("KERNEL="), part.limit()),
        Part::Kernels => run_to_end(demo("KERNEL=1"), part.limit()),
        Part::Checks => run_to_end(black_box(&CHECKS)?, part.limit()),
        Part::LargeNumbers => run_to_end(black_box(&LARGE_NUMBERS)?, part.limit()),
        Part::BlackBox => {
            note_what_is_left_out()?;
            run_to_end(black_box(&BLACK_BOX)?, part.limit())
        }
        Part::Unit => run_to_end(Command::new(format!("{PROGRAMS}/unit")), part.limit()),
        Part::Clock => run_to_end(stage("in-guest-clock"), part.limit()),
        Part::Figures => run_to_end(stage("in-guest-figures"), part.limit()),
    }
}

fn demo(setting: &str) -> Command {
    let mut command = Command::new("env");
    command.args([setting, "bash", concat!(env!("CARGO_MANIFEST_DIR"), "/tools/demo")]);
    command
}

fn stage(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name);
    command
}

/// The names of all black-box tests.
fn black_box_tests() -> Result<Vec<String>, String> {
    let output = Command::new(format!("{PROGRAMS}/it")).args(["--list", "--format=terse"]).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// The call of the black-box tests whose names begin with one of `beginnings`. Each of these is the beginning of one.
fn black_box(beginnings: &[&str]) -> Result<Command, String> {
    let tests = black_box_tests()?;
    let mut wanted = BTreeSet::new();
    for beginning in beginnings {
        let found: Vec<&String> = tests.iter().filter(|test| test.starts_with(beginning)).collect();
        if found.is_empty() {
            return Err(format!("there is no test {beginning}"));
        }
        wanted.extend(found);
    }
    wanted.retain(|test| !CANNOT_RUN.iter().any(|(name, _)| name == test));
    let mut command = Command::new(format!("{PROGRAMS}/it"));
    command.arg("--exact").args(wanted);
    Ok(command)
}

/// Names the tests that no part runs.
fn note_what_is_left_out() -> Result<(), String> {
    for (name, why) in CANNOT_RUN {
        println!("{MARK}not run: {name}: {why}");
    }
    let all = [&CHECKS[..], &LARGE_NUMBERS, &BLACK_BOX].concat();
    let module = |test: &str| test.rsplit_once("::").map(|(module, _)| module.to_owned());
    let left_out: BTreeSet<String> = black_box_tests()?
        .iter()
        .filter(|test| !all.iter().any(|beginning| test.starts_with(beginning)))
        .filter_map(|test| module(test))
        .collect();
    println!(
        "{MARK}not run of the black-box tests: {}",
        left_out.into_iter().collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// Runs a program, and reaps what it leaves behind, as process 1 does. It is killed if it does not end in time.
fn run_to_end(mut command: Command, limit: Duration) -> Result<(), String> {
    command.env_clear().envs([("PATH", PATH), ("HOME", "/root"), ("TMPDIR", "/tmp")]);
    command.env("RUNTIME_UNDER_TEST", format!("{PROGRAMS}/balena-extension-runtime"));
    command.env("MANAGER_UNDER_TEST", format!("{PROGRAMS}/balena-extension-manager"));
    // An emulated machine is some ten times slower.
    command.env("TEST_PATIENCE", "10");
    command.stdin(Stdio::null()).process_group(0);
    let child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let child = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
    let deadline = Instant::now() + limit;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)).map_err(|error| error.to_string())? {
            WaitStatus::Exited(pid, 0) if pid == child => return Ok(()),
            status if status.pid() == Some(child) => return Err(format!("{status:?}")),
            WaitStatus::StillAlive if Instant::now() > deadline => {
                let _ended_meanwhile = killpg(child, Signal::SIGKILL);
                return Err(format!("it did not end within {limit:?}"));
            }
            WaitStatus::StillAlive => std::thread::sleep(Duration::from_millis(20)),
            _ => {}
        }
    }
}
