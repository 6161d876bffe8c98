//! `kill ID [SIGNAL]`: signals the proxy, which it identifies, and no other process.

use rustix::process::Signal;

use crate::container::Container;
use crate::{bundle, finished, process};

#[test]
fn the_default_is_term_and_ends_the_proxy_with_status_0() {
    let container = Container::created();
    container.call(&["kill", &container.id]).silent();
    assert_eq!(process::exit_status(container.pid()), 0);
    assert_eq!(container.status(), "stopped");
}

#[test]
fn every_spelling_of_kill_is_the_same() {
    for signal in ["KILL", "SIGKILL", "sigkill", "kill", "Kill", "9"] {
        let container = Container::created();
        container.kill(signal).silent();
        assert_eq!(process::exit_status(container.pid()), 128 + 9, "{signal}");
    }
}

#[test]
fn the_signals_that_the_proxy_answers_end_it_with_their_status() {
    for (signal, status) in
        [("USR1", 0), ("USR2", 1), ("TERM", 0), ("INT", 0), ("SIGINT", 0), ("15", 0)]
    {
        let container = Container::created();
        container.kill(signal).ok();
        assert_eq!(process::exit_status(container.pid()), status, "{signal}");
    }
}

#[test]
fn signals_that_change_nothing_leave_it_created() {
    let container = Container::created();
    for signal in ["CONT", "WINCH", "SIGCHLD", "URG", "0"] {
        container.kill(signal).silent();
    }
    assert_eq!(container.status(), "created");
    container.start().ok();
}

#[test]
fn other_signals_have_their_default_effect() {
    for (signal, number) in [("HUP", 1), ("ABRT", 6), ("SIGRTMIN", 34), ("64", 64), ("PIPE", 13)] {
        let container = Container::created();
        container.kill(signal).ok();
        assert_eq!(process::exit_status(container.pid()), 128 + number, "{signal}");
    }
}

#[test]
fn all_signals_are_known_by_name() {
    let container = Container::stopped();
    let names = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP \
         TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS RTMIN RTMIN+1 RTMAX-1 RTMAX";
    for name in names.split_ascii_whitespace() {
        container.kill(name).fails(&["container not running"]);
        container.kill(&format!("SIG{name}")).fails(&["container not running"]);
    }
}

#[test]
fn an_unknown_signal_is_named_and_changes_nothing() {
    let container = Container::created();
    for signal in ["NOPE", "SIG", "65", "99999999999", "9x", ""] {
        container.kill(signal).fails(&[&format!("{signal:?}")]);
    }
    assert_eq!(container.status(), "created");
}

#[test]
fn a_stopped_container_is_not_running_in_the_phrase_that_engines_match_on() {
    let container = Container::stopped();
    for signal in ["9", "TERM"] {
        let finished = container.kill(signal);
        finished.fails(&["container not running"]);
        assert!(
            finished.err.contains("container not running"),
            "engines read it there: {finished}"
        );
    }
    assert_eq!(container.status(), "stopped");
}

#[test]
fn kill_all_of_a_stopped_container_is_a_silent_success() {
    let container = Container::stopped();
    for flags in [
        ["--all", &container.id, "9"],
        ["-a", &container.id, "9"],
        [&container.id, "--all", "KILL"],
    ] {
        container.call(&[&["kill"], &flags[..]].concat()).silent();
    }
}

#[test]
fn kill_all_signals_a_live_proxy() {
    let container = Container::created();
    container.call(&["kill", "--all", &container.id, "9"]).silent();
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
}

#[test]
fn an_unknown_container_cannot_be_signalled() {
    let container = Container::new();
    container.kill("9").fails(&[finished::UNKNOWN]);
    container.call(&["kill", "--all", &container.id, "9"]).fails(&[finished::UNKNOWN]);
}

