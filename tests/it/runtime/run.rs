//! `run ID`: create, start and delete for people at a terminal.

use std::time::{Duration, Instant};

use crate::container::Container;
use crate::process;
use crate::programs;

#[test]
fn all_three_hooks_run_and_nothing_is_left() {
    let container = Container::new();
    for verb in ["create", "start", "delete"] {
        container.hook(verb, &format!("echo {verb} >> order; echo {verb} says"));
    }
    let finished = container.call(&["run", "-b", container.text(), &container.id]).ok();
    assert_eq!(container.read("order"), "create\nstart\ndelete");
    assert!(finished.out.contains("create says\nstart says\n"), "{finished}");
    container.left_nothing();
}

#[test]
fn keep_leaves_the_stopped_container() {
    let container = Container::new();
    container.hook("delete", "touch deleted");
    container.call(&["run", "--keep", "--bundle", container.text(), &container.id]).ok();
    assert_eq!(container.status(), "stopped");
    assert!(!container.has("deleted"));
    container.delete().ok();
}

#[test]
fn the_bundle_is_the_working_directory_by_default() {
    let container = Container::new();
    let mut command = container.command(&["run", &container.id]);
    container.finish(command.current_dir(container.text())).ok();
}

#[test]
fn a_failing_create_hook_is_reported_and_leaves_nothing() {
    let container = Container::new();
    container.hook("create", "exit 5");
    let finished = container.call(&["run", "-b", container.text(), &container.id]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("hooks/create exited with status 5"), "{finished}");
    container.left_nothing();
}

#[test]
fn a_failing_start_hook_is_reported_and_leaves_nothing() {
    let container = Container::new();
    container.hook("start", "exit 5");
    container.hook("delete", "touch deleted");
    let finished = container.call(&["run", "-b", container.text(), &container.id]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("hooks/start exited with status 5"), "{finished}");
    assert!(container.has("deleted"));
    container.left_nothing();
}

#[test]
fn a_taken_id_is_refused_and_its_container_untouched() {
    let container = Container::created();
    let finished = container.call(&["run", "-b", container.text(), &container.id]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("container with given ID already exists"), "{finished}");
    assert_eq!(container.status(), "created");
    assert!(process::is_alive(container.pid()));
}

/// A shell that executes `run` while an interrupt is already pending.
fn interrupted_before(container: &Container) -> std::process::Command {
    let mut command = std::process::Command::new("env");
    command.args(["--block-signal=INT", "sh", "-c", "kill -INT $$; exec \"$@\"", "sh"]);
    let words = container.command(&["run", "-b", container.text(), &container.id]);
    command.arg(programs::runtime()).args(words.get_args());
    command
}

#[test]
fn an_interrupt_at_the_very_beginning_of_run_keeps_an_existing_container() {
    let container = Container::created();
    for _ in 0..5 {
        assert_ne!(container.finish(&mut interrupted_before(&container)).code(), 0);
        assert_eq!(container.status(), "created");
    }
    assert!(process::is_alive(container.pid()));
    container.start().ok();
}

#[test]
fn an_interrupt_at_its_very_beginning_leaves_nothing() {
    let container = Container::new();
    container.hook("create", "touch created");
    assert_ne!(container.finish(&mut interrupted_before(&container)).code(), 0);
    container.left_nothing();
}

