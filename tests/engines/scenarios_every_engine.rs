//! Scenarios for every engine in which nothing fails. (Failing hooks are in `scenarios_failing_hooks`.)

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::cgroups::{Hierarchy, hierarchies};
use crate::command::{GONE, LIMIT};
use crate::deployment::Deployment;
use crate::engine::{Engine, Engines, Kind, Status};
use crate::finished::Finished;
use crate::image::{Image, touch};
use crate::proc_fs::Process;
use crate::process::poll_within;
use crate::processes::{assert_no_process, end_noted, proxy_of};
use crate::test_list::Suite;

type Scenario = fn(&dyn Engine);

const TERMINAL: &str = "a_terminal_works_and_shows_what_hooks_print";

const REFUSED: &str = "an_image_that_brings_a_kernel_is_refused_and_exits_1";

const SCENARIOS: [(&str, Scenario); 11] = [
    ("an_extension_without_hooks_deploys", deploys_without_hooks),
    ("hooks_run_in_order_on_the_host", hooks_run_in_order),
    ("a_create_hook_that_prints_a_mebibyte_hangs_nothing_and_is_logged", mebibyte_is_logged),
    ("a_start_hook_that_prints_a_mebibyte_hangs_nothing", mebibyte_at_start),
    ("a_background_child_of_a_start_hook_delays_nothing", background_child),
    ("the_output_of_hooks_is_in_the_log_create_before_start", output_is_logged),
    (TERMINAL, terminal_works),
    ("hooks_see_the_environment_of_the_contract_and_nothing_else", environment_is_exact),
    ("the_proxy_keeps_no_descriptor_no_mask_and_no_privilege", proxy_is_bare),
    ("an_exited_extension_can_be_started_again", starts_again),
    (REFUSED, brings_a_kernel),
];

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for (kind, count) in [(Kind::Docker, 100), (Kind::Podman, 20), (Kind::Containerd, 20)] {
        let engines = Arc::clone(engines);
        let name = format!("{}::{count}_deployments_in_a_row_all_exit_0", kind.name());
        suite.test(name, move || many_in_a_row(engines.get(kind), count));
    }
    for kind in Kind::ALL {
        for (name, scenario) in SCENARIOS {
            // ctr needs a terminal, so `scenarios_ctr` has this one. And it does not report the exit status.
            if kind == Kind::Containerd && [TERMINAL, REFUSED].contains(&name) {
                continue;
            }
            let engines = Arc::clone(engines);
            suite.test(format!("{}::{name}", kind.name()), move || scenario(engines.get(kind)));
        }
    }
}

fn many_in_a_row(engine: &dyn Engine, count: usize) {
    let image = Image::extension()
        .hook("create", "echo create >> $NOTES/runs")
        .hook("start", "echo start >> $NOTES/runs");
    let first = Deployment::of(image, engine);
    let mut ids = Vec::new();
    for number in 0..count {
        let name = format!("{}-{number}", first.name);
        engine.run(&name, &first.image, &[]).ok();
        ids.push((engine.id(&name), name));
    }
    for (id, name) in ids {
        let status = engine.status(&name);
        assert_eq!(status, crate::engine::Status::Exited(0), "{name}");
        engine.remove(&name).ok();
        assert_no_process(&id);
    }
    assert_eq!(first.image.read("runs"), "create\nstart\n".repeat(count));
}

