//! A dry run predicts the real run: on generated stores, it reports what the real run then does, object by
//! object.

use serde_json::Value;

use super::host::Host;
use crate::finished::Finished;

use crate::numbers::Numbers;

use super::recorded_store::{Container, Contents, KERNEL, OS, Store, labels};

fn generate(numbers: &mut Numbers) -> Contents {
    let claims: [&[(&str, &str)]; 7] = [
        &[],
        &[(KERNEL, "6.1.0")],
        &[(KERNEL, "5.10.0")],
        &[(OS, "2.113.*")],
        &[(OS, "2.1.*,1.*")],
        &[(OS, "[")],
        &[(OS, "2.*"), (KERNEL, "5.10.0")],
    ];
    let mut contents = Contents::default();
    for number in 0..numbers.below(12) {
        let mut container = Container::new(&format!("c{number}"));
        container.state =
            numbers.one_of(&["exited", "exited", "created", "dead", "running", "removing"]);
        container.error = numbers.one_of(&["", "", "no"]);
        container.image = format!("i{}", numbers.below(4));
        container.labels = match numbers.below(5) {
            0 => Value::Null,
            _ => labels(numbers.one_of(&claims)),
        };
        for _ in 0..numbers.below(3) {
            // The directory does not exist, so there is no `deactivate`.
            let name = format!("v{}", numbers.below(4));
            container.volumes.push((name, "/".to_owned()));
        }
        contents.containers.push(container);
    }
    for number in 0..4 {
        contents.images.push((format!("i{number}"), labels(numbers.one_of(&claims))));
        contents.volumes.push((format!("v{number}"), labels(numbers.one_of(&claims))));
    }
    contents
}

/// The numbers of objects of each kind.
fn counts(store: &Store) -> [usize; 3] {
    let contents = store.contents();
    [contents.containers.len(), contents.images.len(), contents.volumes.len()]
}

/// `kind id` of all objects that a document reports as removed.
fn going(document: &Value) -> Vec<String> {
    let objects = document["objects"].as_array().unwrap().iter();
    let going = objects.filter(|object| object["action"] == "remove");
    let mut going: Vec<String> = going
        .map(|object| {
            format!("{}s/{}", object["kind"].as_str().unwrap(), object["id"].as_str().unwrap())
        })
        .collect();
    going.sort();
    going
}

/// The document of a run. It fails only if a volume is shared with a container that is not an extension.
fn results(finished: &Finished) -> Value {
    let document = finished.json();
    let objects = document["objects"].as_array().unwrap().iter();
    let mut hooks = objects.flat_map(|one| one["deactivated"].as_array().into_iter().flatten());
    let is_refused = hooks.any(|hook| {
        let why = hook["error"].as_str().unwrap_or_default();
        assert!(why.is_empty() || why.contains("which is not an extension"), "{finished}");
        !why.is_empty()
    });
    assert_eq!(finished.code(), i32::from(is_refused), "{finished}");
    document
}

#[test]
fn over_two_hundred_generated_stores_a_dry_run_says_what_the_real_run_does() {
    let mut numbers = Numbers(20_260_101);
    let mut removed = 0;
    for round in 0..200 {
        let contents = generate(&mut numbers);
        let words: &[&str] = match numbers.below(2) {
            0 => &["cleanup", "--format", "json"],
            _ => &["cleanup", "--format", "json", "--stale-os"],
        };
        let (host, store) = (Host::new(), Store::new(contents));
        let engine = host.engine(&store);
        let before = counts(&store);
        let dry = results(&host.manager(&[words, &["--dry-run"]].concat()));
        assert_eq!(engine.removals(), [""; 0], "round {round}: a dry run removes nothing");
        let after = counts(&store);
        assert_eq!(before, after, "round {round}");

        let real = results(&host.manager(words));
        let mut deleted: Vec<String> = engine
            .removals()
            .iter()
            .map(|line| {
                let path = line.strip_prefix("DELETE /v1.41/").unwrap();
                path.split('?').next().unwrap().to_owned()
            })
            .collect();
        deleted.sort();
        assert_eq!(going(&dry), deleted, "round {round}: said and done differ");
        assert_eq!(going(&dry), going(&real), "round {round}");
        for field in ["remove", "keep", "undecided", "bytes"] {
            assert_eq!(dry["summary"][field], real["summary"][field], "round {round}: {field}");
        }
        removed += deleted.len();
        let again = results(&host.manager(&[words, &["--dry-run"]].concat()));
        assert!(going(&again).is_empty(), "round {round}: something is left to do");
    }
    assert!(removed > 200, "the stores have something to remove: {removed}");
}
