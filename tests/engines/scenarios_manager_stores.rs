//! A dry run predicts the real run on a real dockerd: on generated stores it reports, object by object, what
//! the real run then does, and nothing else is removed.
//!
//! Six stores; with `STRESS=full` two hundred.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::docker::Docker;
use crate::engine::Engine as _;
use crate::finished::Finished;
use crate::image::Image;
use crate::numbers::Numbers;
use crate::scenarios_manager::{KERNEL, OS, json, labelled, manager};
use crate::test_list::Suite;

pub(crate) fn add_to(suite: &mut Suite) {
    suite.test("manager::a_dry_run_of_generated_stores_is_the_real_run".to_owned(), || {
        let full = std::env::var("STRESS").is_ok_and(|value| value == "full");
        let docker = Docker::start(&[]);
        let mut numbers = Numbers(20_261_123);
        let rounds = if full { 200 } else { 6 };
        let removed: usize = (0..rounds).map(|round| one(&docker, &mut numbers, round)).sum();
        assert!(removed >= rounds, "the stores have something to remove: {removed}");
    });
}

fn images() -> Vec<Image> {
    let failing = |image: Image| image.hook("start", "exit 3");
    vec![
        Image::extension(),
        labelled(KERNEL, "1.2.3"),
        labelled(OS, "0.*"),
        labelled(OS, "0.*,*"),
        failing(Image::extension()),
        failing(labelled(KERNEL, "1.2.3")),
        // It is not an extension, and it fails as well.
        Image::unlabelled(),
    ]
}

/// Makes a store, cleans it up, and returns the number of removed objects.
fn one(docker: &Docker, numbers: &mut Numbers, round: usize) -> usize {
    let images = images();
    for image in &images {
        docker.import(image);
    }
    let overlay = "--label=io.balena.image.class=overlay";
    let stale = format!("--label={KERNEL}=1.2.3");
    for name in ["v0", "v1", "v2"] {
        let labels: &[&str] = match numbers.below(3) {
            0 => &[],
            1 => &[overlay],
            _ => &[overlay, &stale],
        };
        docker.docker(&[&["volume", "create"], labels, &[name]].concat()).ok();
    }
    for number in 0..numbers.below(6) {
        let image = &images[numbers.below(images.len())];
        let volume = format!("--volume=v{}:/data", numbers.below(3));
        let mut words: Vec<&str> = match numbers.below(3) {
            0 => vec!["create"],
            _ => vec!["run"],
        };
        let name = format!("--name=c{number}");
        words.extend(["--runtime=extension", &name]);
        if numbers.below(2) == 0 {
            words.push(&volume);
        }
        words.push(&image.name);
        // Some of them fail on purpose.
        drop(docker.docker(&words));
    }
    let words: &[&str] = match numbers.below(3) {
        0 => &["cleanup", "--format", "json"],
        _ => &["cleanup", "--stale-os", "--format", "json"],
    };
    let before = objects(docker);
    let dry = json(&manager(docker, &[words, &["--dry-run"]].concat()).ok());
    assert_eq!(objects(docker), before, "round {round}: a dry run removes nothing");
    let real = json(&manager(docker, words).ok());
    assert_eq!(decisions(&dry), decisions(&real), "round {round}");
    assert_eq!(dry["summary"], real["summary"], "round {round}");
    let going = going(&dry);
    let left: BTreeSet<String> = before.difference(&going).cloned().collect();
    assert_eq!(objects(docker), left, "round {round}: said and done differ; it said {going:?}");

    clear(docker);
    going.len()
}

/// `kind id` of every object of the engine.
fn objects(docker: &Docker) -> BTreeSet<String> {
    let lists = [
        ("container", docker.docker(&["ps", "--all", "--quiet", "--no-trunc"])),
        ("image", docker.docker(&["images", "--quiet", "--no-trunc"])),
        ("volume", docker.docker(&["volume", "ls", "--quiet"])),
    ];
    let of = |(kind, listed): (&str, Finished)| {
        listed.ok().out.lines().map(|id| format!("{kind} {id}")).collect::<Vec<_>>()
    };
    lists.into_iter().flat_map(of).collect()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap()
}

fn decisions(document: &Value) -> BTreeSet<String> {
    let one = |object: &Value| {
        ["kind", "id", "action", "reason"].map(|field| text(object, field)).join(" ")
    };
    document["objects"].as_array().unwrap().iter().map(one).collect()
}

fn going(document: &Value) -> BTreeSet<String> {
    let objects = document["objects"].as_array().unwrap().iter();
    let going = objects.filter(|object| object["action"] == "remove");
    going.map(|object| format!("{} {}", text(object, "kind"), text(object, "id"))).collect()
}

fn clear(docker: &Docker) {
    for (kind, remove) in [
        ("container", &["rm", "--force"][..]),
        ("image", &["rmi", "--force"]),
        ("volume", &["volume", "rm"]),
    ] {
        let all = objects(docker);
        let ids: Vec<&str> =
            all.iter().filter_map(|object| object.strip_prefix(kind)?.strip_prefix(' ')).collect();
        if !ids.is_empty() {
            docker.docker(&[remove, &ids].concat()).ok();
        }
    }
}
