//! System calls that a seccomp profile refuses or an old kernel lacks: the error names the call, its purpose
//! and the usual cause, and no hook has been started.

use nix::libc;
use seccompiler::SeccompAction;

use crate::container::Container;
use crate::seccomp_filter::with_filter;

/// The texts of the error about a refused call.
const CAUSE: &str = "seccomp profile";

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

#[test]
fn a_create_without_pidfd_open_or_openat2_reports_the_call_and_runs_no_hook() {
    for (call, texts) in [
        (libc::SYS_pidfd_open, ["pidfd_open", "Linux 5.3"]),
        (libc::SYS_openat2, ["openat2", "Linux 5.6"]),
    ] {
        for number in [libc::EPERM, libc::ENOSYS] {
            let container = Container::new();
            container.hook("create", "touch ran");
            let created = with_filter(call, errno(number), &mut container.create_command());
            created.fails(&[texts[0], texts[1], CAUSE]);
            for guess in ["memory", "the kernel does not permit this", "not implemented"] {
                assert!(!created.err.contains(guess), "{created}");
            }
            assert!(!container.has("ran"));
            container.left_nothing();
        }
    }
}

#[test]
fn every_verb_that_looks_for_the_proxy_names_pidfd_open() {
    let container = Container::created();
    let force = ["delete", "--force"];
    for words in [&["state"][..], &["kill"], &["start"], &force] {
        let mut command = container.command(&[words, &[&container.id]].concat());
        let finished = with_filter(libc::SYS_pidfd_open, errno(libc::EPERM), &mut command);
        finished.fails(&["pidfd_open is refused (EPERM)", "Linux 5.3", CAUSE]);
    }
    container.new_log_lines();
    container.start().ok();
}

#[test]
fn a_guard_that_cannot_be_started_or_identified_names_the_call() {
    for (call, text) in [
        (libc::SYS_socketpair, "socketpair is refused (EPERM)"),
        (libc::SYS_prctl, "prctl is refused (EPERM)"),
    ] {
        let container = Container::new();
        container.hook("create", "touch ran");
        let created = with_filter(call, errno(libc::EPERM), &mut container.create_command());
        created.fails(&["hook hooks/create was not run", text, CAUSE]);
        assert!(!container.has("ran"));
        container.left_nothing();
    }
}
