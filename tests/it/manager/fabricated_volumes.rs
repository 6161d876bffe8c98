//! `cleanup` and the fabricated volumes: each is kept as long as a container claims it, and nothing else counts.

use serde_json::{Value, json};

use super::host::Host;
use super::recorded_engine::Answer;
use super::recorded_store::{ABI, Container, Contents, KERNEL, SERVICE, Store, labels};

/// The volume of [`claiming`] for its service.
const VOLUME: &str = "ext_kernel_aaaaaaaaaaaa_boot";

fn claiming(id: &str) -> Container {
    Container {
        labels: labels(&[(ABI, &"ab".repeat(32)), (SERVICE, "kernel")]),
        image: format!("sha256:{}", "a".repeat(64)),
        ..Container::new(id)
    }
}

fn failed(container: Container) -> Container {
    Container { error: "it did not start", state: "created", ..container }
}

fn store(containers: &[Container], volumes: &[&str]) -> Store {
    let volumes = volumes.iter().map(|name| ((*name).to_owned(), labels(&[])));
    let (containers, volumes) = (containers.to_vec(), volumes.collect());
    Store::new(Contents { containers, volumes, ..Contents::default() })
}

fn volumes(store: &Store) -> Vec<String> {
    store.contents().volumes.iter().map(|(name, _)| name.clone()).collect()
}

/// The row of a volume.
fn row(document: &Value, name: &str) -> Value {
    let objects = document["objects"].as_array().unwrap();
    let found = objects.iter().find(|object| object["id"] == name);
    found.unwrap_or_else(|| panic!("{name} in {document:#}")).clone()
}

#[test]
fn only_fabricated_volumes_that_nobody_claims_are_removed() {
    let (host, by_id) = (Host::new(), "ext_0123456789ab_aaaaaaaaaaaa_boot");
    let unnamed =
        Container { labels: labels(&[(ABI, &"ab".repeat(32))]), ..claiming("0123456789abcdef") };
    let user = Container {
        volumes: vec![("ext_used_aaaaaaaaaaaa_boot".to_owned(), "/nowhere".to_owned())],
        labels: Value::Null,
        ..Container::new("user")
    };
    let old = "ext_kernel_bbbbbbbbbbbb_boot";
    let others = ["ext_used_aaaaaaaaaaaa_boot", "data", "ext_boot", "my_ext_a_boot"];
    let store =
        store(&[claiming("a"), unnamed, user], &[&[VOLUME, by_id, old], &others[..]].concat());
    // A volume of that name which is not an extension's.
    store.contents().volumes.push(("ext_foreign_a_boot".to_owned(), Value::Null));
    let engine = host.engine(&store);
    let dry = host.manager(&["cleanup", "--dry-run", "--format", "json"]).ok().json();
    assert_eq!(row(&dry, old)["action"], "remove");
    assert_eq!(engine.removals(), [""; 0]);
    let finished = host.manager(&["cleanup"]).ok();
    assert!(finished.out.contains("1 removed, 4 kept, 0 failed; 10 B freed"), "{finished}");
    assert!(finished.out.contains("no extension claims the kernel in it any more"), "{finished}");
    assert_eq!(engine.removals(), [format!("DELETE /v1.41/volumes/{old}")]);
    let kept = [&[VOLUME, by_id], &others[..], &["ext_foreign_a_boot"]].concat();
    assert_eq!(volumes(&store), kept);
    host.manager(&["cleanup"]).ok();
    let again = host.manager(&["cleanup", "--verbose", "--format", "json"]).ok().json();
    assert_eq!(row(&again, VOLUME)["reason"], "in-use");
    assert_eq!(again["summary"]["remove"], 0);
}

/// A volume that is listed was made for a container that exists already, so it is not missing in the later list.
#[test]
fn volumes_are_listed_before_containers() {
    for words in [&["cleanup"][..], &["cleanup", "--stale-os"]] {
        let (host, store) = (Host::new(), store(&[], &[]));
        let engine = host.engine(&store);
        host.manager(words).ok();
        let requests = engine.requests();
        let place = |begin: &str| requests.iter().position(|line| line.contains(begin)).unwrap();
        assert!(place("/volumes?") < place("/containers/json?"), "{requests:#?}");
    }
}

#[test]
fn the_volume_of_a_failed_container_is_removed_after_it() {
    let (host, store) = (Host::new(), store(&[failed(claiming("a"))], &[VOLUME]));
    let engine = host.engine(&store);
    let document = host.manager(&["cleanup", "--format", "json"]).ok().json();
    assert_eq!(row(&document, VOLUME)["reason"], "unclaimed");
    assert_eq!(row(&document, VOLUME)["result"], "removed");
    let is_removal = |line: &String| line.starts_with("DELETE");
    let removals: Vec<String> = engine.requests().into_iter().filter(is_removal).collect();
    assert_eq!(
        removals,
        [
            "DELETE /v1.41/containers/a?v=true&force=true".to_owned(),
            format!("DELETE /v1.41/volumes/{VOLUME}"),
        ]
    );
}

