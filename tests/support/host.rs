//! A host for the manager: a directory that is used as `/`, and the engine's socket in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::capture::run;
use super::finished::Finished;
use super::process;
use super::recorded_engine::{Answer, Engine};
use super::recorded_store::Store;

pub(crate) struct Host(TempDir);

/// The line of `/proc/mounts` for a boot partition.
pub(crate) const BOOT: &str = "/dev/sda1 /mnt/boot vfat rw 0 0\n";
/// The first line of a boot environment block.
pub(crate) const BLOCK: &str = "# GRUB Environment Block\n";

impl Host {
    /// A host with kernel 6.1.0 and OS version 2.113.4 that does not boot with GRUB.
    pub(crate) fn new() -> Self {
        process::adopt_orphans();
        let host = Self(tempfile::tempdir().unwrap());
        host.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n");
        host.write("proc/cmdline", "quiet\n");
        host.write("proc/mounts", "/dev/sda2 / ext4 ro 0 0\n");
        host.write("proc/stat", "cpu 1\nbtime 1700000000\n");
        host.write("etc/os-release", "ID=balena-os\nVERSION_ID=\"2.113.4\"\n");
        std::fs::create_dir(host.path("run")).unwrap();
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of a file as the host itself, such as its engine, names it.
    pub(crate) fn own_path(&self, path: &Path) -> String {
        format!("/{}", path.strip_prefix(self.0.path()).unwrap().display())
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes the deploy record of a container: steps as JSON.
    pub(crate) fn record(&self, id: &str, steps: &Value) {
        let record = json!({ "version": 1, "id": id, "steps": steps });
        let name = format!("run/balena-extension-runtime-deploys/{id}.json");
        self.write(&name, &record.to_string());
    }

    /// Writes the record of a successful deploy with these hooks.
    pub(crate) fn deployed(&self, id: &str, hooks: &[&str]) {
        let ran = |hook: &&str| json!({ "hook": hook, "output": "" });
        let hooks: Vec<Value> = hooks.iter().map(ran).collect();
        let (create, start) = (json!({ "verb": "create", "time": "" }), "start");
        self.record(id, &json!([create, { "verb": start, "time": "", "hooks": hooks }]));
    }

    /// Sets the mounts, in the format of `/proc/mounts`.
    pub(crate) fn mounts(&self, lines: &str) {
        self.write("proc/mounts", lines);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("engine.sock")
    }

    /// Starts an engine with the contents of `store`.
    pub(crate) fn engine(&self, store: &Store) -> Engine {
        let store = store.clone();
        Engine::start(&self.socket(), move |method, path| store.answer(method, path))
    }

    /// Starts an engine that answers as `respond` says, and otherwise as `store` would.
    pub(crate) fn engine_but(
        &self,
        store: &Store,
        respond: impl Fn(&str, &str) -> Option<Answer> + Send + Sync + 'static,
    ) -> Engine {
        let store = store.clone();
        Engine::start(&self.socket(), move |method, path| {
            respond(method, path).unwrap_or_else(|| store.answer(method, path))
        })
    }

    /// A call of the manager on this host.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = bare(words);
        command.arg("--host-root").arg(self.0.path());
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command
    }

    pub(crate) fn manager(&self, words: &[&str]) -> Finished {
        run(&mut self.command(words))
    }
}

/// A call of the manager that does not name the engine.
pub(crate) fn bare(words: &[&str]) -> Command {
    let mut command = Command::new(super::programs::manager());
    command.args(words).env_remove("DOCKER_HOST");
    command
}

/// The version of the programs under test.
pub(crate) fn version() -> String {
    let asked = run(Command::new(super::programs::manager()).arg("--version")).ok();
    let line = asked.out.lines().next().unwrap().to_owned();
    line.rsplit(' ').next().unwrap().to_owned()
}

/// Writes a shell script.
pub(crate) fn script(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    super::bundle::executable(path, format!("#!/bin/sh\n{text}\n").as_bytes());
}
