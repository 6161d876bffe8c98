//! One container under test: its bundle, state root, pid file and log, and the commands on it.

use crate::bundle::Bundle;
use crate::finished::Finished;
use crate::kind::Kind;
use crate::leftovers;
use crate::processes;
use crate::trial_process;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A container with a directory of its own.
pub(crate) struct Container {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    /// The name of the proxy's cgroup in every hierarchy.
    pub(crate) cgroup: String,
    pub(crate) bundle: Bundle,
    folder: PathBuf,
    runtime: PathBuf,
    console: Option<UnixListener>,
    pub(crate) mounts: String,
}

/// One call of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Create,
    Start,
    Kill(&'static str),
    KillAll(&'static str),
    Delete,
    ForceDelete,
    Run,
    State,
    List,
    Ps,
}

impl Container {
    /// Prepares a container of `kind` in the directory `name` of the scratch space.
    pub(crate) fn new(name: &str, kind: Kind) -> Self {
        let folder = trial_process::scratch().join(name);
        let cgroup = format!("{}-{name}", trial_process::cgroup_prefix());
        let bundle = kind.bundle(&folder.join("bundle"), &cgroup);
        let mut container = Self {
            kind,
            id: "x".to_owned(),
            cgroup,
            bundle,
            folder,
            runtime: trial_process::runtime(),
            console: None,
            mounts: String::new(),
        };
        container.reset();
        container.mounts = mounts();
        container
    }

    /// Removes everything but the bundle.
    pub(crate) fn reset(&mut self) {
        processes::kill_all();
        processes::reap();
        for path in leftovers::cgroups(&self.cgroup) {
            let _ = fs::remove_dir(path);
        }
        let own = ["root", "pids", "log", "console"].map(|name| self.folder.join(name));
        for path in own.into_iter().chain([trial_process::records()]) {
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
        fs::create_dir(self.pid_file().parent().unwrap()).unwrap();
        if self.kind == Kind::Console {
            self.console = Some(UnixListener::bind(self.folder.join("console")).unwrap());
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The container's directory in the state root.
    pub(crate) fn state_folder(&self) -> PathBuf {
        self.root().join(&self.id)
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.folder.join("pids").join(&self.id)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The command of `call`, with an empty log.
    pub(crate) fn command(&self, call: Call) -> Command {
        if call != Call::State {
            let _ = fs::remove_file(self.log());
        }
        self.command_keeping_the_log(call)
    }

    /// The command of `call`. `state` has no log, so that the log of the verb before it is kept.
    pub(crate) fn command_keeping_the_log(&self, call: Call) -> Command {
        let mut command = self.base();
        if call != Call::State {
            command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        }
        self.finish(command, call)
    }

    /// The command of `call` without a log.
    pub(crate) fn command_without_a_log(&self, call: Call) -> Command {
        self.finish(self.base(), call)
    }

    /// Another container of the same bundle, under the same state root.
    pub(crate) fn sibling(&self, id: &str) -> Sibling<'_> {
        Sibling { container: self, id: id.to_owned() }
    }

    fn base(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.env_clear().env("PATH", "/usr/bin:/bin").arg("--root").arg(self.root());
        command
    }

    fn finish(&self, command: Command, call: Call) -> Command {
        self.finish_for(&self.id, command, call)
    }

    fn finish_for(&self, id: &str, mut command: Command, call: Call) -> Command {
        let pid_file = self.folder.join("pids").join(id);
        match call {
            Call::Create => self.with_create_flags(command.arg("create"), &pid_file),
            Call::Run => self.with_create_flags(command.arg("run"), &pid_file),
            Call::Start => command.arg("start"),
            Call::Kill(_) => command.arg("kill"),
            Call::KillAll(_) => command.args(["kill", "--all"]),
            Call::Delete => command.arg("delete"),
            Call::ForceDelete => command.args(["delete", "--force"]),
            Call::State => command.arg("state"),
            Call::List => return with(command, &["list", "--format", "json"]),
            Call::Ps => command.args(["ps", "--format", "json"]),
        };
        command.arg(id);
        if let Call::Kill(signal) | Call::KillAll(signal) = call {
            command.arg(signal);
        }
        command
    }

    fn with_create_flags<'a>(&self, command: &'a mut Command, pid_file: &Path) -> &'a mut Command {
        command.arg("--bundle").arg(self.bundle.text()).arg("--pid-file").arg(pid_file);
        if self.kind == Kind::Console {
            command.arg("--console-socket").arg(self.folder.join("console"));
        }
        command
    }

    /// Runs `call` to its end.
    pub(crate) fn run(&self, call: Call) -> Finished {
        processes::run(&mut self.command(call))
    }

    /// The message of the last error in the log.
    pub(crate) fn logged_error(&self) -> Option<String> {
        let text = fs::read_to_string(self.log()).ok()?;
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut errors = lines.filter(|line: &serde_json::Value| line["level"] == "error");
        errors.next_back()?["msg"].as_str().map(str::to_owned)
    }

    /// The contents of `state.json`, which may be out of date.
    pub(crate) fn recorded(&self) -> Option<serde_json::Value> {
        let bytes = fs::read(self.state_folder().join("state.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

fn with(mut command: Command, words: &[&str]) -> Command {
    command.args(words);
    command
}

/// Another container with the same bundle and state root.
pub(crate) struct Sibling<'a> {
    container: &'a Container,
    id: String,
}

impl Sibling<'_> {
    pub(crate) fn command_keeping_the_log(&self, call: Call) -> Command {
        let mut command = self.container.base();
        command.arg("--log").arg(self.container.log()).args(["--log-format", "json"]);
        self.container.finish_for(&self.id, command, call)
    }
}

impl Drop for Container {
    /// Everything except cgroups ends with the namespaces.
    fn drop(&mut self) {
        self.reset();
    }
}

/// The mount table of this namespace.
pub(crate) fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// The names in a directory, sorted; empty if it does not exist.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
