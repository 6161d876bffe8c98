//! The caller, and the paths of state, pid file and log.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::{Afterwards, Check, Row, check};
use crate::container::Container;
use crate::finished::Finished;
use crate::process;
use crate::programs;

/// Runs `verb` as user 65534, with a copy of the program that this user can execute.
fn as_nobody(container: &Container, verb: &[&str]) -> Finished {
    let program = container.beside("runtime");
    crate::bundle::executable(&program, &std::fs::read(programs::runtime()).unwrap());
    for path in [&container.beside(""), container.root()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let words = container.command(&[verb, &[&container.id]].concat());
    let mut command = Command::new(program);
    let finished = container.finish(command.args(words.get_args()).uid(65534).gid(65534));
    std::fs::set_permissions(container.beside(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    finished
}

/// A shell in its own mount namespace. The shell is process 1 there, because hooks of an image run in the mount
/// namespace of process 1. A proxy that `create` leaves behind would end with the shell, so the scripts look
/// for it: see [`NO_PROXY`].
fn shell_apart(script: &str, words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", script, "sh"]).args(words);
    command
}

/// Ends the shell with 97 if a proxy is left. (The brackets keep the shell and grep out of it; a zombie
/// has no command line.)
const NO_PROXY: &str = r#"! grep -l "prox[y]" /proc/[0-9]*/cmdline 2>/dev/null || exit 97"#;

/// Creates a container with a full tmpfs of these options over `folder`, in its own mount namespace. Fails
/// unless the tmpfs is unchanged afterwards.
fn create_over(container: &Container, options: &str, folder: &Path) -> Finished {
    let script = format!(
        r#"mount -t tmpfs -o "$1" it "$2" || exit 99
        folder=$2
        shift 2
        head -c 65536 /dev/zero > "$folder/filler" 2> /dev/null
        before=$(ls -A "$folder")
        "$@"
        status=$?
        [ "$before" = "$(ls -A "$folder")" ] || {{ echo "left: $(ls -A "$folder")"; exit 98; }}
        {NO_PROXY}
        exit $status"#
    );
    let words = container.create_command();
    let mut command = shell_apart(&script, &[options]);
    command.arg(folder).arg(words.get_program()).args(words.get_args());
    let finished = container.create_by(&mut command);
    assert!(finished.code() < 97, "{finished}");
    finished
}

fn create_with_pid_file(container: &Container, path: &Path) -> Finished {
    let mut command = container.command(&["create", "-b", container.text(), "--pid-file"]);
    container.create_by(command.arg(path).arg(&container.id))
}

fn create_with_root(container: &Container, root: &Path) -> Finished {
    let mut command = Command::new(programs::runtime());
    command.arg("--log").arg(container.log_file()).args(["--log-format", "json", "--root"]);
    command.arg(root).args(["create", "-b", container.text(), &container.id]);
    container.create_by(&mut command)
}

const USER: &[&str] = &["root", "65534"];

const ROWS: &[Row] = &[
    Row {
        what: "create by nobody",
        names: USER,
        explains: &["hooks change the host"],
        call: |c| as_nobody(c, &["create", "-b", c.text()]),
    },
    Row {
        what: "start by nobody",
        names: USER,
        explains: &["must run as root"],
        call: |c| as_nobody(c, &["start"]),
    },
    Row {
        what: "kill by nobody",
        names: USER,
        explains: &["must run as root"],
        call: |c| as_nobody(c, &["kill"]),
    },
    Row {
        what: "delete by nobody",
        names: USER,
        explains: &["must run as root"],
        call: |c| as_nobody(c, &["delete", "--force"]),
    },
    Row {
        what: "run by nobody",
        names: USER,
        explains: &["must run as root"],
        call: |c| as_nobody(c, &["run", "-b", c.text()]),
    },
    Row {
        what: "read-only state root",
        names: &["{root}/{id}"],
        explains: &["read-only", "--root"],
        call: |c| create_over(c, "ro", c.root()),
    },
    Row {
        what: "full state root, no room for a folder",
        names: &["{root}/{id}"],
        explains: &["full", "--root"],
        call: |c| create_over(c, "nr_inodes=2", c.root()),
    },
    Row {
        what: "full state root, no room for a file",
        names: &["{root}/{id}"],
        explains: &["full"],
        call: |c| create_over(c, "nr_inodes=3", c.root()),
    },
    Row {
        what: "full state root, no room for a byte",
        names: &["{root}/{id}"],
        explains: &["full"],
        call: |c| create_over(c, "size=16k", c.root()),
    },
    Row {
        what: "state root a file",
        names: &["/etc/passwd"],
        explains: &["--root"],
        call: |c| create_with_root(c, Path::new("/etc/passwd")),
    },
    Row {
        what: "state root below a file",
        names: &["/etc/passwd/x"],
        explains: &["--root"],
        call: |c| create_with_root(c, Path::new("/etc/passwd/x")),
    },
    Row {
        what: "state root in /proc",
        names: &["/proc/none"],
        explains: &["--root"],
        call: |c| create_with_root(c, Path::new("/proc/none")),
    },
    Row {
        what: "id longer than a file name",
        names: &["xxx"],
        explains: &["file name is too long"],
        call: |c| {
            let id = "x".repeat(300);
            c.create_by(&mut c.command(&["create", "-b", c.text(), &id]))
        },
    },
    Row {
        what: "pid file in a missing folder",
        names: &["{folder}/none/pid"],
        explains: &["--pid-file", "missing"],
        call: |c| create_with_pid_file(c, &c.beside("none/pid")),
    },
    Row {
        what: "pid file a folder",
        names: &["{folder}"],
        explains: &["--pid-file", "a directory"],
        call: |c| create_with_pid_file(c, &c.beside("")),
    },
    Row {
        what: "pid file below a file",
        names: &["/etc/passwd/pid"],
        explains: &["--pid-file", "a directory"],
        call: |c| create_with_pid_file(c, Path::new("/etc/passwd/pid")),
    },
    Row {
        what: "pid file in /proc",
        names: &["/proc/pid"],
        explains: &["--pid-file"],
        call: |c| create_with_pid_file(c, Path::new("/proc/pid")),
    },
    Row {
        what: "pid file on a read-only filesystem",
        names: &["/pids/init.pid"],
        explains: &["--pid-file", "read-only"],
        call: |c| on_a_mount(c, "ro"),
    },
    Row {
        what: "pid file on a full filesystem",
        names: &["/pids/init.pid"],
        explains: &["--pid-file", "full"],
        call: |c| on_a_mount(c, "size=16k"),
    },
];

/// The pid file is on its own filesystem.
fn on_a_mount(container: &Container, options: &str) -> Finished {
    let folder = container.beside("pids");
    std::fs::create_dir(&folder).unwrap();
    let pid_file = folder.join("init.pid");
    let script = format!(
        r#"mount -t tmpfs -o "$1" it "$2" || exit 99
        head -c 65536 /dev/zero > "$2/filler" 2> /dev/null
        shift 2; "$@"
        status=$?
        {NO_PROXY}
        exit $status"#
    );
    let words = container.command(&[
        "create",
        "-b",
        container.text(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        &container.id,
    ]);
    let mut command = shell_apart(&script, &[options]);
    command.arg(folder).arg(words.get_program()).args(words.get_args());
    let finished = container.create_by(&mut command);
    assert!(finished.code() < 97, "{finished}");
    finished
}

#[test]
fn a_place_that_cannot_be_used_is_named_and_nothing_is_left() {
    check(ROWS, Check::Names, Afterwards::Nothing);
}

/// The log itself is tested in `log.rs`. A log on a full disk must not stop a container.
#[test]
fn a_log_that_cannot_be_written_fails_nothing() {
    let container = Container::new();
    let mut command = Command::new(programs::runtime());
    command.arg("--root").arg(container.root()).args([
        "--log",
        "/dev/full",
        "--log-format",
        "json",
    ]);
    container.create_by(command.args(["create", "-b", container.text(), &container.id])).ok();
    assert_eq!(container.status(), "created");
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let container = Container::created();
    for words in
        [&["state", &container.id][..], &["list"], &["features"], &["--help"], &["--version"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = container.command(words);
        let code = process::start(command.stdout(full).stderr(std::process::Stdio::null())).wait();
        assert_eq!(code, 1, "{words:?}");
    }
    container.new_log_lines();
}

mod only_ours {
    //! The cause and the fix in the error.

    use super::*;

    #[test]
    fn a_place_that_cannot_be_used_is_explained() {
        check(ROWS, Check::Explains, Afterwards::Nothing);
    }
}
