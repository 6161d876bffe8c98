//! Podman with its own store. It has no daemon: every command runs conmon and the runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use crate::capture::{Captured, start};
use crate::command::{LIMIT, attempt, run};
use crate::engine::{Engine, Status};
use crate::finished::Finished;
use crate::image::Image;
use crate::leftovers::unmount_below;
use crate::process::wait_for_within;
use crate::processes::assert_no_process;
use crate::sandbox::RUNTIME;

pub(crate) struct Podman {
    dir: TempDir,
    /// More options for every command.
    options: Vec<String>,
    /// The process that holds the network and mount namespaces of this Podman's host, if it has its own.
    holder: Option<Child>,
    /// Disables the firewall: the tests need bridges, but the kernel may not have netfilter.
    without_firewall: bool,
}

impl Podman {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("podman").tempdir().unwrap();
        Self { dir, options: Vec::new(), holder: None, without_firewall: false }
    }

    /// Adds options to every command.
    pub(crate) fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// The directory of its images and containers.
    pub(crate) fn graph_root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A Podman with its own network namespace, which only has the interfaces that it makes. It also has its
    /// own mounts, because `/run/netns` remains a mount once it has made a network.
    pub(crate) fn apart() -> Self {
        let mut podman = Self::new();
        // Shared with each other, as on a host, but not with the sandbox.
        let script = "mount --make-rshared /; exec sleep 300";
        let held = ["--mount", "--net", "sh", "-ec", script];
        let holder = Command::new("unshare").args(held).spawn().unwrap();
        wait_for_within(LIMIT, "the holder of the namespaces", || {
            let name = fs::read(format!("/proc/{}/comm", holder.id())).unwrap();
            name.starts_with(b"sleep").then_some(())
        });
        podman.holder = Some(holder);
        // The netavark of 4.3 needs a firewall, and iptables suffices.
        podman.without_firewall = !podman.podman(&["--version"]).ok().out.contains("version 4.");
        podman
    }

    /// A command in the namespaces that are the host's for this Podman.
    pub(crate) fn on_its_host(&self, program: &str) -> Command {
        let Some(holder) = &self.holder else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--target", &holder.id().to_string(), "--", program]);
        command
    }

    #[track_caller]
    pub(crate) fn podman(&self, arguments: &[&str]) -> Finished {
        run(self.client().args(arguments))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            drop(holder.kill());
            drop(holder.wait());
        }
        // The last command of conmon mounts the store again.
        assert_no_process(self.dir.path().file_name().and_then(|name| name.to_str()).unwrap());
        unmount_below(self.dir.path());
    }
}

impl Engine for Podman {
    fn client(&self) -> Command {
        let mut client = self.on_its_host("podman");
        if self.without_firewall {
            client.env("NETAVARK_FW", "none");
        }
        let in_dir = |name: &str| self.dir.path().join(name);
        // With a user namespace, Podman 5 leaves a directory there.
        client.env("TMPDIR", self.dir.path());
        // Otherwise Podman 5 writes a warning about cgroups into every log.
        client.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        client
            .args(["--root".into(), in_dir("root"), "--runroot".into(), in_dir("run")])
            .args(["--tmpdir".into(), in_dir("tmp"), "--network-config-dir".into(), in_dir("net")])
            .args(["--storage-driver=overlay", "--cgroup-manager=cgroupfs"])
            .args(["--events-backend=none", "--runtime", RUNTIME])
            .args(&self.options);
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
        let words = ["run", "--name", name, "--log-driver=k8s-file"];
        let mut command = self.client();
        if !arguments.iter().any(|word| word.starts_with("--network")) {
            // Otherwise Podman makes its bridge in the network namespace of all tests.
            command.args(words).arg("--network=none");
        } else {
            command.args(words);
        }
        command.args(arguments).arg(&image.name);
        start(&mut command)
    }

    fn start(&self, name: &str) -> Finished {
        self.podman(&["start", name])
    }

    fn start_after_failure(&self, name: &str) -> Finished {
        // Podman 5 treats it as initialized until it is stopped. 4.3 notices by itself.
        self.podman(&["stop", "--time=1", name]).ok();
        self.start(name)
    }

    fn remove(&self, name: &str) -> Finished {
        self.podman(&["rm", name])
    }

    fn force_remove(&self, name: &str) {
        attempt(self.client().args(["rm", "--force", "--time=1", name]));
    }

    fn status(&self, name: &str) -> Status {
        let template = "{{.State.Status}} {{.State.ExitCode}}";
        let seen = self.podman(&["inspect", "--type=container", "--format", template, name]);
        match seen.out.trim().split_once(' ') {
            Some(("exited", code)) => Status::Exited(code.parse().unwrap()),
            Some(("running", _)) => Status::Running,
            _ => Status::NotRun,
        }
    }

    fn id(&self, name: &str) -> String {
        let filter = format!("name=^{name}$");
        let listed = self.podman(&["ps", "--all", "--no-trunc", "--quiet", "--filter", &filter]);
        listed.out.trim().to_owned()
    }

    fn id_of_bundle(&self, bundle: &Path) -> String {
        // …/ID/userdata
        bundle.parent().and_then(Path::file_name).unwrap().to_str().unwrap().to_owned()
    }

    fn logs(&self, name: &str) -> String {
        self.podman(&["logs", name]).ok().text()
    }

    fn pid_file(&self, id: &str) -> PathBuf {
        self.dir.path().join("run/overlay-containers").join(id).join("userdata/pidfile")
    }

    fn error(&self, _operation: &str, reason: &str) -> String {
        reason.to_owned()
    }

    fn failure_code(&self) -> i32 {
        126
    }
}
