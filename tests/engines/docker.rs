//! A dockerd with its own containerd and its own network namespace, so that a test may change the network and
//! kill the daemon while other tests run. Its mount namespace is that of process 1, as on most hosts, or its
//! own ([`Mounts`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::capture::{Captured, start};
use crate::command::{LIMIT, attempt, run};
use crate::engine::{Engine, Status};
use crate::finished::Finished;
use crate::image::Image;
use crate::leftovers::unmount_below;
use crate::process::{poll_within, stop, wait_for_within};
use crate::sandbox::RUNTIME;

/// The mount namespace of a daemon.
#[derive(Clone, Copy)]
pub(crate) enum Mounts {
    /// The mount namespace of process 1.
    OfTheHost,
    /// A copy that receives mounts of the host and propagates none: `MountFlags=slave` of a unit.
    Slave,
    /// A copy without propagation.
    Private,
    /// A copy with propagation in both directions.
    Shared,
}

pub(crate) struct Docker {
    dir: TempDir,
    daemon: Mutex<Child>,
    arguments: Vec<String>,
}

impl Docker {
    /// Starts a daemon that has the runtime as `extension`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_among(Mounts::OfTheHost, arguments)
    }

    /// Starts a daemon in this mount namespace.
    pub(crate) fn start_among(mounts: Mounts, arguments: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("docker").tempdir().unwrap();
        // The file replaces the settings of the machine. It is that of a host, except for the path of the program.
        let snippet = include_str!("../../dist/docker/daemon.json");
        let snippet = snippet.replace("/usr/bin/balena-extension-runtime", RUNTIME);
        assert!(snippet.contains(RUNTIME), "dist/docker/daemon.json names another place");
        fs::write(dir.path().join("daemon.json"), snippet).unwrap();
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let new = Command::new("unshare");
        let daemon = spawn(new, mounts.unshare(), dir.path(), &arguments);
        let docker = Self { dir, daemon: Mutex::new(daemon), arguments };
        docker.await_ready();
        docker
    }

    /// The daemon's process, also if a test failed while it held the lock.
    fn daemon(&self) -> MutexGuard<'_, Child> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_ready(&self) {
        if !self.comes_up() {
            let status = self.daemon().try_wait().unwrap();
            panic!("dockerd did not come up (ended: {status:?}):\n{}", self.daemon_log());
        }
    }

    /// Whether the daemon answers, in time and before it ends.
    fn comes_up(&self) -> bool {
        let came_up = poll_within(LIMIT, || {
            let answers = self.socket().exists() && self.docker(&["version"]).succeeded();
            let ended = || self.daemon().try_wait().unwrap().is_some();
            if answers { Some(true) } else { ended().then_some(false) }
        });
        came_up == Some(true)
    }

    /// Ends the daemon with `signal` and starts it again on the same data, network and mounts.
    pub(crate) fn restart(&self, signal: Signal) {
        self.restart_while(signal, || ());
    }

    /// [`Self::restart`], and calls `meanwhile` while the daemon comes up.
    pub(crate) fn restart_while(&self, signal: Signal, meanwhile: impl FnOnce()) {
        let mut daemon = self.daemon();
        // Its namespaces end with their last process. This process holds them meanwhile.
        let mut holder = nsenter(&daemon).args(["sleep", "300"]).spawn().unwrap();
        wait_for_within(LIMIT, "the holder of the namespaces", || {
            let name = fs::read(format!("/proc/{}/comm", holder.id())).unwrap();
            name.starts_with(b"sleep").then_some(())
        });
        kill(pid(&daemon), signal).unwrap();
        daemon.wait().unwrap();
        *daemon = spawn(nsenter(&holder), &[], self.dir.path(), &self.arguments);
        drop(daemon);
        meanwhile();
        self.await_ready();
        holder.kill().unwrap();
        holder.wait().unwrap();
    }

    /// Stops the daemon, so that it answers nothing any more.
    pub(crate) fn stop_daemon(&self) {
        stop(pid(&self.daemon()).as_raw());
    }

    /// Continues the daemon after a stop.
    pub(crate) fn continue_daemon(&self) {
        kill(pid(&self.daemon()), Signal::SIGCONT).unwrap();
    }

    pub(crate) fn pid_of_daemon(&self) -> u32 {
        self.daemon().id()
    }

    /// Runs the client.
    #[track_caller]
    pub(crate) fn docker(&self, arguments: &[&str]) -> Finished {
        run(self.client().args(arguments))
    }

    /// Starts the client.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Captured {
        start(self.client().args(arguments))
    }

    /// Runs a program in the namespaces that are the host's for this daemon.
    #[track_caller]
    pub(crate) fn on_its_host(&self, arguments: &[&str]) -> Finished {
        let mut command = nsenter(&self.daemon());
        run(command.args(arguments))
    }

    /// The directory of this daemon's files.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// One field of a container, as a Go template; empty if there is no such container.
    pub(crate) fn inspect(&self, name: &str, template: &str) -> String {
        let seen = self.docker(&["inspect", "--type=container", "--format", template, name]);
        seen.out.trim().to_owned()
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The bundle of a running container.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        let tasks = "exec/containerd/daemon/io.containerd.runtime.v2.task/moby";
        self.dir.path().join(tasks).join(id)
    }

    /// The state root that dockerd gives the runtime.
    pub(crate) fn state_root(&self) -> PathBuf {
        self.dir.path().join("exec/runtime-runc/moby")
    }

    fn daemon_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// dockerd asks a containerd of its own that does not answer for its stacks, kills it, and starts another one. The
    /// stacks of a containerd that it did not kill remain, as the trace of a signal that nobody should have sent.
    fn remove_stacks_of_killed_containerds(&self) {
        let log = self.daemon_log();
        for line in log.lines().filter(|line| line.contains("killing and restarting containerd")) {
            if let Some((_, pid)) = line.rsplit_once("pid=") {
                let stacks = format!("containerd.{}.stacks.log", pid.trim());
                let _absent = fs::remove_file(std::env::temp_dir().join(stacks));
            }
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

impl Mounts {
    /// The options of unshare(1) that make its namespaces.
    pub(crate) fn unshare(self) -> &'static [&'static str] {
        match self {
            Self::OfTheHost => &["--net"],
            Self::Slave => &["--net", "--mount", "--propagation=slave"],
            Self::Private => &["--net", "--mount", "--propagation=private"],
            Self::Shared => &["--net", "--mount", "--propagation=unchanged"],
        }
    }
}

/// Starts dockerd in the namespaces that `command` makes or enters.
fn spawn(mut command: Command, options: &[&str], dir: &Path, arguments: &Vec<String>) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let in_dir = |name: &str| dir.join(name).display().to_string();
    command
        .args(options)
        .args(["sh", "-ec", "ip link set lo up; exec dockerd \"$@\"", "sh"])
        .args(["--config-file", &in_dir("daemon.json"), "--pidfile", &in_dir("socket.pid")])
        .args(["--data-root", &in_dir("data"), "--exec-root", &in_dir("exec")])
        .args(["--host", &format!("unix://{}", in_dir("socket"))])
        // The tests need no filter, and the kernel may not have the modules.
        .args(["--iptables=false", "--ip6tables=false", "--userland-proxy=false"])
        .args(["--storage-driver=overlay2", "--bip=172.31.0.1/24"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    // Without --fork, unshare and nsenter become dockerd: the pid is its own.
    command.spawn().unwrap()
}

fn nsenter(process: &Child) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--net", "--target", &process.id().to_string(), "--"]);
    command
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

impl Drop for Docker {
    fn drop(&mut self) {
        let daemon = self.daemon.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = kill(pid(daemon), Signal::SIGCONT);
        let _ = kill(pid(daemon), Signal::SIGTERM);
        let ended = poll_within(LIMIT, || daemon.try_wait().unwrap());
        if ended.is_none() {
            eprintln!("dockerd did not end within {LIMIT:?} of SIGTERM; killing it");
            drop(daemon.kill());
            drop(daemon.wait());
        }
        self.remove_stacks_of_killed_containerds();
        unmount_below(self.dir.path());
    }
}

impl Engine for Docker {
    fn client(&self) -> Command {
        let mut client = Command::new("docker");
        client.arg("--host").arg(format!("unix://{}", self.socket().display()));
        client
    }

    fn import(&self, image: &Image) {
        let layer = image.tar();
        run(self.client().arg("import").args(image.changes()).arg(layer).arg(&image.name)).ok();
    }

    fn remove_image(&self, image: &Image) {
        attempt(self.client().args(["rmi", "--force", &image.name]));
    }

    fn begin_run(&self, name: &str, image: &Image, arguments: &[&str]) -> Captured {
        let words = ["run", "--runtime=extension", "--name", name];
        start(self.client().args(words).args(arguments).arg(&image.name))
    }

    fn start(&self, name: &str) -> Finished {
        self.docker(&["start", "--attach", name])
    }

    fn remove(&self, name: &str) -> Finished {
        self.docker(&["rm", name])
    }

    fn force_remove(&self, name: &str) {
        attempt(self.client().args(["rm", "--force", name]));
    }

    fn status(&self, name: &str) -> Status {
        let seen = self.inspect(name, "{{.State.Status}} {{.State.ExitCode}}");
        match seen.split_once(' ') {
            Some(("exited", code)) => Status::Exited(code.parse().unwrap()),
            Some(("running" | "restarting", _)) => Status::Running,
            _ => Status::NotRun,
        }
    }

    fn id(&self, name: &str) -> String {
        // Not `inspect`, which waits until the start of the container is over.
        let filter = format!("name=^{name}$");
        let listed = self.docker(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter]);
        listed.out.trim().to_owned()
    }

    fn logs(&self, name: &str) -> String {
        self.docker(&["logs", name]).ok().text()
    }

    fn pid_file(&self, id: &str) -> PathBuf {
        self.bundle(id).join("init.pid")
    }

    fn error(&self, operation: &str, reason: &str) -> String {
        format!("OCI runtime {operation} failed: {reason}: unknown")
    }

    fn failure_code(&self) -> i32 {
        125
    }
}
