//! A container of a test, with its own scratch directories, and the calls that an engine makes for it. When it
//! is dropped, it is deleted, and nothing of it may be left.

use std::cell::Cell;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::capture;
use crate::finished::Finished;
use crate::{leftovers, process};

/// TMPFS_MAGIC of statfs(2).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// A container, created or not. It dereferences to its [`Bundle`].
pub(crate) struct Container {
    /// The unique id, and the name of both directories.
    pub(crate) id: String,
    bundle: Bundle,
    /// The state root, on a tmpfs if the machine has one, which is faster.
    root: TempDir,
    /// All other files. Hooks must be executable there, which they often are not in `/dev/shm`.
    folder: TempDir,
    log_read: Cell<usize>,
}

impl Deref for Container {
    type Target = Bundle;

    fn deref(&self) -> &Bundle {
        &self.bundle
    }
}

impl Container {
    /// A container of an extension without hooks, not created yet.
    pub(crate) fn new() -> Self {
        process::adopt_orphans();
        let folder = tempfile::Builder::new().prefix("it-").tempdir().unwrap();
        let id = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        let memory = Path::new("/dev/shm");
        let is_tmpfs = rustix::fs::statfs(memory).is_ok_and(|found| found.f_type == TMPFS);
        let base = if is_tmpfs { memory.to_owned() } else { std::env::temp_dir() };
        let root =
            tempfile::Builder::new().prefix(&format!("{id}-root-")).tempdir_in(base).unwrap();
        let bundle = Bundle::new(&folder.path().join("bundle"));
        Self { id, bundle, root, folder, log_read: Cell::new(0) }
    }

    /// A created container of an extension without hooks.
    pub(crate) fn created() -> Self {
        let container = Self::new();
        container.create().ok();
        container
    }

    /// A container that has been started and so has stopped.
    pub(crate) fn stopped() -> Self {
        let container = Self::created();
        container.start().ok();
        container
    }

    /// A path next to the bundle.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.beside("log.json")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.beside("init.pid")
    }

    /// The runtime with the global flags of containerd's shim, and without the test's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::programs::runtime());
        command.env_clear();
        command.arg("--root").arg(self.root()).arg("--log").arg(self.log_file());
        command.args(["--log-format", "json"]).args(arguments);
        command
    }

    /// Runs the runtime with these arguments.
    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str]) -> Finished {
        self.finish(&mut self.command(arguments))
    }

    /// Runs `command`, which may log to this container's file.
    #[track_caller]
    pub(crate) fn finish(&self, command: &mut Command) -> Finished {
        let mut finished = capture::run(command);
        finished.log = self.new_log_lines();
        finished
    }

    /// The lines of the log since the last call of this.
    #[track_caller]
    pub(crate) fn new_log_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let start = self.log_read.replace(text.len());
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        text[start..].lines().map(parse).collect()
    }

    /// `create` with the arguments of containerd's shim.
    pub(crate) fn create_command(&self) -> Command {
        let mut command = self.command(&["create", "--bundle"]);
        command.arg(self.text()).arg("--pid-file").arg(self.pid_file()).arg(&self.id);
        command
    }

    /// Calls `create`. Its streams are the container's log: see [`Self::printed`].
    #[track_caller]
    pub(crate) fn create(&self) -> Finished {
        self.create_by(&mut self.create_command())
    }

    /// Calls `create` with a command that a test has changed.
    #[track_caller]
    pub(crate) fn create_by(&self, command: &mut Command) -> Finished {
        command.stdin(std::process::Stdio::null());
        command.stdout(self.beside_file("stdout")).stderr(self.beside_file("stderr"));
        let mut started = process::start(command);
        let end = process::wait_for("create", || started.ended());
        let (out, err) = (self.printed(), self.complained());
        let command = capture::describe(command);
        Finished { command, end, out, err, log: self.new_log_lines() }
    }

    /// Opens a file next to the bundle for a stream.
    pub(crate) fn beside_file(&self, name: &str) -> std::fs::File {
        std::fs::File::options().append(true).create(true).open(self.beside(name)).unwrap()
    }

    /// The container's log of standard output.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(self.beside("stdout")).unwrap_or_default()
    }

    /// The container's log of standard error.
    pub(crate) fn complained(&self) -> String {
        std::fs::read_to_string(self.beside("stderr")).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Finished {
        self.call(&["start", &self.id])
    }

    #[track_caller]
    pub(crate) fn kill(&self, signal: &str) -> Finished {
        self.call(&["kill", &self.id, signal])
    }

    #[track_caller]
    pub(crate) fn delete(&self) -> Finished {
        self.call(&["delete", &self.id])
    }

    #[track_caller]
    pub(crate) fn delete_by_force(&self) -> Finished {
        self.call(&["delete", "--force", &self.id])
    }

    /// What `state` prints.
    #[track_caller]
    pub(crate) fn state(&self) -> Value {
        self.call(&["state", &self.id]).ok().json()
    }

    /// The status that `state` prints.
    #[track_caller]
    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// The proxy's pid from the pid file, as engines read it.
    #[track_caller]
    pub(crate) fn pid(&self) -> i32 {
        std::fs::read_to_string(self.pid_file()).unwrap().parse().unwrap()
    }

    /// The names in the state root.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Fails the test if anything is left of a container that was not created or is deleted.
    #[track_caller]
    pub(crate) fn left_nothing(&self) {
        assert_eq!(self.recorded(), [""; 0], "left in the state root");
        process::wait_for("the last process to be gone", || {
            leftovers::processes(&self.id).is_empty().then_some(())
        });
        assert!(leftovers::cgroups(&self.id).is_empty(), "{:?}", leftovers::cgroups(&self.id));
        assert_eq!(leftovers::mounts(&self.id), [""; 0]);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for id in self.recorded() {
            capture::run(&mut self.command(&["delete", "--force", &id]));
        }
        if !std::thread::panicking() {
            return self.left_nothing();
        }
        // The test has failed already, and the rest could disturb others.
        for pid in leftovers::processes(&self.id) {
            process::end(pid);
        }
        for cgroup in leftovers::cgroups(&self.id) {
            let _reported_by_the_failure = std::fs::remove_dir(cgroup);
        }
    }
}
