//! What only Podman does: conmon's signal mask, restarts without an engine, containers that are
//! initialized but not started.

use std::sync::Arc;
use std::time::Duration;

use crate::command::wait_for;
use crate::deployment::Deployment;
use crate::engine::Engines;
use crate::image::Image;
use crate::podman::Podman;
use crate::suite::Suite;
use crate::witness::{assert_gone, proxy_of};

type Scenario = fn(&Podman);

const SCENARIOS: [(&str, Scenario); 6] = [
    ("restart_always_goes_on_although_conmon_blocks_sigusr1", restart_always),
    ("initialized_containers_can_be_stopped_killed_and_removed", initialized),
    ("annotations_serve_as_labels_and_win_over_the_store", annotations),
    ("the_networks_host_and_none_work", networks),
    ("a_root_filesystem_without_an_image_deploys", plain_rootfs),
    ("a_missing_label_is_named", no_label),
];

pub(crate) fn add_to(suite: &mut Suite, engines: &Arc<Engines>) {
    for (name, scenario) in SCENARIOS {
        let engines = Arc::clone(engines);
        suite.test(format!("podman::{name}"), move || scenario(engines.podman()));
    }
}

fn restart_always(podman: &Podman) {
    let image = Image::extension().hook("start", "echo start >> $NOTES/starts");
    let extension = Deployment::of(image, podman);
    extension.run(&["--detach", "--restart=always"]).ok();
    wait_for("four starts", Duration::from_secs(30), || {
        (extension.image.read("starts").lines().count() >= 4).then_some(())
    });
    let id = extension.id();
    podman.podman(&["rm", "--force", "--time=1", &extension.name]).ok();
    assert_gone(&id);
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
    assert_gone(&id);

    let removed = Deployment::of(image(), podman);
    let id = create(&removed);
    podman.podman(&["rm", "--force", "--time=1", &removed.name]).ok();
    assert_gone(&id);
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
    // The first source that names the class is taken whole.
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
    assert!(!failed.status.success(), "{failed}");
    failed.says("missing required label io.balena.image.class");
}
