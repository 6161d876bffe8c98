//! The proxy: the process that the engine watches between create and start. It holds nothing, does nothing, and
//! never outlives a create that did not complete.

use std::process::Command;
use std::time::Duration;

use crate::container::Container;
use crate::proc_fs::Process;
use crate::process;
use crate::programs;

/// A container created by a caller with blocked and ignored signals, open descriptors and secrets.
fn among_hostiles() -> Container {
    let container = Container::new();
    let words = container.create_command();
    let script = r#"cd /usr; exec "$@" 3</etc/passwd 4</etc/passwd 7</etc/passwd 9</etc/passwd"#;
    let mut command = Command::new("sh");
    command.args([
        "-c",
        script,
        "sh",
        "env",
        "--block-signal=USR1,USR2,CHLD,TERM",
        // The last is one of the real-time signals.
        "--ignore-signal=PIPE,INT,36",
        "SECRET=1",
    ]);
    container.create_by(command.arg(words.get_program()).args(words.get_args())).ok();
    container
}

#[test]
fn the_proxy_has_no_descriptors_except_the_containers_streams() {
    let container = among_hostiles();
    let proxy = Process(container.pid());
    // It closes the descriptors that bind it to create when create reports that all is done.
    process::wait_for("the last descriptor", || (proxy.descriptors() == [0, 1, 2]).then_some(()));
    assert_eq!(proxy.descriptor(0), std::path::Path::new("/dev/null"));
    assert_eq!(proxy.descriptor(1), container.beside("stdout"));
    assert_eq!(proxy.descriptor(2), container.beside("stderr"));
}

#[test]
fn the_proxy_has_its_own_session_and_works_in_the_root_directory() {
    let container = among_hostiles();
    let proxy = Process(container.pid());
    assert_eq!((proxy.stat(5), proxy.stat(6)), (container.pid(), container.pid()));
    assert_eq!(proxy.working_directory(), std::path::Path::new("/"));
}

#[test]
fn the_proxys_environment_is_a_path_and_nothing_else() {
    let container = among_hostiles();
    let environment = Process(container.pid()).environment();
    assert_eq!(environment, ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
}

#[test]
fn the_proxy_is_orphaned_to_the_caller() {
    let container = Container::created();
    assert_eq!(Process(container.pid()).stat(4), i32::try_from(std::process::id()).unwrap());
}

#[test]
fn no_signal_is_ignored_and_every_one_that_counts_is_answered() {
    for (signal, status) in
        [("USR1", 0), ("USR2", 1), ("TERM", 0), ("INT", 0), ("PIPE", 141), ("HUP", 129)]
    {
        let container = among_hostiles();
        let proxy = Process(container.pid());
        assert_eq!(proxy.signals("SigIgn"), 0);
        container.kill(signal).ok();
        assert_eq!(process::exit_status(container.pid()), status, "{signal}");
    }
}

/// The mask is checked as after a `docker restart` under Podman's conmon, which leaves SIGUSR1 blocked.
#[test]
fn the_proxy_ends_at_start_even_if_its_caller_blocks_the_signal() {
    let container = among_hostiles();
    container.start().ok();
    assert_eq!(process::exit_status(container.pid()), 0);
}

#[test]
fn the_proxy_has_as_little_privilege_as_possible() {
    let container = Container::created();
    let proxy = Process(container.pid());
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        assert_eq!(proxy.status(set), "0".repeat(16), "{set}");
    }
    assert_eq!(proxy.status("NoNewPrivs"), "1");
    assert_eq!(proxy.status("Seccomp"), "2");
}

#[test]
fn root_of_a_container_that_shares_the_pid_namespace_gets_nowhere_through_it() {
    let container = Container::created();
    assert_eq!(crate::intruder::ways_into(container.pid()), [""; 0]);
    container.start().ok();
}

#[test]
fn the_proxy_leaves_no_core() {
    let container = Container::new();
    let words = container.create_command();
    let script = "ulimit -c unlimited 2>/dev/null; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(words.get_program()).args(words.get_args());
    container.create_by(&mut command).ok();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", container.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let values: Vec<&str> = core.split_ascii_whitespace().skip(4).collect();
    assert_eq!(values, ["0", "0", "bytes"]);
}

#[test]
fn the_proxy_is_a_single_thread_in_little_memory() {
    let container = Container::created();
    let proxy = Process(container.pid());
    assert_eq!(proxy.status("Threads"), "1");
    let resident: u32 = proxy.status("RssAnon").trim_end_matches(" kB").parse().unwrap();
    assert!(resident <= 256, "{resident} KiB of its own");
}

#[test]
fn the_proxy_ends_with_a_create_that_is_killed_at_any_moment() {
    for list in ["prestart", "createRuntime", "createContainer"] {
        let container = Container::new();
        let (seen, sleep) = (container.path("pid"), "exec /bin/sleep 100");
        container.spec_hook(
            list,
            &format!("/bin/cat > {0}.part; /bin/mv {0}.part {0}; {sleep}", seen.display()),
            |_| {},
        );
        let mut create = process::start(&mut container.create_command());
        process::wait_for("the hook", || container.has("pid").then_some(()));
        let state: serde_json::Value = serde_json::from_str(&container.read("pid")).unwrap();
        let proxy = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
        assert!(process::is_alive(proxy));
        create.kill();
        create.wait();
        process::exit_status(proxy);
        assert_eq!(container.status(), "creating", "{list}");
        container.delete_by_force().ok();
        container.left_nothing();
    }
}

#[test]
fn a_proxy_cannot_be_started_by_hand() {
    let mut command = Command::new(programs::runtime());
    let mut proxy =
        process::start(command.args(["proxy", "--id", "x"]).stderr(std::process::Stdio::null()));
    assert_ne!(proxy.wait(), 0, "without a create to answer to, it would wait for ever");
}

