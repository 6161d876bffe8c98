//! Scenarios that only dockerd has: its container store, policies, limits, and its own end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::command::LIMIT;
use crate::deployment::Deployment;
use crate::docker::Docker;
use crate::engine::{Engine as _, Engines, Status};
use crate::image::{Image, touch};
use crate::process::{STOP, wait_for_within};
use crate::processes::{assert_no_process, assert_no_proxy, end_noted, processes_of};
use crate::test_list::Suite;

type Shared = fn(&Docker);

const ON_THE_SHARED_DAEMON: [(&str, Shared); 9] = [
    (
        "a_delete_hook_of_a_minute_leaves_a_container_that_can_be_started_and_removed",
        delete_hook_of_a_minute,
    ),
    ("an_image_without_the_label_says_where_it_was_looked_for", no_label),
    ("a_class_of_100_kilobytes_is_refused_at_once", huge_class),
    ("labels_come_from_the_container_store", labels_from_the_store),
    ("rm_force_during_a_start_hook_leaves_nothing", rm_during_start),
    ("created_containers_can_be_stopped_and_removed", created_containers),
    ("a_container_with_rm_is_removed_by_the_engine", rm_option),
    ("root_of_a_container_with_the_hosts_pids_cannot_use_the_proxy", intruder),
    ("top_and_exec_answer_during_a_start_hook", top_and_exec),
];

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for (name, scenario) in ON_THE_SHARED_DAEMON {
        let engines = Arc::clone(engines);
        suite.test(format!("docker::{name}"), move || scenario(engines.docker()));
    }
    suite.test("docker::restart_policies_deploy_repeatedly", restart_policies);
    suite.test("docker::extensions_outlive_a_restart_of_the_daemon", restart_of_the_daemon);
    suite.test(
        "docker::a_create_interrupted_by_the_end_of_the_daemon_can_be_repeated",
        interrupted_create,
    );
    suite.test("docker::live_restore_finds_the_extension_again", live_restore);
}

/// The daemon gives delete 30 s and then kills the runtime, so this takes a little more than that.
fn delete_hook_of_a_minute(docker: &Docker) {
    let image = Image::extension().hook(
        "delete",
        "echo delete >> $NOTES/runs; [ -e $NOTES/quick ] || { echo $$ > $NOTES/hook; exec sleep 60; }",
    );
    let extension = Deployment::of(image, docker);
    let begin = Instant::now();
    extension.run(&[]).ok();
    wait_for_within(LIMIT, "Exited", || {
        (docker.status(&extension.name) == Status::Exited(0)).then_some(())
    });
    let took = begin.elapsed();
    touch(&extension.image.note("quick"));
    extension.start().ok();
    extension.assert_deployed();
    end_noted(&extension.image.read("hook"));
    assert!(took > Duration::from_secs(25), "the delete hook was cut short after {took:?}");
    extension.remove();
}

fn no_label(docker: &Docker) {
    let extension = Deployment::of(Image::unlabelled(), docker);
    let failed = extension.run(&[]).fails_with(125);
    let store = docker.data_root().join("containers").join(extension.id()).join("config.v2.json");
    failed.says(&format!(
        "OCI runtime create failed: missing required label io.balena.image.class: config.json has \
         no annotations, and it is not among the image's labels in the container store ({}): unknown",
        store.display()
    ));
    extension.remove();
}