#[test]
fn a_signal_reaches_a_container_whose_start_hook_hangs() {
    let container = Container::new();
    container.hook("start", "touch hanging; while ! test -e go; do sleep 0.01; done");
    container.create().ok();
    let mut start = process::start(&mut container.command(&["start", &container.id]));
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    container.kill("KILL").ok();
    assert_eq!(process::exit_status(container.pid()), 128 + 9);
    std::fs::write(container.path("go"), "").unwrap();
    assert_eq!(start.wait(), 0, "a proxy that dies under way is not an error");
}

/// A state whose pid belongs to another process, as after a crash when pids wrap around.
#[test]
fn a_process_that_got_the_pid_of_a_dead_proxy_is_never_touched() {
    let container = Container::created();
    container.kill("KILL").ok();
    process::exit_status(container.pid());
    let mut bystander = process::start(std::process::Command::new("sleep").arg("100"));
    forge(&container, |state| state["pid"] = bystander.pid().into());
    container.kill("KILL").fails(&["container not running"]);
    assert_eq!(container.status(), "stopped");
    container.delete_by_force().ok();
    assert!(bystander.runs());
}

#[test]
fn a_process_that_looks_like_another_containers_proxy_is_never_touched() {
    let (container, other) = (Container::created(), Container::created());
    let victim = other.pid();
    forge(&container, |state| state["pid"] = victim.into());
    container.kill("KILL").fails(&["container not running"]);
    container.delete_by_force().ok();
    assert!(process::is_alive(victim));
    // No state refers to the real proxy any more.
    process::signal(container.pid(), Signal::TERM);
    assert_eq!(process::exit_status(container.pid()), 0);
}

fn forge(container: &Container, change: impl FnOnce(&mut serde_json::Value)) {
    let path = container.root().join(&container.id).join("state.json");
    let mut state = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut state);
    std::fs::write(path, state.to_string()).unwrap();
}

mod only_ours {
    //! The start time is recorded next to the pid in `pidStartTime`.

    use super::*;

    #[test]
    fn even_the_right_start_time_does_not_make_a_proxy_of_another_program() {
        let container = Container::created();
        container.kill("KILL").ok();
        process::exit_status(container.pid());
        let path = container.beside("balena-extension-runtime");
        bundle::executable(&path, &std::fs::read("/bin/sleep").unwrap());
        let mut bystander = process::start(std::process::Command::new(path).arg("100"));
        let start_time = crate::proc_fs::Process(bystander.pid()).stat(22);
        forge(&container, |state| {
            state["pid"] = bystander.pid().into();
            state["pidStartTime"] = start_time.into();
        });
        container.kill("KILL").fails(&["container not running"]);
        container.delete_by_force().ok();
        assert!(bystander.runs());
    }

    #[test]
    fn a_later_process_with_the_same_command_line_is_not_taken_for_the_proxy() {
        use std::os::unix::process::CommandExt as _;
        let container = Container::created();
        container.kill("KILL").ok();
        process::exit_status(container.pid());
        // Start times are counted in hundredths of a second.
        std::thread::sleep(std::time::Duration::from_millis(30));
        // A shell that runs the script `proxy` has the same command line.
        std::fs::write(container.beside("proxy"), "read -r line < fifo").unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, container.beside("fifo"), kind, mode, 0).unwrap();
        let mut command = std::process::Command::new("sh");
        command.arg0("balena-extension-runtime").args(["proxy", "--id", &container.id]);
        let mut bystander = process::start(command.current_dir(container.beside("")));
        process::wait_for("the shell", || {
            let started = crate::leftovers::processes(&container.id).contains(&bystander.pid());
            started.then_some(())
        });
        forge(&container, |state| state["pid"] = bystander.pid().into());
        container.kill("KILL").fails(&["container not running"]);
        container.delete_by_force().ok();
        assert!(bystander.runs());
        bystander.kill();
        bystander.wait();
    }

    #[test]
    fn a_forged_pid_without_a_process_is_refused() {
        for pid in [0, -1, 1, i32::MAX] {
            let container = Container::stopped();
            forge(&container, |state| {
                state["pid"] = pid.into();
                state["status"] = "created".into();
            });
            container.kill("0").fails(&["container not running"]);
        }
    }
}