fn deploys_without_hooks(engine: &dyn Engine) {
    let extension = Deployment::of(Image::extension(), engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    extension.remove();
}

fn hooks_run_in_order(engine: &dyn Engine) {
    let script = |hook: &str| {
        // The host's own mount namespace, seen from a hook: that of process 1's descendants.
        format!("echo {hook} $(readlink /proc/$$/ns/uts) $(id -u) >> $NOTES/order")
    };
    let image = Image::extension()
        .hook("create", &script("create"))
        .hook("start", &script("start"))
        .hook("delete", &script("delete"));
    let uts = fs::read_link("/proc/self/ns/uts").unwrap();
    let expected = |hook| format!("{hook} {} 0\n", uts.display());
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    let image = extension.image.note("order");
    let id = extension.id();
    extension.engine.remove(&extension.name).ok();
    assert_no_process(&id);
    // Engines delete at different times, but never after the removal, and never twice.
    let order = fs::read_to_string(image).unwrap();
    assert_eq!(order, ["create", "start", "delete"].map(expected).concat());
}

fn mebibyte_is_logged(engine: &dyn Engine) {
    let image = Image::extension().hook(
        "create",
        "echo the first line; head -c 1048576 /dev/zero | tr '\\0' '.' | fold -w 99; echo; \
         echo the last line",
    );
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    let logs = extension.logs_up_to("the last line");
    assert!(logs.contains("the first line"), "{} bytes logged", logs.len());
    extension.remove();
}

fn mebibyte_at_start(engine: &dyn Engine) {
    let image = Image::extension().hook(
        "start",
        "head -c 1048576 /dev/zero | tr '\\0' '.' | fold -w 99 >&2; echo; echo the last line",
    );
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    extension.logs_up_to("the last line");
    extension.remove();
}

fn background_child(engine: &dyn Engine) {
    let image = Image::extension().hook("start", "sleep 600 & echo $! > $NOTES/child");
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    let child = extension.image.read("child");
    let is_alive = Process(child.trim().parse().unwrap()).is_alive();
    end_noted(&child);
    assert!(is_alive, "the deployment may have waited for the child");
    extension.remove();
}

fn output_is_logged(engine: &dyn Engine) {
    // The pause is needed where both streams are in one file, as with ctr: the shim may lose what it has not
    // yet copied from one stream when the other ends. That happened once under load.
    let image = Image::extension()
        .hook("create", "echo from create; echo create complains >&2")
        .hook("start", "echo from start; echo start complains >&2; sleep 2");
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    for line in ["from create", "create complains", "from start", "start complains"] {
        extension.logs_up_to(line);
    }
    let logs = extension.logs_up_to("start");
    let place = |line| logs.find(line).unwrap();
    assert!(place("from create") < place("from start"), "{logs:?}");
    assert!(place("create complains") < place("start complains"), "{logs:?}");
    assert_eq!(logs.lines().count(), 4, "the runtime's own words are in the log: {logs}");
    extension.remove();
}

fn terminal_works(engine: &dyn Engine) {
    let image = Image::extension()
        .hook("create", "echo create on a terminal")
        .hook("start", "echo start on a terminal");
    let extension = Deployment::of(image, engine);
    extension.run(&["-t"]).ok();
    extension.assert_deployed();
    extension.logs_up_to("start on a terminal");
    extension.logs_up_to("create on a terminal");
    extension.remove();
}

fn environment_is_exact(engine: &dyn Engine) {
    let mut image = Image::extension().hook(
        "create",
        "cp config.json $NOTES/; pwd -P > $NOTES/cwd\n\
         tr '\\0' '\\n' < /proc/$$/environ > $NOTES/environment\n\
         exec > $NOTES/descriptors; ls -l /proc/$$/fd",
    );
    image.label("io.balena.image.kernel-abi-id", &"ab".repeat(32));
    image.label("io.balena.image.requires-reboot", "1");
    image.label("io.balena.service-name", "not-for-hooks");
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    let image = &extension.image;
    let config: Value = serde_json::from_str(&image.read("config.json")).unwrap();
    let bundle = image.read("cwd");
    assert_eq!(image.read("environment"), expected_environment(&config, bundle.trim()));
    // Standard input, output, error, and the script that the shell reads.
    let descriptors = image.read("descriptors");
    assert_eq!(descriptors.matches(" -> ").count(), 4, "{descriptors}");
    assert!(descriptors.contains(" 0 -> /dev/null\n"), "{descriptors}");
    assert!(descriptors.contains("/hooks/create\n"), "{descriptors}");
    extension.remove();
}

/// The environment of the contract, derived from the engine's files.
fn expected_environment(config: &Value, bundle: &str) -> String {
    let shell_name = |text: &str| text.replace(['-', '/'], "_").to_uppercase();
    let root = config["root"]["path"].as_str().unwrap();
    let rootfs = Path::new(bundle).join(root);
    let mut images = vec![
        "EXTENSION_IMAGE_CLASS=overlay".to_owned(),
        format!("EXTENSION_IMAGE_KERNEL_ABI_ID={}", "ab".repeat(32)),
        "EXTENSION_IMAGE_REQUIRES_REBOOT=1".to_owned(),
    ];
    // Podman adds no labels of its own; a newer engine may.
    images.sort();
    let mut volumes = Vec::new();
    for mount in config["mounts"].as_array().unwrap() {
        let destination = mount["destination"].as_str().unwrap();
        let name = shell_name(destination.trim_start_matches('/'));
        let source = mount["source"].as_str().unwrap_or_default();
        volumes.push(format!("EXTENSION_VOLUME_{name}={source}"));
    }
    volumes.sort();
    let mut lines = vec![
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("EXTENSION_ROOTFS={}", rootfs.display()),
    ];
    lines.extend(images);
    lines.extend(volumes);
    lines.join("\n") + "\n"
}

fn proxy_is_bare(engine: &dyn Engine) {
    let image = Image::extension()
        .hook("start", "pwd -P > $NOTES/started; while [ ! -e $NOTES/go ]; do sleep 0.05; done");
    let extension = Deployment::of(image, engine);
    let mut running = extension.begin_run(&[]);
    let bundle = extension.await_note(&mut running, "started");
    let id = engine.id_of_bundle(Path::new(bundle.trim()));
    let proxy = proxy_of(&id);
    let pid_file = fs::read_to_string(engine.pid_file(&id)).unwrap_or_default();
    // Collect everything before the first assertion, because a hook is waiting.
    let settled = poll_within(GONE, || {
        (is_zero(&proxy.status("SigBlk")) && is_zero(&proxy.status("CapEff"))).then_some(())
    });
    let mut descriptors: Vec<String> = fs::read_dir(proxy.path("fd"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    descriptors.sort();
    let masks = ["SigBlk", "CapEff", "CapPrm", "CapInh", "CapAmb"].map(|f| proxy.status(f));
    let environment = fs::read_to_string(proxy.path("environ")).unwrap();
    let arguments = proxy.arguments();
    let directory = fs::read_link(proxy.path("cwd")).unwrap();
    let cgroups = fs::read_to_string(proxy.path("cgroup")).unwrap();
    touch(&extension.image.note("go"));
    running.finish_within(LIMIT).ok();

    assert!(settled.is_some() && masks.iter().all(|mask| is_zero(mask)), "{masks:?}");
    assert_eq!(descriptors, ["0", "1", "2"]);
    assert_eq!(environment, "PATH=/usr/sbin:/usr/bin:/sbin:/bin\0");
    assert_eq!(directory.to_str(), Some("/"));
    // In the engine's cgroup, the proxy would count as the engine. (A new cpuset of version 1 accepts no
    // process before it has CPUs, and it counts nothing.)
    for Hierarchy { options, .. } in hierarchies().iter().filter(|each| each.options != "cpuset") {
        let line = cgroups.lines().find(|line| line.split(':').nth(1) == Some(options.as_str()));
        assert!(line.is_some_and(|line| line.contains(&id)), "{options:?}: {cgroups}");
    }
    assert_eq!(arguments[1..], ["proxy", "--id", id.as_str()]);
    assert!(arguments[0].ends_with("balena-extension-runtime"), "{arguments:?}");
    assert_eq!(pid_file, proxy.0.to_string(), "the bytes of the pid file");
    extension.assert_deployed();
    extension.remove();
}

fn is_zero(mask: &str) -> bool {
    !mask.is_empty() && mask.bytes().all(|digit| digit == b'0')
}

fn starts_again(engine: &dyn Engine) {
    let image = Image::extension().hook("start", "echo start >> $NOTES/starts");
    let extension = Deployment::of(image, engine);
    extension.run(&[]).ok();
    extension.assert_deployed();
    extension.start().ok();
    extension.assert_deployed();
    assert_eq!(extension.image.read("starts"), "start\nstart\n");
    extension.remove();
}

fn brings_a_kernel(engine: &dyn Engine) {
    let mut image = Image::extension().hook("start", "touch $NOTES/started");
    // What an ABI is, is known without an engine that makes volumes.
    image.label("io.balena.image.kernel-abi-id", "not-an-ABI");
    fs::create_dir(image.rootfs().join("boot")).unwrap();
    fs::write(image.rootfs().join("boot/vmlinuz"), "").unwrap();
    let extension = Deployment::of(image, engine);
    let refused = |finished: Finished| {
        // A client that waits exits with the status of the container. No client reports a failed start.
        assert!(matches!(finished.code(), 0 | 1), "{finished}");
        assert!(!finished.text().contains("OCI runtime"), "{finished}");
        extension.assert_status(Status::Exited(1));
        extension.logs_up_to("the image brings its own kernel");
    };
    refused(extension.run(&[]));
    refused(extension.start());
    assert!(!extension.image.note("started").exists(), "hooks/start ran");
    extension.remove();
}