/// More than the pipe can hold, which is not read before create has returned.
fn huge_class(docker: &Docker) {
    let extension = Deployment::of(Image::extension(), docker);
    let begin = Instant::now();
    let label = format!("io.balena.image.class={}", "v".repeat(100_000));
    let failed = extension.run(&["--label", &label]).fails_with(125);
    failed.says("unsupported io.balena.image.class=\"vvv").says("must be \"overlay\": unknown");
    assert_no_proxy(&extension.id());
    extension.remove();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

fn labels_from_the_store(docker: &Docker) {
    let image =
        Image::extension().hook("create", "cp config.json $NOTES/; env > $NOTES/environment");
    let extension = Deployment::of(image, docker);
    // The container's own label wins over the image's, as everywhere in Docker.
    extension.run(&["--label", "io.balena.image.override=7"]).ok();
    let config = extension.image.read("config.json");
    assert!(!config.contains("io.balena.image"), "annotations after all: {config}");
    let environment = extension.image.read("environment");
    assert!(environment.contains("EXTENSION_IMAGE_CLASS=overlay\n"), "{environment}");
    assert!(environment.contains("EXTENSION_IMAGE_OVERRIDE=7\n"), "{environment}");
    extension.remove();
}

fn rm_during_start(docker: &Docker) {
    let image = Image::extension().hook("start", "echo > $NOTES/started; sleep 3");
    let extension = Deployment::of(image, docker);
    let mut running = extension.begin_run(&[]);
    extension.await_note(&mut running, "started");
    let id = extension.id();
    docker.docker(&["rm", "--force", &extension.name]).ok();
    running.finish_within(LIMIT);
    assert_no_process(&id);
    assert_eq!(extension.id(), "");
}

fn created_containers(docker: &Docker) {
    let extension = Deployment::of(Image::extension(), docker);
    let create =
        ["create", "--runtime=extension", "--name", &extension.name, &extension.image.name];
    docker.docker(&create).ok();
    docker.docker(&["stop", &extension.name]).ok();
    docker.docker(&["kill", &extension.name]).fails_with(1).says("is not running");
    docker.docker(&["start", "--attach", &extension.name]).ok();
    extension.assert_deployed();
    docker.docker(&["stop", &extension.name]).ok();
    docker.docker(&["rm", "--force", &extension.name]).ok();
    docker.docker(&create).ok();
    let id = extension.id();
    docker.docker(&["rm", "--force", &extension.name]).ok();
    assert_no_process(&id);
}

fn rm_option(docker: &Docker) {
    let image = Image::extension().hook("start", "echo started > $NOTES/started");
    let extension = Deployment::of(image, docker);
    extension.run(&["--rm"]).ok();
    assert_eq!(extension.image.read("started"), "started\n");
    wait_for_within(LIMIT, "the removal", || extension.id().is_empty().then_some(()));
}

fn top_and_exec(docker: &Docker) {
    let image = Image::extension().hook("start", "echo > $NOTES/started; sleep 2");
    let extension = Deployment::of(image, docker);
    let mut running = extension.begin_run(&[]);
    extension.await_note(&mut running, "started");
    let top = docker.begin(&["top", &extension.name]);
    let exec = docker.docker(&["exec", &extension.name, "true"]);
    assert!(!exec.succeeded(), "{exec}");
    // It must be answered, at whatever moment.
    top.finish_within(LIMIT);
    running.finish_within(LIMIT).ok();
    extension.assert_deployed();
    extension.remove();
}

fn restart_policies() {
    let docker = Docker::start(&[]);
    let image = || Image::extension().hook("start", "echo start >> $NOTES/starts");
    let always = Deployment::of(image(), &docker);
    let on_failure = Deployment::of(image(), &docker);
    on_failure.run(&["--restart=on-failure:3"]).ok();
    always.run(&["--detach", "--restart=always"]).ok();
    wait_for_within(LIMIT, "five starts", || {
        (always.image.read("starts").lines().count() >= 5).then_some(())
    });
    let id = always.id();
    docker.docker(&["rm", "--force", &always.name]).ok();
    assert_no_process(&id);
    assert_eq!(on_failure.image.read("starts"), "start\n");
    on_failure.remove();
}

fn restart_of_the_daemon() {
    let docker = Docker::start(&[]);
    let image = || Image::extension().hook("start", "echo start >> $NOTES/starts");
    let extension = Deployment::of(image(), &docker);
    extension.run(&[]).ok();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        docker.restart(signal);
        extension.assert_deployed();
        extension.start().ok();
        extension.assert_deployed();
    }
    assert_eq!(extension.image.read("starts"), "start\n".repeat(3));
    extension.remove();
}

