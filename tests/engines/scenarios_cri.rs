//! A pod of Kubernetes whose `RuntimeClass` is this runtime. Its sandbox container uses the runtime too, and
//! must keep running while extensions are deployed and removed.

use std::fs;
use std::sync::Arc;

use crate::command::LIMIT;
use crate::cri::{Cri, Network, Pod};
use crate::engine::Engines;
use crate::image::Image;
use crate::process::wait_for_within;
use crate::processes::{assert_no_process, proxy_of};
use crate::test_list::Suite;

type Scenario = fn(&Cri);

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    let scenarios: [(&str, Scenario); 5] = [
        ("a_pod_on_the_hosts_network_is_deployed_and_removed", |cri| deploys(cri, Network::Node)),
        ("a_pod_with_a_network_of_its_own_is_deployed_and_removed", |cri| {
            deploys(cri, Network::Pod)
        }),
        ("a_failing_create_hook_is_quoted_and_leaves_the_pod_ready", |cri| fails(cri, "create")),
        ("a_failing_start_hook_is_quoted_and_leaves_the_pod_ready", |cri| fails(cri, "start")),
        ("a_failing_delete_hook_does_not_stop_the_removal", failing_delete),
    ];
    for (name, scenario) in scenarios {
        let engines = Arc::clone(engines);
        suite.test(format!("cri::{name}"), move || scenario(engines.cri()));
    }
}

fn deploys(cri: &Cri, network: Network) {
    let image = Image::extension()
        .hook("create", "echo create >> $NOTES/runs; echo from create")
        .hook("start", "echo start >> $NOTES/runs; echo from start")
        .hook("delete", "echo delete >> $NOTES/runs");
    let reference = import(cri, &image);
    let pod = cri.run_pod(&image.name, network);
    assert!(cri.is_ready(&pod), "the sandbox does not run");
    let proxy = proxy_of(&pod.id);
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
    let shares = namespace(&proxy.0.to_string()) == namespace("self");
    assert_eq!(shares, network == Network::Node, "the sandbox's network namespace");

    let id = cri.create(&pod, &image, &reference);
    cri.start_container(&id).ok();
    await_exit(cri, &id, "0");
    // An exit code of zero is not sent, but a failed start has one.
    wait_for_within(LIMIT, "the delete hook", || {
        (image.read("runs") == "create\nstart\ndelete\n").then_some(())
    });
    // containerd may write the log with a delay.
    wait_for_within(LIMIT, "the log", || {
        let log = cri.log_of(&image);
        (log.contains("from create\n") && log.contains("from start\n")).then_some(())
    });
    assert!(cri.is_ready(&pod) && proxy.is_alive(), "the sandbox ended with its container");

    cri.on("StopContainer", &id);
    cri.on("RemoveContainer", &id);
    assert_no_process(&id);
    end(cri, &pod);
}

fn fails(cri: &Cri, hook: &str) {
    let failing = "echo no room left for the extension >&2; exit 3";
    let image = Image::extension().hook(hook, failing);
    let reference = import(cri, &image);
    let pod = cri.run_pod(&image.name, Network::Node);
    let id = cri.create(&pod, &image, &reference);
    let failed = cri.start_container(&id);
    assert!(!failed.succeeded(), "{failed}");
    failed.says(&format!("hook hooks/{hook} exited with status 3: no room left for the extension"));
    await_exit(cri, &id, "128");
    assert!(cri.is_ready(&pod), "the sandbox ended with its container");
    cri.on("RemoveContainer", &id);
    assert_no_process(&id);
    end(cri, &pod);
}

fn failing_delete(cri: &Cri) {
    let image = Image::extension().hook("delete", "echo delete >> $NOTES/runs; exit 3");
    let reference = import(cri, &image);
    let pod = cri.run_pod(&image.name, Network::Node);
    let id = cri.create(&pod, &image, &reference);
    cri.start_container(&id).ok();
    await_exit(cri, &id, "0");
    wait_for_within(LIMIT, "the delete hook", || (image.read("runs") == "delete\n").then_some(()));
    cri.on("RemoveContainer", &id);
    assert_no_process(&id);
    end(cri, &pod);
}

fn import(cri: &Cri, image: &Image) -> String {
    let reference = format!("localhost/{}:1", image.name);
    cri.import(image, &reference);
    reference
}

/// The calls of the kubelet when a pod is deleted.
fn end(cri: &Cri, pod: &Pod) {
    let proxy = proxy_of(&pod.id);
    cri.on("StopPodSandbox", &pod.id);
    assert!(!cri.is_ready(pod), "it was stopped");
    assert!(!proxy.is_alive(), "{proxy:?} outlived its pod");
    cri.on("RemovePodSandbox", &pod.id);
    assert_no_process(&pod.id);
    let remains = cri.remains();
    assert!(!remains.contains(&pod.id), "containerd still has {remains}");
}

#[track_caller]
fn await_exit(cri: &Cri, id: &str, code: &str) {
    let wanted = ("exited", code.to_owned());
    wait_for_within(LIMIT, "the exit of the container", || {
        let (state, seen) = cri.container(id);
        let seen = if seen.is_empty() { "0".to_owned() } else { seen };
        ((state, seen) == wanted).then_some(())
    });
}
