//! Scenarios that only Podman has: conmon's signal mask, restarts without an engine, containers that are
//! initialized but not started.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::command::{LIMIT, run};
use crate::deployment::Deployment;
use crate::engine::{Engine as _, Engines};
use crate::finished::Finished;
use crate::image::{Image, touch};
use crate::podman::Podman;
use crate::proc_fs::{Process, processes};
use crate::process::wait_for_within;
use crate::processes::{assert_no_process, proxy_of};
use crate::sandbox::{MANAGER, RUNTIME};
use crate::test_list::Suite;

type Scenario = fn(&Podman);

const SCENARIOS: [(&str, Scenario); 7] = [
    ("restart_always_continues_although_conmon_blocks_sigusr1", restart_always),
    ("initialized_containers_can_be_stopped_killed_and_removed", initialized),
    ("annotations_serve_as_labels_and_win_over_the_store", annotations),
    ("the_networks_host_and_none_work", networks),
    ("a_root_filesystem_without_an_image_deploys", plain_rootfs),
    ("a_missing_label_is_named", no_label),
    ("the_manager_uses_the_record_because_podman_keeps_no_errors", manager_uses_the_record),
];

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for (name, scenario) in SCENARIOS {
        let engines = Arc::clone(engines);
        suite.test(format!("podman::{name}"), move || scenario(engines.podman()));
    }
    suite.test("podman::the_host_keeps_its_network_whatever_the_bridge", bridges);
    suite.test("podman::without_root_a_deploy_is_refused_before_anything_runs", rootless);
}