/// An ordinary container under runc, with Docker's default capabilities and the host's programs.
fn intruder(docker: &Docker) {
    let waiting = "echo > $NOTES/started; while [ ! -e $NOTES/go ]; do sleep 0.1; done";
    let extension = Deployment::of(Image::extension().hook("start", waiting), docker);
    let mut running = extension.begin_run(&[]);
    extension.await_note(&mut running, "started");
    let script = format!(
        r#"for process in /proc/[0-9]*; do
            [ "$(tr '\0' ' ' <$process/cmdline)" = "balena-extension-runtime proxy --id {} " ] || continue
            echo found
            for link in root cwd exe fd/1 ns/mnt ns/net; do
                readlink $process/$link && echo "open: $link"
            done
            ls $process/root/etc && echo "open: root/etc"
            ls $process/fd/ && cat $process/environ && echo "open: environ"
        done 2>/dev/null
        echo looked"#,
        extension.id()
    );
    let plain = Image::unlabelled();
    docker.import(&plain);
    let programs =
        ["/usr", "/bin", "/lib", "/lib64"].map(|path| format!("--volume={path}:{path}:ro"));
    let mut words = vec!["run", "--rm", "--pid=host", "--network=none"];
    words.extend(programs.iter().map(String::as_str));
    words.extend([plain.name.as_str(), "sh", "-c", &script]);
    let looked = docker.docker(&words);
    touch(&extension.image.note("go"));
    drop(running.finish_within(LIMIT));
    let looked = looked.ok();
    let seen: Vec<&str> = looked.out.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!((seen.first(), seen.last()), (Some(&"found"), Some(&"looked")), "{seen:?}");
    assert!(!looked.out.contains("open: "), "{}", looked.out);
    extension.assert_deployed();
    docker.remove_image(&plain);
    extension.remove();
}

/// The end of the daemon kills the runtime during its hook, and no delete follows. Docker itself cannot start
/// that container again, but the image can be deployed again.
fn interrupted_create() {
    let docker = Docker::start(&[]);
    let waiting =
        "[ -e $NOTES/go ] || { echo > $NOTES/creating; echo $$ > $NOTES/hook; exec sleep 60; }";
    let extension = Deployment::of(Image::extension().hook("create", waiting), &docker);
    let mut running = extension.begin_run(&[]);
    extension.await_note(&mut running, "creating");
    let id = extension.id();
    docker.restart(Signal::SIGKILL);
    drop(running.finish_within(LIMIT));
    end_noted(&extension.image.read("hook"));
    touch(&extension.image.note("go"));
    assert_no_proxy(&id);
    docker.docker(&["rm", "--force", &extension.name]).ok();
    extension.run(&[]).ok();
    extension.assert_deployed();
    assert_ne!(extension.id(), id);
    extension.remove();
    // Docker has lost track of this shim, which is empty.
    processes_of(&id).iter().for_each(|process| process.signal(Signal::SIGKILL));
}

/// The daemon dies between the start of an extension and its exit. The next daemon must notice that it has
/// exited. (The hook stops the daemon, so that it does not see the end of the start.)
fn live_restore() {
    let docker = Docker::start(&["--live-restore"]);
    let quick = Deployment::of(Image::extension(), &docker);
    quick.run(&[]).ok();
    let script = format!(
        "echo start >> $NOTES/starts; [ ! -e $NOTES/go ] || exit 0; set $(cat $NOTES/dockerd); {STOP}; \
         basename \"$(pwd)\" > $NOTES/stopped"
    );
    let image = Image::extension().hook("start", &script);
    image.write("dockerd", &docker.pid_of_daemon().to_string());
    let slow = Deployment::of(image, &docker);
    let mut running = slow.begin_run(&["--network=host"]);
    let id = slow.await_note(&mut running, "stopped").trim().to_owned();
    touch(&slow.image.note("go"));
    assert_no_proxy(&id);
    docker.restart(Signal::SIGKILL);
    drop(running.finish_within(LIMIT));
    quick.assert_deployed();
    quick.start().ok();
    quick.assert_deployed();
    slow.start().ok();
    slow.assert_deployed();
    assert_eq!(slow.image.read("starts"), "start\nstart\n");
    slow.remove();
    quick.remove();
}