/// Some callers ignore SIGCHLD. Then the kernel reaps children itself, and they cannot be waited for.
#[test]
fn an_ignored_sigchld_makes_no_difference() {
    let container = Container::new();
    container.hook("start", "touch started");
    let run = || {
        let mut command = std::process::Command::new("env");
        let words = container.command(&["run", "-b", container.text(), &container.id]);
        command.args(["--ignore-signal=CHLD"]).arg(programs::runtime()).args(words.get_args());
        container.finish(&mut command)
    };
    run().ok();
    assert!(container.has("started"));
    container.left_nothing();
    container.create().ok();
    assert_eq!(run().code(), 1);
    assert_eq!(container.status(), "created");
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let container = Container::new();
    container.hook("start", "touch hanging; sleep 100");
    // Its own session, like the foreground job of a terminal. A shell that runs this suite in the background makes
    // it ignore interrupts.
    let mut command = std::process::Command::new("env");
    command.args(["--default-signal=INT", "setsid"]);
    let words = container.command(&["run", "-b", container.text(), &container.id]);
    command.arg(programs::runtime()).args(words.get_args()).stderr(std::process::Stdio::null());
    let mut run = process::start(&mut command);
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    let group = rustix::process::Pid::from_raw(run.pid()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    assert_ne!(run.wait(), 0);
    container.left_nothing();
}

#[test]
fn background_processes_of_a_hook_are_not_waited_for() {
    let container = Container::new();
    container.hook("start", "sleep 100 > /dev/null 2>&1 & echo $! > left");
    let began = Instant::now();
    container.call(&["run", "-b", container.text(), &container.id]).ok();
    assert!(began.elapsed() < process::allowed(Duration::from_secs(8)), "{:?}", began.elapsed());
    let left = container.read("left").parse().unwrap();
    assert!(process::is_alive(left), "a successful hook's child is its own affair");
    process::end(left);
    container.left_nothing();
}

fn running_sandbox(container: &Container) -> process::Started {
    container.configure(|config| {
        config["annotations"] =
            serde_json::json!({ "io.kubernetes.cri.container-type": "sandbox" });
    });
    let mut command = container.command(&["run", "-b", container.text(), "--pid-file"]);
    command.arg(container.pid_file()).arg(&container.id).stderr(std::process::Stdio::null());
    let run = process::start(&mut command);
    process::wait_for("the sandbox", || {
        let state = container.call(&["state", &container.id]);
        state.out.contains("\"running\"").then_some(())
    });
    run
}

#[test]
fn a_sandbox_is_waited_for_and_deleted_when_it_ends() {
    let container = Container::new();
    let mut run = running_sandbox(&container);
    assert!(run.runs());
    container.kill("TERM").ok();
    assert_eq!(run.wait(), 0);
    container.left_nothing();
}

#[test]
fn an_interrupt_ends_the_wait_for_a_sandbox_and_leaves_nothing() {
    for stopped in [false, true] {
        let container = Container::new();
        let mut run = running_sandbox(&container);
        if stopped {
            process::stop(container.pid());
        }
        process::signal(run.pid(), rustix::process::Signal::TERM);
        assert_ne!(run.wait(), 0);
        container.left_nothing();
    }
}

#[test]
fn a_terminal_is_the_one_it_is_typed_at() {
    let container = Container::new();
    container.configure(|config| config["process"]["terminal"] = true.into());
    container.hook("create", "echo seen");
    let finished = container.call(&["run", "-b", container.text(), &container.id]).ok();
    assert!(finished.out.contains("seen"), "{finished}");
}

/// Its output is read meanwhile, unlike that of an engine's `create`.
#[test]
fn the_output_of_a_hook_appears_whole_on_a_terminal() {
    use std::io::Read as _;
    let container = Container::new();
    let script = "i=0; while [ $i -lt 4000 ]; do echo \"line $i ........................................\"; i=$((i+1)); done";
    container.hook("create", script);
    let master =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
            .unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut master, mut seen, mut bytes) =
            (std::fs::File::from(master), Vec::new(), [0; 4096]);
        // The end of a pty is an error, EIO.
        while let Ok(len @ 1..) = master.read(&mut bytes) {
            seen.extend(&bytes[..len]);
        }
        String::from_utf8(seen).unwrap()
    });
    let mut command = container.command(&["run", "-b", container.text(), &container.id]);
    let (out, err) = (slave.try_clone().unwrap(), slave.try_clone().unwrap());
    command.stdin(slave).stdout(out).stderr(err);
    assert_eq!(process::start(&mut command).wait(), 0);
    drop(command);
    let seen = reader.join().unwrap();
    let lines: Vec<&str> = seen.lines().filter(|line| line.starts_with("line ")).collect();
    assert!(lines.len() == 4000 && !seen.contains("left out"), "{} lines of 4000", lines.len());
}
