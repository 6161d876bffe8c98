//! A caller that captures the output of create through one pipe for both streams, and reads to the end.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::container::Container;
use crate::proc_fs::Process;
use crate::process;

const HOOK: &str = "echo from the hook; echo and its error >&2";

/// Runs `CALL 2>&1 | cat >FILE`, and returns what `cat` has read.
#[track_caller]
fn captured(container: &Container, call: &Command) -> String {
    let file = container.beside("captured");
    let script = format!("\"$@\" 2>&1 </dev/null | cat >{}", file.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(call.get_program()).args(call.get_args());
    assert_eq!(process::start(&mut shell).wait(), 0);
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_pipe_ends_when_create_ends_and_start_prints_the_output_of_its_hook() {
    let container = Container::new();
    container.hook("create", "echo checked");
    container.hook("start", HOOK);
    assert_eq!(captured(&container, &container.create_command()), "checked\n");
    assert_eq!(container.status(), "created");
    let proxy = Process(container.pid());
    for number in [1, 2] {
        assert_eq!(proxy.descriptor(number), Path::new("/dev/null"));
    }
    assert_eq!(container.start().ok().out, "from the hook\nand its error\n");
}

/// A start must not hang if its output is not read.
#[test]
fn a_start_whose_output_is_not_read_ends() {
    let container = Container::new();
    container.hook("start", "head -c 1000000 /dev/zero");
    captured(&container, &container.create_command());
    let mut start = container.command(&["start", &container.id]);
    let mut started = process::start(start.stdout(Stdio::piped()));
    assert_eq!(started.wait(), 0);
}

#[test]
fn two_pipes_or_one_file_remain_the_containers_log() {
    let container = Container::new();
    let mut create = container.create_command();
    let mut started = process::start(create.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_eq!(started.wait(), 0);
    let proxy = Process(container.pid());
    for number in [1, 2] {
        assert!(proxy.descriptor(number).to_str().unwrap().starts_with("pipe:"));
    }

    let container = Container::new();
    container.hook("start", HOOK);
    let (file, path) = (container.beside_file("both"), container.beside("both"));
    let mut create = container.create_command();
    let mut started = process::start(create.stdout(file.try_clone().unwrap()).stderr(file));
    assert_eq!(started.wait(), 0);
    container.start().silent();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "from the hook\nand its error\n");
}

#[test]
fn a_run_prints_its_hooks_there() {
    let container = Container::new();
    container.hook("start", HOOK);
    let run = container.command(&["run", "--bundle", container.text(), &container.id]);
    assert_eq!(captured(&container, &run), "from the hook\nand its error\n");
}

/// The proxy's descriptors cannot be read without CAP_SYS_PTRACE.
#[test]
fn an_engine_that_may_not_look_into_the_proxy_warns_that_the_hooks_output_is_lost() {
    let container = Container::new();
    container.hook("start", HOOK);
    container.create().ok();
    let call = container.command(&["start", &container.id]);
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set", "-sys_ptrace", "--"]).arg(call.get_program());
    let started = container.finish(setpriv.args(call.get_args())).ok();
    assert!(started.warnings().contains("CAP_SYS_PTRACE"), "{started}");
    assert_eq!(container.printed(), "");
    assert_eq!(process::exit_status(container.pid()), 0);
    container.delete().ok();
}
