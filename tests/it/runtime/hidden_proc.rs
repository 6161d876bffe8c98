//! A `/proc` that does not show enough: it is missing, belongs to another PID namespace, or the kernel has no
//! lists of children. A process that cannot be seen has not necessarily ended.

use std::process::Command;

use crate::container::Container;
use crate::finished::Finished;
use crate::process;

/// A call behind unshare(1) with these words.
#[track_caller]
fn behind(unshare: &[&str], container: &Container, words: &[&str]) -> Finished {
    let call = container.command(words);
    let mut command = Command::new("unshare");
    command.args(unshare).arg(call.get_program()).args(call.get_args());
    container.finish(&mut command)
}

#[test]
fn without_the_proc_of_this_pid_namespace_no_live_proxy_counts_as_ended() {
    let nothing = [
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        "mount -t tmpfs none /proc && exec \"$@\"",
        "sh",
    ];
    let parents = ["--pid", "--fork", "--kill-child"];
    for unshare in [&nothing[..], &parents] {
        let container = Container::created();
        let id = container.id.as_str();
        let verbs = [
            &["state", id][..],
            &["list"],
            &["ps", "--format", "json", id],
            &["kill", id, "TERM"],
            &["start", id],
            &["delete", id],
            &["delete", "--force", id],
        ];
        for words in verbs {
            behind(unshare, &container, words).fails(&["/proc"]);
        }
        let another = Container::new();
        let bundle = ["create", "--bundle", another.text(), &another.id];
        behind(unshare, &another, &bundle).fails(&["/proc"]);
        another.left_nothing();
        assert_eq!(container.status(), "created");
        assert!(process::is_alive(container.pid()));
    }
}

#[test]
fn a_process_whose_command_line_cannot_be_read_may_be_the_proxy_of_a_damaged_state() {
    let container = Container::created();
    let pid = container.pid();
    let state = container.root().join(&container.id).join("state.json");
    std::fs::write(state, r#"{"role":"extension","pid":"lost"#).unwrap();
    let script = "mount -t proc -o hidepid=1,gid=65534 proc /proc && \
        exec setpriv --reuid 0 --bounding-set -sys_ptrace --inh-caps -sys_ptrace \"$@\"";
    let unshare = ["--mount", "--propagation=private", "sh", "-c", script, "sh"];
    let finished = behind(&unshare, &container, &["delete", "--force", container.id.as_str()]).ok();
    let expected = "cannot determine which process is its proxy: the command lines of some";
    assert!(finished.warnings().contains(expected), "{finished}");
    assert!(process::is_alive(pid));
    process::end(pid);
    container.left_nothing();
}

/// The kernel of this machine has the lists, so the test changes their name in a copy of the program.
fn without_lists_of_children(container: &Container) -> std::path::PathBuf {
    let mut program = std::fs::read(crate::programs::runtime()).unwrap();
    let name = b"children";
    let places: Vec<usize> = program
        .windows(name.len())
        .enumerate()
        .filter_map(|(at, window)| (window == name).then_some(at))
        .collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| program[at] = b'C');
    let copy = container.beside("runtime");
    crate::bundle::executable(&copy, &program);
    copy
}

#[test]
fn the_children_of_a_failed_hook_are_killed_on_a_kernel_without_lists_of_children() {
    let container = Container::new();
    let program = without_lists_of_children(&container);
    container.hook("create", "setsid sleep 1000 & (setsid sleep 1000 &); sleep 0.1; exit 3");
    let words = container.create_command();
    let created = container.create_by(Command::new(&program).args(words.get_args()));
    created.fails(&["hooks/create exited with status 3"]);
    container.left_nothing();
}

#[test]
fn the_children_of_a_killed_guard_are_killed_on_a_kernel_without_lists_of_children() {
    let container = Container::new();
    let program = without_lists_of_children(&container);
    container.hook("create", "setsid sleep 1000 & kill -KILL $PPID; sleep 1000");
    let words = container.create_command();
    let created = container.create_by(Command::new(&program).args(words.get_args()));
    created.fails(&["hooks/create", "guard"]);
    container.left_nothing();
}
