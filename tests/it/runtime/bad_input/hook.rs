//! Hooks that cannot be run, and hooks that misbehave and fail. Each row is tried at create, and at start with
//! the same hook put there after create.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::{Afterwards, Check, Row, check};
use crate::container::Container;
use crate::finished::Finished;
use crate::process;

/// Replaces `hooks/create` by a bad hook and calls create.
fn at_create(container: &Container, damage: impl Fn(&Container, &str)) -> Finished {
    damage(container, "create");
    container.create()
}

/// Creates a container, replaces `hooks/start` by a bad hook and calls start. The proxy must have ended when
/// that returns.
fn at_start(container: &Container, damage: impl Fn(&Container, &str)) -> Finished {
    container.create().ok();
    damage(container, "start");
    let finished = container.start();
    assert!(!process::is_alive(container.pid()), "engines leak such a proxy");
    assert_eq!(container.status(), "stopped");
    finished
}

fn directory(container: &Container, verb: &str) {
    std::fs::create_dir(container.path("rootfs/hooks").join(verb)).unwrap();
}

fn not_executable(container: &Container, verb: &str) {
    container.hook(verb, "true");
    let path = container.path("rootfs/hooks").join(verb);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

fn fifo(container: &Container, verb: &str) {
    let path = container.path("rootfs/hooks").join(verb);
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

fn no_interpreter(container: &Container, verb: &str) {
    container.hook_file(verb, b"#!/opt/none/python3 -u\nprint()\n");
}

fn carriage_returns(container: &Container, verb: &str) {
    container.hook_file(verb, b"#!/bin/sh\r\ntrue\r\n");
}

/// The header of a program for SPARC V9, which this suite will not run on.
fn foreign(container: &Container, verb: &str) {
    elf(container, verb, 43);
}

/// The header of a program for a 64-bit machine with the other byte order.
fn aarch64_or_x86_64(container: &Container, verb: &str) {
    elf(container, verb, if std::env::consts::ARCH == "aarch64" { 62 } else { 183 });
}

fn elf(container: &Container, verb: &str, machine: u16) {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend(2_u16.to_le_bytes());
    header.extend(machine.to_le_bytes());
    header.resize(4096, 0);
    container.hook_file(verb, &header);
}

fn plain_text(container: &Container, verb: &str) {
    container.hook_file(verb, b"echo I have no first line\n");
}

fn empty(container: &Container, verb: &str) {
    container.hook_file(verb, b"");
}

fn link_to_nothing(container: &Container, verb: &str) {
    symlink("/none", container.path("rootfs/hooks").join(verb)).unwrap();
}

fn link_out(container: &Container, verb: &str) {
    symlink("/bin/true", container.path("rootfs/hooks").join(verb)).unwrap();
}

fn loop_of_links(container: &Container, verb: &str) {
    symlink(verb, container.path("rootfs/hooks").join(verb)).unwrap();
}

fn fails(container: &Container, verb: &str) {
    container.hook(verb, "echo mount failed >&2; exit 32");
}

fn killed(container: &Container, verb: &str) {
    container.hook(verb, "kill -9 $$");
}

fn prints_a_megabyte(container: &Container, verb: &str) {
    container.hook(verb, "head -c 1048576 /dev/zero | tr '\\0' x; echo; echo the end; exit 1");
}

fn leaves_children(container: &Container, verb: &str) {
    container.hook(verb, "sleep 1000 & setsid sleep 1000 & exit 1");
}

fn closes_its_output(container: &Container, verb: &str) {
    container.hook(verb, "exec >&- 2>&-; exit 1");
}

fn hangs(container: &Container, list: &str) {
    container
        .spec_hook(list, "/bin/sleep 1000 & /bin/sleep 1000", |hook| hook["timeout"] = 1.into());
}

const CREATE: &[&str] = &["hooks/create"];
const START: &[&str] = &["hooks/start"];
const NOT_A_FILE: &[&str] = &["executable file"];
const EXIT: &[&str] = &["exited with status 1"];

macro_rules! rows {
    ($($what:literal, $damage:ident, $explains:expr;)*) => {
        const AT_CREATE: &[Row] = &[$(Row {
            what: concat!("hooks/create ", $what), call: |c| at_create(c, $damage), names: CREATE, explains: $explains,
        },)*];
        const AT_START: &[Row] = &[$(Row {
            what: concat!("hooks/start ", $what), call: |c| at_start(c, $damage), names: START, explains: $explains,
        },)*];
    };
}

rows! {
    "is a directory", directory, NOT_A_FILE;
    "is not executable", not_executable, &["not executable", "0644", "chmod +x"];
    "is a FIFO", fifo, NOT_A_FILE;
    "has no interpreter", no_interpreter, &["/opt/none/python3", "interpreter", "on the host"];
    "has carriage returns", carriage_returns, &["CR LF", "save the file"];
    "is for SPARC", foreign, &["it is a program for", std::env::consts::ARCH];
    "is for another machine", aarch64_or_x86_64, &["it is a program for", std::env::consts::ARCH];
    "is text without #!", plain_text, &["neither a program", "#!"];
    "is empty", empty, &["neither a program", "#!"];
    "is a link to nothing", link_to_nothing, &["link", "rootfs"];
    "is a link out of the rootfs", link_out, &["link", "rootfs"];
    "is a loop of links", loop_of_links, &["symbolic link"];
    "fails", fails, &["exited with status 32: mount failed"];
    "is killed", killed, &["was killed by signal 9"];
    "prints a megabyte and fails", prints_a_megabyte, &["exited with status 1", "the end"];
    "leaves children and fails", leaves_children, EXIT;
    "closes its output and fails", closes_its_output, EXIT;
}

/// Hooks of the spec, whose timeout can be short enough for a test.
const OF_THE_SPEC: &[Row] = &[
    Row {
        what: "a spec hook hangs",
        names: &["prestart"],
        explains: &["still running after 1 s"],
        call: |c| {
            hangs(c, "prestart");
            c.create()
        },
    },
    Row {
        what: "a spec hook is missing",
        names: &["createRuntime", "/none"],
        explains: &["missing"],
        call: |c| {
            c.configure(|config| {
                config["hooks"] = serde_json::json!({ "createRuntime": [{ "path": "/none" }] })
            });
            c.create()
        },
    },
    Row {
        what: "a spec hook is a directory",
        names: &["createContainer", "/usr"],
        explains: &["may not be executed"],
        call: |c| {
            c.configure(|config| {
                config["hooks"] = serde_json::json!({ "createContainer": [{ "path": "/usr" }] })
            });
            c.create()
        },
    },
];

#[test]
fn a_create_hook_that_does_not_work_is_named_and_nothing_is_left() {
    check(AT_CREATE, Check::Names, Afterwards::Nothing);
}

#[test]
fn a_start_hook_that_does_not_work_is_named_and_the_container_is_stopped() {
    check(AT_START, Check::Names, Afterwards::TheContainer);
}

#[test]
fn a_hook_of_the_spec_that_does_not_work_is_named_and_nothing_is_left() {
    check(OF_THE_SPEC, Check::Names, Afterwards::Nothing);
}

mod only_ours {
    //! The cause and the fix in the error.

    use super::*;

    #[test]
    fn a_create_hook_that_does_not_work_is_explained() {
        check(AT_CREATE, Check::Explains, Afterwards::Nothing);
    }

    #[test]
    fn a_start_hook_that_does_not_work_is_explained() {
        check(AT_START, Check::Explains, Afterwards::TheContainer);
    }

    #[test]
    fn a_hook_of_the_spec_that_does_not_work_is_explained() {
        check(OF_THE_SPEC, Check::Explains, Afterwards::Nothing);
    }
}
