//! Calls of engines that a test cannot provoke through the engine: the runtime is called directly, without an
//! environment, with the same arguments in the same order.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{LIMIT, attempt, run};
use crate::finished::Finished;
use crate::image::Image;
use crate::process::wait_for_within;
use crate::processes::{assert_no_process, proxy_of};
use crate::sandbox::RUNTIME;
use crate::test_list::Suite;

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("direct::every_command_works_without_an_environment", without_environment);
    suite.test("direct::delete_force_of_nothing_is_silent_and_runs_no_hook", force_twice);
    suite.test("direct::a_killed_create_leaves_what_delete_force_removes", killed_create);
}

/// A bundle as containerd makes one, and the call it makes on it.
struct Bundle {
    dir: TempDir,
    image: Image,
    id: String,
}

impl Bundle {
    fn of(image: Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "ociVersion": "1.0.2-dev",
            "process": { "args": ["extension"], "cwd": "/" },
            "root": { "path": image.rootfs() },
            "annotations": image.labels,
            "linux": { "namespaces": [{ "type": "network" }] },
        });
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let id = format!("direct-{}", image.name);
        Self { dir, image, id }
    }

    /// The runtime as containerd's shim calls it, but with no environment.
    fn call(&self, words: &[&str]) -> Finished {
        run(&mut self.command(words))
    }

    fn command(&self, words: &[&str]) -> Command {
        let in_dir = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(RUNTIME);
        command.env_clear().current_dir(self.dir.path());
        command.arg("--root").arg(in_dir("state")).arg("--log").arg(in_dir("log.json"));
        command.args(["--log-format", "json"]).args(words);
        command
    }

    fn create(&self) -> Finished {
        let bundle = self.dir.path().display().to_string();
        let pid_file = self.pid_file();
        self.call(&["create", "--bundle", &bundle, "--pid-file", &pid_file, &self.id])
    }

    fn pid_file(&self) -> String {
        self.dir.path().join("init.pid").display().to_string()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.id]).ok().out).unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        attempt(&mut self.command(&["delete", "--force", &self.id]));
    }
}

fn without_environment() {
    let hook =
        "tr '\\0' '\\n' < /proc/$$/environ | sed \"s/^/$(basename $0) /\" >> $NOTES/environment";
    let image = Image::extension().hook("create", hook).hook("start", hook).hook("delete", hook);
    let bundle = Bundle::of(image);
    let id = bundle.id.as_str();
    bundle.create().ok();
    let pid = fs::read_to_string(bundle.pid_file()).unwrap();
    assert_eq!(pid, proxy_of(id).0.to_string(), "decimal, without a newline");
    assert_eq!(bundle.status()["status"], "created");
    let pids: Vec<u32> =
        serde_json::from_str(&bundle.call(&["ps", "--format", "json", id]).ok().out).unwrap();
    assert_eq!(pids, [pid.parse::<u32>().unwrap()]);
    bundle.call(&["list", "--format", "json"]).ok().says(id);
    for refused in [
        &["exec", "--process", "p", "--detach", "--pid-file", "f", id][..],
        &["pause", id],
        &["resume", id],
        &["events", id],
        &["checkpoint", "--image-path", "i", id],
        &["restore", "--bundle", "b", id],
    ] {
        let refused = bundle.call(refused);
        assert!(!refused.succeeded(), "{refused}");
        refused.says("extension");
    }
    bundle.call(&["update", "--resources", "-", id]).ok();
    bundle.call(&["kill", "--all", id, "0"]).ok();
    bundle.call(&["start", id]).ok();
    assert_eq!(bundle.status()["status"], "stopped");
    bundle.call(&["kill", id, "9"]).fails_with(1).says("container not running");
    bundle.call(&["kill", "--all", id, "9"]).ok();
    bundle.call(&["delete", id]).ok();
    bundle.call(&["state", id]).fails_with(1).says("does not exist");
    for word in ["features", "--version", "--help"] {
        let said = run(Command::new(RUNTIME).env_clear().arg(word)).ok();
        assert_eq!(said.err, "", "{said}");
    }
    let environment = bundle.image.read("environment");
    for hook in ["create", "start", "delete"] {
        let path = format!("{hook} PATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
        assert!(environment.contains(&path), "{environment}");
    }
    assert_no_process(id);
}

fn force_twice() {
    let image = Image::extension().hook("delete", "echo delete >> $NOTES/runs");
    let bundle = Bundle::of(image);
    bundle.create().ok();
    bundle.call(&["start", &bundle.id]).ok();
    bundle.call(&["delete", &bundle.id]).ok();
    for _ in 0..2 {
        let finished = bundle.call(&["delete", "--force", &bundle.id]).ok();
        assert_eq!(finished.text(), "", "{finished}");
    }
    assert_eq!(bundle.image.read("runs"), "delete\n");
    assert_no_process(&bundle.id);
}

/// The shim's parent-death signal and a dying engine both end the runtime like this.
fn killed_create() {
    let image = Image::extension()
        .hook("create", "[ -e $NOTES/waiting ] || { echo > $NOTES/waiting; sleep 60; }");
    let bundle = Bundle::of(image);
    let directory = bundle.dir.path().display().to_string();
    let mut create = bundle.command(&["create", "--bundle", &directory, &bundle.id]);
    let mut running = create.process_group(0).spawn().unwrap();
    wait_for_within(LIMIT, "the hook", || bundle.image.note("waiting").exists().then_some(()));
    running.kill().unwrap();
    running.wait().unwrap();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    assert_no_process(&bundle.id);
    assert!(!Path::new(&bundle.dir.path().join("state").join(&bundle.id)).exists());
    bundle.create().ok();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    assert_no_process(&bundle.id);
}
