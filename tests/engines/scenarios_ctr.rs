//! Scenarios that are only possible with containerd alone: root filesystems relative to the bundle, missing
//! annotations, and the sandbox containers of Kubernetes, which `ctr` starts like the CRI.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::command::{LIMIT, run};
use crate::ctr::Containerd;
use crate::deployment::Deployment;
use crate::engine::{Engines, Status};
use crate::image::{Image, touch};
use crate::processes::{assert_no_process, proxy_of};
use crate::test_list::Suite;

type Scenario = fn(&Containerd);

const SCENARIOS: [(&str, Scenario); 7] = [
    ("a_network_of_its_own_and_the_hosts_work", networks),
    ("a_root_filesystem_relative_to_the_bundle_works", relative_rootfs),
    ("a_terminal_works_and_shows_what_hooks_print", terminal_works),
    ("a_missing_annotation_is_named", no_annotation),
    ("a_kubernetes_sandbox_runs_until_it_is_killed", sandbox_runs),
    ("exec_in_a_sandbox_is_refused_clearly", exec_is_refused),
    ("pausing_a_sandbox_is_refused_clearly", pause_is_refused),
];

/// The annotations that containerd's CRI adds to a pod's own container.
const SANDBOX: &str = "--annotation=io.kubernetes.cri.container-type=sandbox";

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for (name, scenario) in SCENARIOS {
        let engines = Arc::clone(engines);
        suite.test(format!("containerd::{name}"), move || scenario(engines.containerd()));
    }
}

fn relative_rootfs(containerd: &Containerd) {
    let image = Image::extension()
        .hook("create", "cp config.json $NOTES/; echo $EXTENSION_ROOTFS > $NOTES/rootfs");
    let extension = Deployment::of(image, containerd);
    extension.run(&[]).ok();
    extension.assert_deployed();
    let config: Value = serde_json::from_str(&extension.image.read("config.json")).unwrap();
    assert_eq!(config["root"]["path"], "rootfs", "containerd has changed: this tests nothing");
    let rootfs = containerd.bundle(&extension.id()).join("rootfs");
    assert_eq!(extension.image.read("rootfs").trim(), rootfs.display().to_string());
    extension.remove();
}

/// `ctr` needs a terminal, which script(1) provides.
fn terminal_works(containerd: &Containerd) {
    let image = Image::extension()
        .hook("create", "echo create on a terminal")
        .hook("start", "echo start on a terminal");
    let extension = Deployment::of(image, containerd);
    let foreground = containerd.foreground(&extension.name, &extension.image, "--rm --tty");
    let shown = run(Command::new("script").args(["-qefc", &foreground, "/dev/null"])).ok();
    shown.says("create on a terminal").says("start on a terminal");
    assert_no_process(&extension.id());
}

fn networks(containerd: &Containerd) {
    for (argument, shares) in [(None, false), (Some("--net-host"), true)] {
        let waiting = "echo > $NOTES/started; while [ ! -e $NOTES/go ]; do sleep 0.05; done";
        let extension = Deployment::of(Image::extension().hook("start", waiting), containerd);
        let mut running = extension.begin_run(argument.as_slice());
        extension.await_note(&mut running, "started");
        let its_own = fs::read_link(proxy_of(&extension.id()).path("ns/net"));
        touch(&extension.image.note("go"));
        running.finish_within(LIMIT).ok();
        let hosts = fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(its_own.unwrap() == hosts, shares, "{argument:?}: the proxy's namespace");
        extension.assert_deployed();
        extension.remove();
    }
}

fn no_annotation(containerd: &Containerd) {
    let extension = Deployment::of(Image::unlabelled(), containerd);
    let failed = extension.run(&[]).fails_with(1);
    failed.says("missing required label io.balena.image.class");
    assert_no_process(&extension.id());
}

fn sandbox_runs(containerd: &Containerd) {
    let image = Image::unlabelled().hook("create", "touch $NOTES/ran");
    let pod = Deployment::of(image, containerd);
    pod.run(&[SANDBOX]).ok();
    pod.assert_status(Status::Running);
    let id = pod.id();
    let proxy = proxy_of(&id);
    let listed = containerd.ctr(&["task", "ps", &id]).ok();
    listed.says(&proxy.0.to_string());
    assert_ne!(
        fs::read_link(proxy.path("ns/net")).unwrap(),
        fs::read_link("/proc/self/ns/net").unwrap()
    );
    assert!(proxy.is_alive(), "a sandbox keeps running");
    containerd.ctr(&["task", "kill", "--signal", "SIGKILL", &id]).ok();
    pod.assert_status(Status::Exited(0));
    assert!(!pod.image.note("ran").exists(), "a hook ran");
    pod.remove();
}

fn exec_is_refused(containerd: &Containerd) {
    let pod = Deployment::of(Image::unlabelled(), containerd);
    pod.run(&[SANDBOX]).ok();
    let refused = containerd.ctr(&["task", "exec", "--exec-id", "one", &pod.name, "true"]);
    assert!(!refused.succeeded(), "{refused}");
    refused.says("OCI runtime exec failed: ").says("an extension has no process to");
    pod.assert_status(Status::Running);
    containerd.ctr(&["task", "kill", "--signal", "SIGTERM", &pod.name]).ok();
    pod.assert_status(Status::Exited(0));
    pod.remove();
}

fn pause_is_refused(containerd: &Containerd) {
    let pod = Deployment::of(Image::unlabelled(), containerd);
    pod.run(&[SANDBOX]).ok();
    let refused = containerd.ctr(&["task", "pause", &pod.name]);
    assert!(!refused.succeeded(), "{refused}");
    refused.says("OCI runtime pause failed: ").says("an extension has no process to");
    containerd.ctr(&["task", "kill", "--signal", "SIGKILL", &pod.name]).ok();
    pod.assert_status(Status::Exited(0));
    pod.remove();
}
