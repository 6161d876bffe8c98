//! A containerd without an engine, driven by `ctr`, with annotations instead of labels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::capture::{Captured, start};
use crate::command::{LIMIT, attempt, run};
use crate::engine::{Engine, Status};
use crate::finished::Finished;
use crate::image::Image;
use crate::process::wait_for_within;
use crate::sandbox::RUNTIME;

/// A configuration without the CRI plugin.
const PLAIN: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

pub(crate) struct Containerd {
    dir: TempDir,
    daemon: Mutex<Child>,
    /// The command that starts the daemon: unshare(1) with options if it has its own mounts.
    launcher: &'static [&'static str],
}

fn spawn(launcher: &[&str], dir: &Path) -> Child {
    let in_dir = |name: &str| dir.join(name);
    let log = fs::File::options().create(true).append(true).open(in_dir("log")).unwrap();
    let words = [launcher, &["containerd"]].concat();
    Command::new(words[0])
        .args(&words[1..])
        .args(["--config".into(), in_dir("config.toml"), "--root".into(), in_dir("root")])
        .args(["--state".into(), in_dir("state"), "--address".into(), in_dir("socket")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

impl Containerd {
    pub(crate) fn start() -> Self {
        Self::launch(&[], |_| PLAIN.to_owned())
    }

    /// Starts one with its own mount namespace, which does not propagate to the host.
    pub(crate) fn start_apart() -> Self {
        Self::launch(&["unshare", "--mount", "--propagation=slave"], |_| PLAIN.to_owned())
    }

    /// Starts one with the configuration that `configure` makes for its directory.
    pub(crate) fn start_with(configure: impl FnOnce(&Path) -> String) -> Self {
        Self::launch(&[], configure)
    }

    fn launch(launcher: &'static [&'static str], configure: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("containerd").tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), configure(dir.path())).unwrap();
        let daemon = Mutex::new(spawn(launcher, dir.path()));
        let containerd = Self { dir, daemon, launcher };
        containerd.await_ready();
        containerd
    }

    /// Ends the daemon with `signal` and starts it again on the same data.
    pub(crate) fn restart(&self, signal: Signal) {
        let mut daemon = self.daemon.lock().unwrap();
        let _ = kill(pid(&daemon), signal);
        daemon.wait().unwrap();
        *daemon = spawn(self.launcher, self.dir.path());
        drop(daemon);
        self.await_ready();
    }

    fn await_ready(&self) {
        wait_for_within(LIMIT, "containerd", || self.ctr(&["version"]).succeeded().then_some(()));
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the client.
    #[track_caller]
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Finished {
        run(self.client().args(arguments))
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join("state/io.containerd.runtime.v2.task/default").join(id)
    }

    /// The shell command of a run in the foreground.
    pub(crate) fn foreground(&self, name: &str, image: &Image, options: &str) -> String {
        let labels = image.labels.iter().map(|(key, value)| format!("--annotation={key}={value}"));
        let (socket, labels) = (self.dir.path().join("socket"), labels.collect::<Vec<_>>());
        format!(
            "ctr --address {} run --runc-binary {RUNTIME} {} {options} {} {name}",
            socket.display(),
            labels.join(" "),
            reference(image),
        )
    }

    fn log_of(&self, name: &str) -> String {
        format!("file://{}/{name}.log", self.dir.path().display())
    }
}

fn reference(image: &Image) -> String {
    format!("docker.io/library/{}:latest", image.name)
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let daemon = self.daemon.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = kill(pid(daemon), Signal::SIGTERM);
        drop(daemon.wait());
    }
}

impl Engine for Containerd {
    fn client(&self) -> Command {
        let mut client = Command::new("ctr");
        client.arg("--address").arg(self.dir.path().join("socket"));
        client
    }

    fn import(&self, image: &Image) {
        let archive = image.archive(&reference(image));
        run(self.client().args(["image", "import"]).arg(archive)).ok();
    }

    fn remove_image(&self, image: &Image) {
        attempt(self.client().args(["image", "remove", "--sync", &reference(image)]));
    }

    fn begin_run(&self, name: &str, image: &Image, arguments: &[&str]) -> Captured {
        let labels = image.labels.iter().map(|(key, value)| format!("--annotation={key}={value}"));
        let mut command = self.client();
        command.args(["run", "--detach", "--runc-binary", RUNTIME]);
        command.args(["--log-uri", &self.log_of(name)]);
        command.args(labels).args(arguments).arg(reference(image)).arg(name);
        start(&mut command)
    }

    fn start(&self, name: &str) -> Finished {
        // The task of the last run remains until it is removed.
        drop(self.ctr(&["task", "remove", name]));
        self.ctr(&["task", "start", "--detach", "--log-uri", &self.log_of(name), name])
    }

    fn remove(&self, name: &str) -> Finished {
        if self.status(name) != Status::NotRun {
            self.ctr(&["task", "remove", name]).ok();
        }
        self.ctr(&["container", "remove", name])
    }

    fn force_remove(&self, name: &str) {
        attempt(self.client().args(["task", "remove", "--force", name]));
        attempt(self.client().args(["container", "remove", name]));
    }

    fn status(&self, name: &str) -> Status {
        let listed = self.ctr(&["task", "list"]).out;
        let mut rows = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        match rows.find(|row| row.first() == Some(&name)).and_then(|row| row.get(2).copied()) {
            // ctr only reports the exit status of a foreground run.
            Some("STOPPED") => Status::Exited(0),
            Some("RUNNING") => Status::Running,
            _ => Status::NotRun,
        }
    }

    fn id(&self, name: &str) -> String {
        name.to_owned()
    }

    fn logs(&self, name: &str) -> String {
        let log = self.log_of(name);
        fs::read_to_string(log.trim_start_matches("file://")).unwrap_or_default()
    }

    fn pid_file(&self, id: &str) -> PathBuf {
        self.bundle(id).join("init.pid")
    }

    fn error(&self, operation: &str, reason: &str) -> String {
        format!("OCI runtime {operation} failed: {reason}: unknown")
    }

    fn failure_code(&self) -> i32 {
        1
    }
}
