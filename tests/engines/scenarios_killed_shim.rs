//! Shims that are killed at bad moments. Each test has its own daemon.

use nix::sys::signal::Signal;

use crate::command::{GONE, LIMIT};
use crate::deployment::Deployment;
use crate::docker::Docker;
use crate::image::{Image, touch};
use crate::process::{STOP, wait_for_within};
use crate::processes::{assert_no_process, proxy_of, shim_of};
use crate::test_list::Suite;

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("docker::a_shim_killed_during_a_create_hook_leaves_nothing", shim_in_create);
    suite.test("docker::a_shim_killed_between_create_and_start_leaves_nothing", shim_in_created);
    suite.test("docker::a_shim_killed_during_a_start_hook_leaves_nothing", shim_in_start);
}

/// A hook that notes that it runs and then waits, unless the note `go` exists.
const WAITING: &str = "[ -e $NOTES/go ] || { echo $$ > $NOTES/waiting; while [ ! -e $NOTES/go ]; do sleep 0.1; done; }";

fn shim_in_create() {
    shim_killed_in_hook("create");
}

fn shim_in_start() {
    shim_killed_in_hook("start");
}

fn shim_killed_in_hook(hook: &str) {
    let docker = Docker::start(&[]);
    let extension = Deployment::of(Image::extension().hook(hook, WAITING), &docker);
    let mut running = extension.begin_run(&[]);
    extension.await_note(&mut running, "waiting");
    let id = extension.id();
    shim_of(&id).signal(Signal::SIGKILL);
    let outcome = running.finish_within(LIMIT);
    assert!(!outcome.succeeded(), "{outcome}");
    touch(&extension.image.note("go"));
    is_usable(extension, &id);
}

/// The create hook stops dockerd, so that the shim gets no request for a start.
fn shim_in_created() {
    let docker = Docker::start(&[]);
    let script = format!(
        "[ ! -e $NOTES/go ] || exit 0; set $(cat $NOTES/dockerd); {STOP}; basename \"$(pwd)\" > $NOTES/stopped"
    );
    let image = Image::extension().hook("create", &script);
    image.write("dockerd", &docker.pid_of_daemon().to_string());
    let extension = Deployment::of(image, &docker);
    // On the host's network, dockerd has no hook in create. A stopped dockerd would make it hang.
    let mut running = extension.begin_run(&["--network=host"]);
    // The bundle is named after the container, and dockerd cannot be asked.
    let id = extension.await_note(&mut running, "stopped").trim().to_owned();
    let proxy = proxy_of(&id);
    let states = docker.state_root();
    wait_for_within(LIMIT, "the state created", || {
        let state = std::fs::read_to_string(states.join(&id).join("state.json")).ok()?;
        state.contains("\"created\"").then_some(())
    });
    shim_of(&id).signal(Signal::SIGKILL);
    docker.continue_daemon();
    let outcome = running.finish_within(LIMIT);
    assert!(!outcome.succeeded(), "{outcome}");
    touch(&extension.image.note("go"));
    wait_for_within(GONE, "the end of the proxy", || (!proxy.is_alive()).then_some(()));
    is_usable(extension, &id);
}

/// No process of the container is left, and the engine can start and remove it.
fn is_usable(extension: Deployment<'_>, id: &str) {
    assert_no_process(id);
    extension.start().ok();
    extension.assert_deployed();
    extension.remove();
}