#[test]
fn a_volume_is_kept_with_a_container_that_could_not_be_removed() {
    for (state, container_result, code) in
        [("created", "failed", 1), ("dead", "left-dead", 0), ("removing", "being-removed", 0)]
    {
        let containers = [failed(claiming("a")), failed(claiming("b"))];
        let (host, store) = (Host::new(), store(&containers, &[VOLUME, "ext_x_bbbbbbbbbbbb_boot"]));
        let seen = store.clone();
        let engine = host.engine_but(&store, move |method, path| {
            if method != "DELETE" || !path.starts_with("/containers/a?") {
                return None;
            }
            seen.contents().containers.iter_mut().for_each(|one| {
                if one.id == "a" {
                    one.state = state;
                }
            });
            Some(Answer::Json(409, json!({ "message": "in the way" })))
        });
        let finished = host.manager(&["cleanup", "--format", "json"]);
        assert_eq!(finished.code(), code, "{finished}");
        let document = finished.json();
        assert_eq!(row(&document, "a")["result"], container_result);
        assert_eq!(row(&document, VOLUME)["result"], "claimed", "{document:#}");
        assert_eq!(row(&document, VOLUME)["error"], Value::Null);
        assert_eq!(row(&document, "ext_x_bbbbbbbbbbbb_boot")["result"], "removed");
        assert_eq!(volumes(&store), [VOLUME], "{state}");
        assert!(!engine.removals().iter().any(|line| line.contains(VOLUME)));
        assert_eq!(document["summary"]["bytes"], 10, "that of the other volume");
    }
}

#[test]
fn a_claim_that_cannot_be_determined_keeps_all_volumes_and_fails() {
    for image in ["", "alpine"] {
        let unknown = Container { image: image.to_owned(), ..claiming("a") };
        let containers = [unknown, failed(Container::new("b"))];
        let (host, store) = (Host::new(), store(&containers, &["ext_x_bbbbbbbbbbbb_boot"]));
        let engine = host.engine(&store);
        let finished = host.manager(&["cleanup"]);
        assert_eq!(finished.code(), 1, "{finished}");
        let why = "volume ext_x_bbbbbb (ext_x_bbbbbbbbbbbb_boot) is kept: no decision is possible: cannot determine \
                   the volume of container name-of-a: the id of the container's image";
        assert!(finished.err.contains(why), "{finished}");
        assert_eq!(engine.removals(), ["DELETE /v1.41/containers/b?v=true&force=true"]);
    }
}

#[test]
fn a_list_of_volumes_that_is_missing_fails_after_the_containers_are_removed() {
    let (host, store) = (Host::new(), store(&[failed(claiming("a"))], &[VOLUME]));
    let _engine = host.engine_but(&store, |_, path| {
        let message = json!({ "message": "disk on fire" });
        path.starts_with("/volumes?").then_some(Answer::Json(500, message))
    });
    let finished = host.manager(&["cleanup"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("cannot list the volumes: the engine answered"), "{finished}");
    assert!(finished.out.contains("1 removed, 0 kept, 1 failed"), "{finished}");
    assert!(store.ids().is_empty());
    assert_eq!(volumes(&store), [VOLUME]);
}

#[test]
fn a_container_that_cannot_be_parsed_may_claim_any_volume() {
    let (host, store) = (Host::new(), store(&[], &[VOLUME]));
    let engine = host.engine_but(&store, |_, path| {
        path.starts_with("/containers/json").then(|| Answer::Json(200, json!([{ "Id": null }])))
    });
    let finished = host.manager(&["cleanup"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.out.contains("another object may claim it"), "{finished}");
    assert_eq!(engine.removals(), [""; 0]);
}

/// The labels of the volume are stale, and those of its container are not.
#[test]
fn a_claimed_volume_is_in_use_for_the_removal_of_stale_volumes() {
    let host = Host::new();
    host.write("proc/cmdline", &format!("balena_kernel_abi={}\n", "ab".repeat(32)));
    let stale = labels(&[(KERNEL, "5.10.0")]);
    let volumes = vec![(VOLUME.to_owned(), stale.clone()), ("old".to_owned(), stale)];
    let containers = vec![claiming("a")];
    let store = Store::new(Contents { containers, volumes, ..Contents::default() });
    let engine = host.engine(&store);
    let document = host.manager(&["cleanup", "--stale-os", "--format", "json"]).ok().json();
    assert_eq!(row(&document, VOLUME)["reason"], "in-use");
    assert_eq!(engine.removals(), ["DELETE /v1.41/volumes/old"]);
    host.write("proc/cmdline", "quiet\n");
    let document = host.manager(&["cleanup", "--stale-os", "--format", "json"]).ok().json();
    assert_eq!(row(&document, "a")["result"], "removed");
    assert_eq!(row(&document, VOLUME)["result"], "removed");
}
