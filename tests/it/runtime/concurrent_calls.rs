//! Concurrent commands: exactly one of many creates succeeds, and no signal is lost however early.

use std::time::{Duration, Instant};

use crate::container::Container;
use crate::process;

#[test]
fn exactly_one_of_many_creates_of_an_id_succeeds() {
    for _ in 0..5 {
        let container = Container::new();
        let errors = container.beside("errors");
        let log = |name: &str| {
            std::fs::File::options().append(true).create(true).open(container.beside(name)).unwrap()
        };
        let mut creates: Vec<_> = (0..6)
            .map(|number| {
                let pid_file = container.beside(&format!("{number}.pid"));
                let mut command =
                    container.command(&["create", "-b", container.text(), "--pid-file"]);
                process::start(command.arg(pid_file).arg(&container.id).stderr(log("errors")))
            })
            .collect();
        let codes: Vec<i32> = creates.iter_mut().map(process::Started::wait).collect();
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        let winner = codes.iter().position(|code| *code == 0).unwrap();
        let errors = std::fs::read_to_string(errors).unwrap();
        assert_eq!(errors.matches("container with given ID already exists").count(), 5, "{errors}");
        for number in 0..6 {
            assert_eq!(container.beside(&format!("{number}.pid")).exists(), number == winner);
        }
        let pid = std::fs::read_to_string(container.beside(&format!("{winner}.pid"))).unwrap();
        assert_eq!(container.state()["pid"].to_string(), pid);
        container.new_log_lines();
        container.start().ok();
    }
}

#[test]
fn exactly_one_of_many_starts_succeeds() {
    let container = Container::new();
    container.hook("start", "echo started >> count; sleep 0.1");
    container.create().ok();
    let start = |_| {
        let mut command = container.command(&["start", &container.id]);
        process::start(command.stderr(std::process::Stdio::null()))
    };
    let mut starts: Vec<_> = (0..5).map(start).collect();
    let codes: Vec<i32> = starts.iter_mut().map(process::Started::wait).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(container.read("count"), "started");
}

#[test]
fn one_of_many_deletes_runs_the_hook_and_no_forced_one_fails() {
    let container = Container::new();
    container.hook("delete", "echo deleted >> count; sleep 0.1");
    container.create().ok();
    container.start().ok();
    let delete = |_| process::start(&mut container.command(&["delete", "--force", &container.id]));
    let mut deletes: Vec<_> = (0..5).map(delete).collect();
    let codes: Vec<i32> = deletes.iter_mut().map(process::Started::wait).collect();
    assert_eq!(codes, [0; 5]);
    assert_eq!(container.read("count"), "deleted");
    container.left_nothing();
}

/// containerd's second delete comes from another process, and must not end the first.
#[test]
fn a_forced_delete_does_not_kill_a_delete_that_waits_for_the_proxy() {
    let container = Container::new();
    container.hook("delete", "echo deleted >> count");
    container.create().ok();
    // The proxy has had the signal but does not run, as on a machine that swaps.
    process::stop(container.pid());
    container.start().ok();
    let mut plain = process::start(&mut container.command(&["delete", &container.id]));
    std::thread::sleep(Duration::from_millis(300));
    container.delete_by_force().ok();
    assert_eq!(plain.wait(), 0);
    assert_eq!(container.read("count"), "deleted");
    container.left_nothing();
}

#[test]
fn a_signal_right_after_create_is_never_lost() {
    for round in 0..30 {
        let container = Container::created();
        process::signal(container.pid(), rustix::process::Signal::USR1);
        assert_eq!(process::exit_status(container.pid()), 0, "round {round}");
    }
}

#[test]
fn a_signal_during_create_is_never_lost() {
    for (signal, status) in [("USR1", 0), ("USR2", 1), ("TERM", 0), ("KILL", 137)] {
        let container = Container::new();
        let script = format!(r#"kill -{signal} $(sed 's/.*"pid":\([0-9]*\).*/\1/')"#);
        container.spec_hook("prestart", &script, |hook| {
            hook["env"] = serde_json::json!(["PATH=/usr/bin:/bin"])
        });
        let finished = container.create();
        if finished.code() == 0 {
            assert_eq!(process::exit_status(container.pid()), status, "{signal}");
            assert_eq!(container.status(), "stopped");
            container.start().fails(&["cannot start a container that has stopped"]);
        } else {
            // Also right: a create that died was never created.
            finished.error();
            container.left_nothing();
            assert!(!container.pid_file().exists());
        }
    }
}

#[test]
fn a_start_right_after_create_is_never_too_early() {
    for _ in 0..30 {
        let container = Container::created();
        container.start().ok();
        assert_eq!(process::exit_status(container.pid()), 0);
        container.delete().ok();
    }
}

#[test]
fn a_delete_right_after_start_is_never_too_early() {
    let container = Container::new();
    container.hook("start", "true");
    for _ in 0..20 {
        container.create().ok();
        let mut start = process::start(&mut container.command(&["start", &container.id]));
        process::exit_status(container.pid());
        // The proxy has ended, so the engine deletes, even if start has not returned yet.
        container.delete().ok();
        assert_eq!(start.wait(), 0);
    }
}

#[test]
fn a_create_during_a_hanging_create_is_refused_at_once() {
    let container = Container::new();
    container.hook("create", "touch hanging; while ! test -e go; do sleep 0.01; done");
    let mut first = process::start(container.create_command().stdout(std::process::Stdio::null()));
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    let began = Instant::now();
    container.create().fails(&["container with given ID already exists"]);
    assert!(began.elapsed() < process::allowed(Duration::from_secs(5)));
    std::fs::write(container.path("go"), "").unwrap();
    assert_eq!(first.wait(), 0);
    assert_eq!(container.status(), "created");
}

#[test]
fn state_kill_and_list_answer_while_a_hook_hangs() {
    let container = Container::new();
    container.hook("create", "touch hanging; while ! test -e go; do sleep 0.01; done");
    let mut create = process::start(container.create_command().stdout(std::process::Stdio::null()));
    process::wait_for("the hook", || container.has("hanging").then_some(()));
    let began = Instant::now();
    assert_eq!(container.status(), "creating");
    container.kill("KILL").fails(&["container not running"]);
    container.start().fails(&[&container.id]);
    container.call(&["list"]).ok();
    assert!(began.elapsed() < process::allowed(Duration::from_secs(10)));
    std::fs::write(container.path("go"), "").unwrap();
    assert_eq!(create.wait(), 0);
}
