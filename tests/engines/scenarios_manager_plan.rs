//! `plan` on a real dockerd: it finds the layers that the engine itself names, with the engine up and without it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::docker::Docker;
use crate::engine::Engine as _;
use crate::image::Image;
use crate::scenarios_manager::{OS, deploy, labelled, manager};
use crate::test_list::Suite;

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("manager::a_plan_has_the_layers_of_the_engine_and_is_the_same_without_it", || {
        same_without_engine(&Docker::start(&[]));
    });
}

fn same_without_engine(docker: &Docker) {
    let _images = [
        deploy(docker, "below", Image::extension().hook("start", "true"), &[]),
        deploy(docker, "stale", labelled(OS, "0.*"), &[]),
        deploy(
            docker,
            "above",
            labelled("io.balena.image.override", "7").hook("start", "true"),
            &[],
        ),
    ];
    // An image of two layers, the upper one of which it has in common with no other.
    let base = Image::extension();
    docker.import(&base);
    docker.docker(&["create", "--runtime=extension", "--name=base", &base.name]).ok();
    let file = base.note("added");
    std::fs::write(&file, "added").unwrap();
    docker.docker(&["cp", file.to_str().unwrap(), "base:/added"]).ok();
    docker.docker(&["commit", "base", "two-layers"]).ok();
    docker.docker(&["create", "--runtime=extension", "--name=two", "two-layers"]).ok();

    let up = planned(docker, &[]);
    let root = docker.data_root();
    let without = ["--host=unix:///run/nowhere.sock", "--docker-root", root.to_str().unwrap()];
    let down = planned(docker, &without);
    for field in
        ["layers", "lowerdir", "length", "nothingLayered", "system", "osLayers", "unreadable"]
    {
        assert_eq!(up[field], down[field], "{field}: {up:#} {down:#}");
    }
    assert_eq!((&up["source"], &down["source"]), (&json!("engine"), &json!("store")));
    assert_eq!(predictions(&up), predictions(&down), "{up:#} {down:#}");
    for (name, plan, place) in [
        ("above", "layered", json!("above-os")),
        ("base", "layered", json!("below-os")),
        ("below", "layered", json!("below-os")),
        ("two", "layered", json!("below-os")),
        ("stale", "stale", json!("below-os")),
    ] {
        let [found_plan, _, found_place, ..] = &predictions(&up)[name][..] else { panic!() };
        assert_eq!((found_plan, found_place), (&json!(plan), &place), "{name}: {up:#}");
    }

    // Each layer once: what `two` is built on is at the place of the last one that has it.
    let names = ["above", "base", "below", "stale", "two"];
    let mut chains = BTreeMap::new();
    for name in names {
        let inspected = docker.inspect(name, "{{json .GraphDriver.Data}}");
        let data: Value = serde_json::from_str(&inspected).unwrap();
        let text = |field: &str| data[field].as_str().unwrap().to_owned();
        let all = format!("{}:{}", text("UpperDir"), text("LowerDir"));
        let layers = all.split(':').filter(|layer| !layer.ends_with("-init/diff"));
        chains.insert(docker.id(name), layers.map(str::to_owned).collect::<Vec<_>>());
    }
    assert_eq!(chains[&docker.id("two")].len(), 3, "{chains:?}");
    let layers = up["layers"].as_array().unwrap();
    let directories: Vec<&str> =
        layers.iter().filter_map(|layer| layer["directory"].as_str()).collect();
    let order = up["extensions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap());
    let all: Vec<&String> = order.flat_map(|id| &chains[id]).collect();
    let last = (0..all.len()).filter(|at| !all[at + 1..].contains(&all[*at]));
    let expected: Vec<&str> = last.map(|at| all[at].as_str()).collect();
    assert_eq!(directories, expected, "{up:#}");

    // Sizes are the engine's.
    let bytes = |one: &Value| {
        let size = one["imageBytes"].as_u64().unwrap_or_else(|| panic!("{one:#}"));
        (one["name"].as_str().unwrap().to_owned(), size)
    };
    let sizes: BTreeMap<String, u64> =
        up["extensions"].as_array().unwrap().iter().map(bytes).collect();
    assert!(sizes["two"] > sizes["base"], "{sizes:?}");
    assert!(up["staleOs"]["remove"].as_u64().is_some_and(|count| count > 0), "{up:#}");
    assert!(down["staleOs"]["unreadable"].is_string(), "{down:#}");
    assert!(down["extensions"].as_array().unwrap().iter().all(|one| one["imageBytes"].is_null()));
}

fn planned(docker: &Docker, words: &[&str]) -> Value {
    let finished = manager(docker, &[&["plan", "--format", "json"], words].concat());
    assert!(matches!(finished.code(), 0 | 1), "{finished}");
    serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// What is predicted of each extension, by name.
fn predictions(document: &Value) -> BTreeMap<String, Vec<Value>> {
    let fields = ["plan", "reason", "place", "order", "layers", "now", "lost", "hides", "hidden"];
    let all = document["extensions"].as_array().unwrap().iter();
    let facts = all.map(|one| {
        let name = one["name"].as_str().unwrap().to_owned();
        (name, fields.map(|field| one[field].clone()).to_vec())
    });
    facts.collect()
}
