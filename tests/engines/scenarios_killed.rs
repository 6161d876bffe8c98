//! Processes of the engines are killed while a hook runs, or users stop or kill the container then. Whatever
//! the running command reports, a removal by force cleans up, and the image can be deployed again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::capture::start;
use crate::command::{GONE, LIMIT, run};
use crate::cri::{Cri, Network};
use crate::ctr::Containerd;
use crate::deployment::Deployment;
use crate::docker::Docker;
use crate::engine::{Engine, Engines, Kind};
use crate::image::{Image, touch};
use crate::podman::Podman;
use crate::proc_fs::Process;
use crate::process::wait_for_within;
use crate::processes::{assert_no_process, assert_no_proxy, processes_of, proxy_of, shim_of};
use crate::sandbox::RUNTIME;
use crate::test_list::Suite;

/// A hook that notes its bundle and then waits, unless the note `go` exists.
const WAITING: &str = "[ -e $NOTES/go ] || { pwd -P > $NOTES/waiting; \
     while [ ! -e $NOTES/go ]; do sleep 0.1; done; }";

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for hook in ["create", "start", "delete"] {
        let name = |what: &str| format!("{what}_killed_during_a_{hook}_hook_is_repaired_by_force");
        // An engine that is killed cannot be shared.
        suite.test(format!("docker::{}", name("a_daemon")), move || {
            let docker = Docker::start(&[]);
            killed(&docker, Kind::Docker, hook, |extension, _| {
                docker.restart_while(Signal::SIGKILL, || {
                    if hook == "delete" {
                        // While this hook runs, containerd 1.7 does not answer: it asks the shim to delete a
                        // container that has no process any more, and waits for that.
                        std::thread::sleep(Duration::from_secs(3));
                        go(extension);
                    }
                });
            });
        });
        suite.test(format!("containerd::{}", name("a_daemon")), move || {
            let containerd = Containerd::start();
            killed(&containerd, Kind::Containerd, hook, |_, _| containerd.restart(Signal::SIGKILL));
        });
        suite.test(format!("containerd::{}", name("a_shim")), move || {
            let containerd = Containerd::start();
            killed(&containerd, Kind::Containerd, hook, |_, id| {
                shim_of(id).signal(Signal::SIGKILL)
            });
        });
        if hook == "delete" {
            // With Podman, delete runs when conmon and the command of the deployment have ended.
            continue;
        }
        for program in ["conmon", "podman"] {
            suite.test(format!("podman::{}", name(&format!("a_{program}"))), move || {
                killed(&Podman::new(), Kind::Podman, hook, |extension, _| {
                    kill_program(program, &extension.name);
                });
            });
        }
    }
    for (kind, verb) in [
        (Kind::Docker, "stop"),
        (Kind::Docker, "kill"),
        (Kind::Containerd, "kill"),
        (Kind::Podman, "stop"),
        (Kind::Podman, "kill"),
    ] {
        let engines = Arc::clone(engines);
        let name = format!("{}::{verb}_is_answered_in_every_phase", kind.name());
        suite.test(name, move || answers(engines.get(kind), kind, verb));
    }
    suite.test("containerd::extensions_outlive_a_restart_of_the_daemon", restart_of_containerd);
    suite.test("cri::a_pod_outlives_a_restart_of_containerd", restart_under_a_pod);
}

