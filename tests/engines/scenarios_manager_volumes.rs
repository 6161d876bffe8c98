//! The fabricated volumes on a real dockerd: cleanup finds out from the engine's lists which of them are claimed, and
//! the engine's ids are those that the volumes are named after.

use crate::docker::Docker;
use crate::image::Image;
use crate::scenarios_manager::{ABI, Pinned, deploy, json, labelled, manager};
use crate::test_list::Suite;

const OVERLAY: &str = "--label=io.balena.image.class=overlay";
const SERVICE: &str = "--label=io.balena.service-name=kernel";

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("manager::fabricated_volumes_are_removed_with_their_last_container", || {
        let docker = Docker::start(&[]);
        unclaimed(&docker);
        with_failed_container(&docker);
        with_dead_container(&docker);
    });
}

fn claiming() -> Image {
    labelled(ABI, &"ab".repeat(32))
}

/// Makes the volume as `create` does, from the ids in the container store.
fn fabricate(docker: &Docker, container: &str, service: Option<&str>) -> String {
    let (id, image) =
        (docker.inspect(container, "{{.Id}}"), docker.inspect(container, "{{.Image}}"));
    let record = docker.data_root().join("containers").join(&id).join("config.v2.json");
    let record = std::fs::read_to_string(record).unwrap();
    assert!(record.contains(&format!("\"Image\":\"{image}\"")), "{record}");
    let short = image.strip_prefix("sha256:").unwrap().get(..12).unwrap();
    let volume = format!("ext_{}_{short}_boot", service.unwrap_or(id.get(..12).unwrap()));
    create(docker, &volume, &[OVERLAY]);
    volume
}

fn create(docker: &Docker, volume: &str, labels: &[&str]) {
    docker.docker(&[&["volume", "create"], labels, &[volume]].concat()).ok();
}

fn volumes(docker: &Docker) -> Vec<String> {
    let listed = docker.docker(&["volume", "ls", "--quiet"]).ok();
    listed.out.lines().map(str::to_owned).collect()
}

fn is_there(docker: &Docker, volume: &str) -> bool {
    volumes(docker).iter().any(|name| name == volume)
}

fn unclaimed(docker: &Docker) {
    let used = "ext_used_0123456789ab_boot";
    create(docker, used, &[OVERLAY]);
    let mount = format!("--volume={used}:/data");
    let _images = [
        deploy(docker, "named", claiming(), &[SERVICE]),
        deploy(docker, "unnamed", claiming(), &[]),
        deploy(docker, "user", Image::unlabelled(), &[&mount]),
    ];
    let mut kept = vec![
        fabricate(docker, "named", Some("kernel")),
        fabricate(docker, "unnamed", None),
        used.to_owned(),
    ];
    for (name, labels) in [("ext_foreign_0123456789ab_boot", &[][..]), ("other_boot", &[OVERLAY])] {
        create(docker, name, labels);
        kept.push(name.to_owned());
    }
    create(docker, "ext_kernel_0123456789ab_boot", &[OVERLAY]);
    let dry = json(&manager(docker, &["cleanup", "--dry-run", "--format", "json"]).ok());
    assert!(is_there(docker, "ext_kernel_0123456789ab_boot"), "a dry run removes nothing");
    let real = json(&manager(docker, &["cleanup", "--format", "json"]).ok());
    assert_eq!(dry["summary"], real["summary"], "{dry:#} {real:#}");
    assert_eq!(real["summary"]["remove"], 1, "{real:#}");
    let mut left = volumes(docker);
    left.sort_unstable();
    let mut expected = kept.clone();
    expected.sort_unstable();
    assert_eq!(left, expected);
    manager(docker, &["cleanup"]).ok().says("0 removed");

    // Both extensions are stale, because this machine boots its own kernel.
    manager(docker, &["cleanup", "--stale-os"]).ok();
    let left = volumes(docker);
    for (index, volume) in kept.iter().enumerate() {
        assert_eq!(left.contains(volume), index > 1, "{volume} in {left:?}");
    }
}

/// The volume of a failed container is removed with it, unless another container claims it too.
fn with_failed_container(docker: &Docker) {
    let failing = claiming().hook("start", "exit 3");
    let image = deploy(docker, "bad", failing, &[SERVICE]);
    let volume = fabricate(docker, "bad", Some("kernel"));
    docker.docker(&["create", "--name=good", "--runtime=extension", SERVICE, &image.name]).ok();
    manager(docker, &["cleanup"]).ok().says("1 removed");
    assert!(is_there(docker, &volume), "the other container claims it");
    docker.docker(&["start", "good"]).fails_with(1);
    manager(docker, &["cleanup"]).ok().says("2 removed");
    assert!(!is_there(docker, &volume));
}

/// A container that the engine cannot remove completely still claims its volume.
fn with_dead_container(docker: &Docker) {
    let _image = deploy(docker, "half", claiming(), &[SERVICE]);
    let volume = fabricate(docker, "half", Some("kernel"));
    let pinned = Pinned::pin(docker);
    docker.docker(&["rm", "half"]).fails_with(1);
    let tried = json(&manager(docker, &["cleanup", "--format", "json"]).ok());
    let objects = tried["objects"].as_array().unwrap();
    let result = |kind: &str| {
        let of_kind =
            |object: &&serde_json::Value| object["kind"] == kind && object["action"] == "remove";
        objects.iter().find(of_kind).unwrap()["result"].clone()
    };
    assert_eq!((result("container"), result("volume")), ("left-dead".into(), "claimed".into()));
    assert!(is_there(docker, &volume));
    drop(pinned);
    manager(docker, &["cleanup"]).ok().says("2 removed");
    assert!(!is_there(docker, &volume));
}
