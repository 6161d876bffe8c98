//! `cleanup` and `status` on a recorded Podman. It keeps no errors, so the runtime's record decides.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::host::Host;
use super::recorded_engine::Answer;
use super::recorded_store::{Container, Store};

#[test]
fn podman_failures_are_removed_by_the_runtimes_record_and_kept_without_one() {
    let failed = |verb: &str| json!([{ "verb": verb, "time": "", "error": "no such radio" }]);
    let created = |id| Container { state: "created", ..Container::new(id) };
    let store =
        Store::of(&[created("failed"), created("earlier"), created("torn"), created("good")]);
    let host = Host::new();
    host.record("failed", &failed("create"));
    host.deployed("good", &[]);
    host.write("run/balena-extension-runtime-deploys/torn.json", "{");
    let _engine = host.engine_but(&store, |_, path| {
        path.starts_with("/_ping").then_some(Answer::PodmanPing("1.41"))
    });
    let finished = host.manager(&["cleanup", "--format", "json"]);
    assert_eq!(finished.code(), 1, "{finished}");
    let document = finished.json();
    let detail = document["objects"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("create: no such radio"), "{detail}");
    assert_eq!(store.ids(), ["earlier", "torn", "good"]);
    assert!(finished.err.contains("torn.json"), "{finished}");
    let gone = host.path("run/balena-extension-runtime-deploys/failed.json");
    assert!(!gone.exists(), "its record goes with it");
    let seen = host.manager(&["status", "--format", "json"]).ok().json();
    let reasons = seen["extensions"].as_array().unwrap().iter();
    let reasons: Vec<&str> = reasons.map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["outcome-unknown", "record-unreadable", "never-started"]);
}

#[test]
fn a_record_of_a_failure_removes_nothing_of_an_engine_that_keeps_errors() {
    let (store, host) = (Store::of(&[Container::new("a")]), Host::new());
    host.record("a", &json!([{ "verb": "start", "time": "", "error": "no" }]));
    let _engine = host.engine(&store);
    host.manager(&["cleanup"]).ok();
    assert_eq!(store.ids(), ["a"]);
}

#[test]
fn a_podman_failure_that_was_deployed_again_meanwhile_is_kept() {
    let host = Host::new();
    let store = Store::of(&[Container { state: "created", ..Container::new("a") }]);
    host.record("a", &json!([{ "verb": "create", "time": "", "error": "no" }]));
    let record = host.path("run/balena-extension-runtime-deploys/a.json");
    let asked = AtomicUsize::new(0);
    let _engine = host.engine_but(&store, move |_, path| {
        if path.starts_with("/containers/a/") && asked.fetch_add(1, Ordering::SeqCst) == 1 {
            std::fs::remove_file(&record).unwrap();
        }
        path.starts_with("/_ping").then_some(Answer::PodmanPing("1.41"))
    });
    let document = host.manager(&["cleanup", "--format", "json"]).ok().json();
    assert_eq!(document["objects"][0]["result"], "recovered");
    assert_eq!(store.ids(), ["a"]);
}