fn killed(engine: &dyn Engine, kind: Kind, hook: &str, kill: impl FnOnce(&Deployment, &str)) {
    let extension = Deployment::of(Image::extension().hook(hook, WAITING), engine);
    let by_hand = hook == "delete" && kind == Kind::Containerd;
    let mut running = if by_hand {
        // Only ctr deletes on request alone.
        extension.run(&[]).ok();
        extension.assert_deployed();
        start(engine.client().args(["task", "remove", &extension.name]))
    } else {
        extension.begin_run(&[])
    };
    let bundle = extension.await_note(&mut running, "waiting");
    let id = engine.id_of_bundle(Path::new(bundle.trim()));
    kill(&extension, &id);
    go(&extension);
    // It may have succeeded or failed, but it has not hung.
    running.finish_within(LIMIT);
    engine.force_remove(&extension.name);
    // A killed daemon may have lost track of the shim: dockerd always, containerd sometimes. The proxy must end
    // with the shim.
    if kind != Kind::Podman {
        let is_shim = |process: &Process| {
            process.arguments().first().is_some_and(|name| name.contains("containerd-shim"))
        };
        let forgotten = processes_of(&id).into_iter().filter(is_shim);
        forgotten.for_each(|process| process.signal(Signal::SIGKILL));
        wait_for_within(GONE, "the end of the proxy", || {
            processes_of(&id).is_empty().then_some(())
        });
    }
    if kind == Kind::Podman {
        // Podman may not know that there is anything to delete, and the create may end after it.
        wait_for_within(GONE, "the end of what Podman does not know", || {
            run(Command::new(RUNTIME).args(["delete", "--force", &id])).ok();
            processes_of(&id).is_empty().then_some(())
        });
    }
    assert_no_process(&id);
    // Engines notice a loss with a delay. A user would also try again.
    wait_for_within(LIMIT, "a new deployment", || {
        engine.force_remove(&extension.name);
        extension.run(&[]).succeeded().then_some(())
    });
    extension.assert_deployed();
    extension.remove();
}

/// Ends the waiting hook.
fn go(extension: &Deployment) {
    touch(&extension.image.note("go"));
}

fn kill_program(program: &str, container: &str) {
    let is_it = |word: &String| Path::new(word).file_name().is_some_and(|name| name == program);
    let mut found = processes_of(container);
    found.retain(|process| process.arguments().first().is_some_and(is_it));
    assert!(!found.is_empty(), "no {program} of {container}: this kills nothing");
    found.iter().for_each(|process| process.signal(Signal::SIGKILL));
}

/// `stop` and `kill` during a start hook and after the exit are answered, and nothing is left.
fn answers(engine: &dyn Engine, kind: Kind, verb: &str) {
    let ask = |name: &str| {
        let mut command: Command = engine.client();
        match (kind, verb) {
            (Kind::Containerd, _) => command.args(["task", "kill", "--signal=SIGKILL", name]),
            (_, "stop") => command.args(["stop", "--time=1", name]),
            _ => command.args([verb, name]),
        };
        start(&mut command)
    };
    let extension = Deployment::of(Image::extension().hook("start", WAITING), engine);
    let mut running = extension.begin_run(&[]);
    let bundle = extension.await_note(&mut running, "waiting");
    let id = engine.id_of_bundle(Path::new(bundle.trim()));
    let asked = ask(&extension.name);
    // Some engines wait for the end of the start.
    std::thread::sleep(Duration::from_millis(500));
    touch(&extension.image.note("go"));
    asked.finish_within(LIMIT);
    running.finish_within(LIMIT);
    assert_no_proxy(&id);
    engine.force_remove(&extension.name);
    assert_no_process(&id);

    extension.run(&[]).ok();
    extension.assert_deployed();
    let answer = ask(&extension.name).finish_within(LIMIT);
    assert_eq!(answer.succeeded(), verb == "stop", "{answer}");
    extension.assert_deployed();
    extension.start().ok();
    extension.assert_deployed();
    extension.remove();
}

fn restart_of_containerd() {
    let containerd = Containerd::start();
    let image = Image::extension().hook("start", "echo start >> $NOTES/starts");
    let extension = Deployment::of(image, &containerd);
    extension.run(&[]).ok();
    extension.assert_deployed();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        containerd.restart(signal);
        extension.start().ok();
    }
    // Only the effects of the hooks count: containerd 1.7 may forget an ended task when it is killed.
    assert_eq!(extension.image.read("starts"), "start\n".repeat(3));
    extension.remove();
}

fn restart_under_a_pod() {
    let cri = Cri::start();
    let pod = cri.run_pod("outlives", Network::Node);
    let proxy = proxy_of(&pod.id);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        cri.restart(signal);
        assert!(cri.is_ready(&pod) && proxy.is_alive(), "the sandbox ended with containerd");
    }
    cri.on("StopPodSandbox", &pod.id);
    cri.on("RemovePodSandbox", &pod.id);
    assert_no_process(&pod.id);
}