/// Creates a container with these system calls failing, as on a kernel that lacks or refuses them.
fn create_where(
    calls: &[nix::libc::c_long],
    errno: rustix::io::Errno,
    prepare: fn(&Container),
) -> (Container, crate::finished::Finished) {
    let fails = seccompiler::SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
    create_under(fails, calls, prepare, |container| container.create())
}

/// Creates a container with this action at these system calls.
fn create_under(
    action: seccompiler::SeccompAction,
    calls: &[nix::libc::c_long],
    prepare: fn(&Container),
    create: fn(&Container) -> crate::finished::Finished,
) -> (Container, crate::finished::Finished) {
    let calls = calls.to_vec();
    // A filter applies to a thread and its children.
    let thread = std::thread::spawn(move || {
        crate::seccomp_filter::apply(&calls, action);
        let container = Container::new();
        prepare(&container);
        let created = create(&container);
        (container, created)
    });
    thread.join().unwrap()
}

#[test]
fn a_kernel_without_seccomp_is_enough() {
    for errno in [rustix::io::Errno::INVAL, rustix::io::Errno::NOSYS] {
        let (container, created) = create_where(&[nix::libc::SYS_seccomp], errno, |_| {});
        created.ok();
        assert_eq!(Process(container.pid()).status("CapEff"), "0".repeat(16));
        container.start().ok();
        assert_eq!(process::exit_status(container.pid()), 0);
    }
}

#[test]
fn a_step_that_the_kernel_refuses_the_proxy_is_named_by_create() {
    for (call, errno, texts) in [
        (
            nix::libc::SYS_capset,
            rustix::io::Errno::PERM,
            ["capabilities", "capset is refused (EPERM), usually by a seccomp profile"],
        ),
        (nix::libc::SYS_seccomp, rustix::io::Errno::FAULT, ["system calls", "bad address"]),
        (nix::libc::SYS_prctl, rustix::io::Errno::FAULT, ["protect itself", "bad address"]),
        (
            nix::libc::SYS_chdir,
            rustix::io::Errno::ACCESS,
            ["working directory", "access is refused"],
        ),
    ] {
        let (container, created) = create_where(&[call], errno, |_| {});
        created.fails(&texts);
        container.left_nothing();
    }
}

/// Its exit status reports it, and can be read even if the caller ignores SIGCHLD.
#[test]
fn a_seccomp_profile_that_kills_the_proxy_is_named() {
    let kills = seccompiler::SeccompAction::KillProcess;
    let (container, created) = create_under(
        kills,
        &[nix::libc::SYS_capset],
        |_| {},
        |container| {
            let words = container.create_command();
            let mut command = Command::new("env");
            command.arg("--ignore-signal=CHLD").arg(words.get_program()).args(words.get_args());
            container.create_by(&mut command)
        },
    );
    created.fails(&["signal 31", "seccomp profile"]);
    container.left_nothing();
}

/// A seccomp profile of the engine may refuse the call with which the proxy waits.
#[test]
fn the_proxy_waits_even_if_rt_sigtimedwait_is_refused() {
    for (signal, status) in [("USR1", 0), ("USR2", 1), ("TERM", 0), ("HUP", 129)] {
        let errno = rustix::io::Errno::PERM;
        let (container, created) = create_where(&[nix::libc::SYS_rt_sigtimedwait], errno, |_| {});
        created.ok();
        // Its start alone can take long on an emulated processor.
        let ticks = || Process(container.pid()).stat(14);
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        let spent = ticks() - before;
        assert!(spent < 15, "it spins: {spent} ticks of the processor in 0.3 s");
        container.kill(signal).ok();
        assert_eq!(process::exit_status(container.pid()), status, "{signal}");
    }
}

#[test]
fn a_proxy_that_cannot_wait_is_refused_by_create() {
    let calls = [nix::libc::SYS_rt_sigtimedwait, nix::libc::SYS_signalfd4];
    let (container, created) = create_where(&calls, rustix::io::Errno::PERM, |_| {});
    created.fails(&["wait for signals", "rt_sigtimedwait"]);
    container.left_nothing();
}

/// Nothing can be read of a proxy that has ended, but that is not the error.
#[test]
fn a_refused_step_is_named_before_what_fails_for_want_of_a_proxy() {
    let errno = rustix::io::Errno::PERM;
    let (container, created) = create_where(&[nix::libc::SYS_capset], errno, |container| {
        container.spec_hook("prestart", "/bin/sleep 0.5; exit 3", |_| {});
    });
    created.fails(&["give up its capabilities", "capset is refused (EPERM)"]);
    container.left_nothing();
}

mod only_ours {
    //! The proxy in `ps`.

    use super::*;

    #[test]
    fn the_proxys_command_line_names_the_program_and_the_container() {
        let container = Container::created();
        let arguments = Process(container.pid()).arguments();
        assert_eq!(arguments, ["balena-extension-runtime", "proxy", "--id", &container.id]);
    }

    #[test]
    fn the_proxys_short_name_is_the_programs() {
        let container = Container::created();
        let name = Process(container.pid()).status("Name");
        assert!("balena-extension-runtime".starts_with(&name) && name.len() == 15, "{name}");
    }

    #[test]
    fn the_proxy_keeps_that_name_whatever_the_file_is_called() {
        let container = Container::new();
        let renamed = container.beside("runtime");
        crate::bundle::executable(&renamed, &std::fs::read(programs::runtime()).unwrap());
        let words = container.create_command();
        container.create_by(Command::new(renamed).args(words.get_args())).ok();
        assert_eq!(Process(container.pid()).arguments()[0], "balena-extension-runtime");
    }
}
