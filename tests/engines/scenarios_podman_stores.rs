//! The stores in which Podman keeps the labels of an image.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command::run;
use crate::deployment::Deployment;
use crate::engine::Engine as _;
use crate::image::Image;
use crate::podman::Podman;
use crate::test_list::Suite;

const SCENARIOS: [(&str, fn()); 7] = [
    ("labels_come_from_an_additional_image_store", additional_store),
    ("labels_come_from_the_image_stores_of_storage_conf", storage_conf),
    ("labels_come_from_an_image_store_apart", image_store_apart),
    ("labels_come_by_a_transient_store", transient_store),
    ("labels_come_with_a_user_namespace", user_namespace),
    ("labels_are_found_even_if_the_images_id_is_not_the_digest_of_its_configuration", other_id),
    ("missing_labels_are_reported_with_the_cause_and_the_fix", nowhere),
];

/// The mapping of the host's ids in a container.
const USER_NAMESPACE: &str = "--uidmap=0:100000:65536";

pub(crate) fn add_to(suite: &mut Suite) {
    for (name, scenario) in SCENARIOS {
        suite.test(format!("podman::{name}"), scenario);
    }
}

/// Whether this Podman has `--imagestore` and `--transient-store`.
fn is_new(podman: &Podman) -> bool {
    !podman.podman(&["--version"]).ok().out.contains("version 4.")
}

fn image() -> Image {
    let mut image = Image::extension().hook("create", "env > $NOTES/environment");
    image.label("io.balena.image.override", "3");
    image
}

/// Deploys `image`, and fails unless the hook got the labels.
#[track_caller]
fn deploys(podman: &Podman, image: Image, arguments: &[&str]) {
    let extension = Deployment { engine: podman, image, name: "one".to_owned() };
    extension.run(arguments).ok();
    extension.assert_deployed();
    let environment = extension.image.read("environment");
    assert!(environment.contains("EXTENSION_IMAGE_OVERRIDE=3\n"), "{environment}");
    extension.remove();
}

fn additional_store() {
    let shipped = Podman::new();
    let image = image();
    shipped.import(&image);
    let store = format!("--storage-opt=overlay.imagestore={}", shipped.graph_root().display());
    deploys(&Podman::new().with(&[&store]), image, &[]);
}

/// In a user namespace the layers are mounted again elsewhere, so that only the configuration leads to them.
fn storage_conf() {
    let shipped = Podman::new();
    let image = image();
    shipped.import(&image);
    let podman = Podman::apart();
    let folder = image.note("containers");
    let store = shipped.graph_root().display().to_string();
    let text = format!(
        "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers/storage\"\n\
         graphroot = \"/var/lib/containers/storage\"\n\
         [storage.options]\nadditionalimagestores = [\n  \"{store}\", # read only\n]\n"
    );
    run(Command::new("cp").arg("-a").arg("/etc/containers").arg(&folder)).ok();
    fs::write(folder.join("storage.conf"), text).unwrap();
    let mount = ["--bind".as_ref(), folder.as_os_str(), "/etc/containers".as_ref()];
    run(podman.on_its_host("mount").args(mount)).ok();
    // With `--root`, Podman only uses the stores of its options.
    let podman = podman.with(&["--storage-opt", &format!("overlay.imagestore={store}")]);
    deploys(&podman, image, &[USER_NAMESPACE]);
}

fn image_store_apart() {
    let images = tempfile::Builder::new().prefix("images").tempdir().unwrap();
    let option = format!("--imagestore={}", images.path().display());
    let podman = Podman::new();
    if is_new(&podman) {
        let (podman, image) = (podman.with(&[&option]), image());
        podman.import(&image);
        deploys(&podman, image, &[]);
    }
}

fn transient_store() {
    let podman = Podman::new();
    if is_new(&podman) {
        for arguments in [&[][..], &[USER_NAMESPACE]] {
            let podman = Podman::new().with(&["--transient-store"]);
            let image = image();
            podman.import(&image);
            deploys(&podman, image, arguments);
        }
    }
}

fn user_namespace() {
    let podman = Podman::new();
    let image = image();
    podman.import(&image);
    deploys(&podman, image, &[USER_NAMESPACE]);
}

/// Podman uses such ids when it pulls parts of layers from a registry. The test has no registry, so it gives
/// the image another id afterwards.
fn other_id() {
    let podman = Podman::new();
    let image = image();
    podman.import(&image);
    let images = podman.graph_root().join("overlay-images");
    let list = images.join("images.json");
    let known: serde_json::Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    let old = known[0]["id"].as_str().unwrap();
    let new = "0123456789abcdef".repeat(4);
    let text =
        known.to_string().replacen(&format!("\"id\":\"{old}\""), &format!("\"id\":\"{new}\""), 1);
    fs::write(&list, text).unwrap();
    fs::rename(images.join(old), images.join(&new)).unwrap();
    assert!(podman.podman(&["images", "--no-trunc"]).ok().out.contains(&new));
    deploys(&podman, image, &[]);
}

fn nowhere() {
    let podman = Podman::new();
    let image = Image::extension();
    let rootfs = image.rootfs().display().to_string();
    let words = ["run", "--name=bare", "--network=none", "--rootfs", &rootfs, "extension"];
    let failed = podman.podman(&words);
    assert!(!failed.succeeded(), "{failed}");
    failed
        .says("missing required label io.balena.image.class")
        .says("the list names no image for the container")
        .says("with Podman, --annotation can pass the image's labels");
    podman.podman(&["rm", "--force", "bare"]).ok();
    assert!(Path::new(&rootfs).exists());
}