/// Podman's API service. It ends when this is dropped.
struct Service {
    process: std::process::Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(podman: &Podman) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("podman.sock");
        let url = format!("unix://{}", socket.display());
        let mut service = podman.client();
        let process = service.args(["system", "service", "--time=0", &url]).spawn().unwrap();
        // It exists a moment before it takes connections.
        wait_for_within(LIMIT, "Podman's socket", || UnixStream::connect(&socket).ok());
        Self { process, socket, _folder: folder }
    }

    fn manager(&self, arguments: &[&str]) -> Finished {
        run(Command::new(MANAGER).arg("--host").arg(&self.socket).args(arguments))
    }

    /// `verdict reason` of a container.
    fn verdict(&self, name: &str) -> String {
        let status = self.manager(&["status", "--format", "json", name]).ok();
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
        let text = |field: &str| status["extensions"][0][field].as_str().unwrap().to_owned();
        format!("{} {}", text("verdict"), text("reason"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn manager_uses_the_record(podman: &Podman) {
    let failing = |hook| Image::extension().hook(hook, "echo no such radio; exit 3");
    let deploy = |image| {
        let extension = Deployment::of(image, podman);
        drop(extension.run(&["--detach"]));
        extension
    };
    let no_create = deploy(failing("create"));
    let no_start = deploy(failing("start"));
    let good = deploy(Image::extension().hook("start", "true"));
    let files = deploy(Image::extension());
    let forgotten = deploy(failing("create"));
    let service = Service::start(podman);
    assert_eq!(service.verdict(&no_create.name), "failed create-failed");
    assert_eq!(service.verdict(&no_start.name), "failed start-failed");
    assert_eq!(service.verdict(&good.name), "applied hooks-ran");
    assert_eq!(service.verdict(&files.name), "pending-reboot no-hooks");
    // As after a reboot.
    let record = format!("/run/balena-extension-runtime-deploys/{}.json", forgotten.id());
    std::fs::remove_file(record).unwrap();
    // Podman 5 keeps the error itself, 4.3 does not.
    let error = ["inspect", "--type=container", "--format={{.State.Error}}", &forgotten.name];
    let kept = !podman.podman(&error).ok().out.trim().is_empty();
    let (verdict, of_forgotten) =
        if kept { ("failed create-failed", "remove") } else { ("unknown outcome-unknown", "keep") };
    assert_eq!(service.verdict(&forgotten.name), verdict);

    // Other tests share this Podman, so only these containers are compared.
    let dry = service.manager(&["cleanup", "--dry-run", "--verbose", "--format", "json"]).ok();
    let dry: serde_json::Value = serde_json::from_str(&dry.out).unwrap();
    let action = |extension: &Deployment<'_>| {
        let id = extension.id();
        let objects = dry["objects"].as_array().unwrap();
        let object = objects.iter().find(|one| one["id"] == id.as_str()).unwrap();
        object["action"].as_str().unwrap().to_owned()
    };
    for (extension, expected) in [
        (&no_create, "remove"),
        (&no_start, "remove"),
        (&good, "keep"),
        (&files, "keep"),
        (&forgotten, of_forgotten),
    ] {
        assert_eq!(action(extension), expected, "{dry:#}");
    }
}

fn restart_always(podman: &Podman) {
    let image = Image::extension().hook("start", "echo start >> $NOTES/starts");
    let extension = Deployment::of(image, podman);
    extension.run(&["--detach", "--restart=always"]).ok();
    wait_for_within(LIMIT, "four starts", || {
        (extension.image.read("starts").lines().count() >= 4).then_some(())
    });
    let id = extension.id();
    podman.podman(&["rm", "--force", "--time=1", &extension.name]).ok();
    assert_no_process(&id);
}

fn initialized(podman: &Podman) {
    let create = |extension: &Deployment<'_>| {
        let (name, image) = (&extension.name, &extension.image.name);
        podman.podman(&["create", "--name", name, "--network=none", image]).ok();
        podman.podman(&["init", name]).ok();
        let id = extension.id();
        assert!(proxy_of(&id).is_alive());
        id
    };
    let image = || Image::extension().hook("start", "echo start >> $NOTES/starts");

    let started = Deployment::of(image(), podman);
    let id = create(&started);
    started.start().ok();
    started.assert_deployed();
    assert_eq!(started.image.read("starts"), "start\n");
    podman.podman(&["rm", &started.name]).ok();
    assert_no_process(&id);

    let removed = Deployment::of(image(), podman);
    let id = create(&removed);
    podman.podman(&["rm", "--force", "--time=1", &removed.name]).ok();
    assert_no_process(&id);
    assert_eq!(removed.image.read("starts"), "");
}

fn annotations(podman: &Podman) {
    let mut image = Image::unlabelled().hook("create", "env > $NOTES/environment");
    image.label("io.balena.image.override", "3");
    let extension = Deployment::of(image, podman);
    extension.run(&["--annotation=io.balena.image.class=overlay"]).ok();
    extension.assert_deployed();
    let environment = extension.image.read("environment");
    assert!(environment.contains("EXTENSION_IMAGE_CLASS=overlay\n"), "{environment}");
    // All labels come from the first source that has the class.
    assert!(!environment.contains("EXTENSION_IMAGE_OVERRIDE"), "{environment}");
    extension.remove();
}

fn networks(podman: &Podman) {
    for network in ["--network=none", "--network=host"] {
        let extension = Deployment::of(Image::extension(), podman);
        extension.run(&[network]).ok();
        extension.assert_deployed();
        extension.remove();
    }
}

/// The addresses and routes of a host, without Podman's bridges and the interfaces on them.
const SURVEY: &str = "
    ip -oneline addr | grep -v -e podman -e veth | sed 's/ tentative//' | sed 's/valid_lft.*//'
    ip route | grep -v podman
    ip -6 route | grep -v -e podman -e veth";

fn bridges() {
    const UPLINK: &str = "
        ip link set lo up
        ip link add uplink0 type veth peer name elsewhere
        ip link set uplink0 up
        ip link set elsewhere up
        ip addr add 192.0.2.7/24 dev uplink0
        ip route add default via 192.0.2.1";
    let podman = Podman::apart();
    let shell = |script: &str| run(podman.on_its_host("sh").args(["-ec", script])).ok().out;
    shell(UPLINK);
    podman.podman(&["network", "create", "--subnet=10.97.0.0/24", "mine"]).ok();
    let before = shell(SURVEY);
    assert!(before.contains("192.0.2.7") && before.contains("default via 192.0.2.1"), "{before}");
    for network in ["bridge", "mine"] {
        let hook = "pwd -P > $NOTES/started; while [ ! -e $NOTES/go ]; do sleep 0.05; done";
        let extension = Deployment::of(Image::extension().hook("start", hook), &podman);
        let mut running = extension.begin_run(&[&format!("--network={network}")]);
        // `podman ps` would wait until the start is over.
        let bundle = extension.await_note(&mut running, "started");
        let proxy = proxy_of(&podman.id_of_bundle(Path::new(bundle.trim())));
        let inside = format!("--net={}", proxy.path("ns/net").display());
        let addresses = run(Command::new("nsenter").args([&inside, "ip", "-oneline", "addr"])).ok();
        let during = shell(SURVEY);
        touch(&extension.image.note("go"));
        running.finish_within(LIMIT).ok();
        extension.assert_deployed();
        assert!(
            addresses.out.contains(" eth0 ") && addresses.out.contains("inet 10."),
            "{addresses}"
        );
        assert_eq!(during, before, "during a deployment on {network}");
        extension.remove();
        assert_eq!(shell(SURVEY), before, "after a deployment on {network}");
    }
}

fn plain_rootfs(podman: &Podman) {
    let image = Image::extension().hook("start", "echo started > $NOTES/started");
    let extension = Deployment::of(image, podman);
    let rootfs = extension.image.rootfs().display().to_string();
    let label = "--annotation=io.balena.image.class=overlay";
    let words = ["run", "--name", &extension.name, "--network=none", label, "--rootfs", &rootfs];
    podman.podman(&[&words[..], &["extension"]].concat()).ok();
    extension.assert_deployed();
    assert_eq!(extension.image.read("started"), "started\n");
    extension.remove();
}

fn no_label(podman: &Podman) {
    let extension = Deployment::of(Image::unlabelled(), podman);
    let failed = extension.run(&[]);
    assert!(!failed.succeeded(), "{failed}");
    failed.says("missing required label io.balena.image.class");
}

/// The Podman of an ordinary user is root of a user namespace. Its hooks could not change the host.
fn rootless() {
    const USER: u32 = 65534;
    let home = tempfile::Builder::new().prefix("rootless").tempdir().unwrap();
    let image = Image::extension().hook("create", "id > $NOTES/ran");
    let (layer, notes) = (image.tar(), image.notes());
    std::os::unix::fs::chown(home.path(), Some(USER), Some(USER)).unwrap();
    for folder in [notes.parent().unwrap(), &notes] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        let in_home = |name: &str| home.path().join(name);
        command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
        command.env("TMPDIR", home.path()).env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        command.args(["--root".into(), in_home("root"), "--runroot".into(), in_home("run")]);
        command.args(["--tmpdir".into(), in_home("tmp")]);
        command.args(["--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime", RUNTIME]);
        run(command.args(arguments).uid(USER).gid(USER).current_dir("/"))
    };
    let layer = layer.display().to_string();
    let changes = image.changes();
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    podman(&[&["import"], &changes[..], &[&layer, &image.name]].concat()).ok();
    let words = ["run", "--network=none", "--log-driver=k8s-file"];
    let refused = podman(&[&words[..], &[&image.name]].concat());
    // The process that holds the user namespace.
    let is_the_users = |process: &Process| process.status("Uid").starts_with(&USER.to_string());
    processes().into_iter().filter(is_the_users).for_each(|one| one.signal(Signal::SIGKILL));
    run(Command::new("rm").arg("-rf").arg(home.path().join("root"))).ok();
    assert!(!refused.succeeded(), "{refused}");
    refused.says("must run as root of the host, not of a user namespace");
    assert_eq!(image.read("ran"), "");
}
