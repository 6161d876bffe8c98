//! Engines that list the containers and then do not answer about them, as one does that stops between the two, or
//! whose layer store or container is locked.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::host::Host;
use super::recorded_engine::{Answer, Engine};
use super::recorded_store::{Container, KERNEL, Store, labels};
use super::reports::stored_in;
use crate::finished::Finished;

/// The data root that the recorded engine reports.
const OWN: &str = "mnt/engine";
const REQUEST_TIMEOUT: [&str; 2] = ["--request-timeout", "2"];

type Respond = fn() -> Answer;

/// Whether a request inspects a container.
fn is_inspection(path: &str) -> bool {
    path.starts_with("/containers/") && !path.starts_with("/containers/json")
}

/// An engine that lists `ids` and answers every inspection with `answer`.
fn lists_only(
    host: &Host,
    ids: &[&str],
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) -> Engine {
    let containers: Vec<Container> = ids
        .iter()
        .map(|id| Container { labels: labels(&[(KERNEL, "6.1.0")]), ..Container::new(id) })
        .collect();
    host.engine_but(&Store::of(&containers), move |_, path| is_inspection(path).then(&answer))
}

/// A successful extension, a failed one and a dead one, in the engine's data directory.
fn three_stored(host: &Host) {
    stored_in(host, OWN, "good", &json!({ "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0 }));
    stored_in(host, OWN, "bad", &json!({ "Error": "no", "StartedAt": "0001-01-01T00:00:00Z" }));
    stored_in(host, OWN, "dead", &json!({ "Dead": true }));
    host.deployed("good", &["hooks/start"]);
}

/// `id verdict reason` of every extension, and the source.
#[track_caller]
fn verdicts(finished: &Finished) -> (Vec<String>, Value) {
    let document = finished.json();
    let extensions = document["extensions"].as_array().unwrap();
    let word = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let all = extensions
        .iter()
        .map(|one| format!("{} {} {}", word(one, "id"), word(one, "verdict"), word(one, "reason")));
    (all.collect(), document["source"].clone())
}

const STORED: [&str; 3] =
    ["bad failed create-failed", "dead dead engine-dead", "good applied hooks-ran"];
const IDS: [&str; 3] = ["bad", "dead", "good"];

#[track_caller]
fn status(host: &Host, words: &[&str]) -> Finished {
    host.manager(&[&["status", "--format", "json"], words].concat()).ok()
}

#[test]
fn an_engine_that_answers_no_inspection_is_replaced_by_its_data_directory() {
    let answers: [(Respond, &str); 2] = [
        (|| Answer::Hang, "no answer from the engine within 2 s"),
        (|| Answer::Raw(Vec::new()), "the connection broke"),
    ];
    for (answer, expected) in answers {
        let host = Host::new();
        three_stored(&host);
        let engine = lists_only(&host, &IDS, answer);
        let finished = status(&host, &REQUEST_TIMEOUT);
        assert_eq!(verdicts(&finished), (STORED.map(str::to_owned).into(), "store".into()));
        for text in ["cannot inspect container", expected, "reading the container store"] {
            assert!(finished.err.contains(text), "{text:?} was expected of {finished}");
        }
        let document = finished.json();
        assert_eq!(
            document["staleOs"],
            json!({ "unreadable": "the engine does not answer" }),
            "no plan is made from the store"
        );
        let words = ["inspect", "name-of-bad", "--request-timeout", "2"];
        assert_eq!(host.manager(&words).ok().json()["error"], "no");
        let (one, source) = verdicts(&status(&host, &["goo", "--request-timeout", "2"]));
        assert_eq!((one, source), (vec![STORED[2].to_owned()], "store".into()));
        let metrics = ["status", "--format", "prometheus", "--request-timeout", "2"];
        let metrics = host.manager(&metrics).ok().out;
        assert!(metrics.contains("balena_extension_readable{fact=\"engine\"} 0"), "{metrics}");
        assert!(engine.removals().is_empty());
    }
}

#[test]
fn the_data_directory_is_read_although_the_time_of_the_command_is_over() {
    let ids: Vec<String> = (0..20).map(|number| format!("c{number:02}")).collect();
    let host = Host::new();
    for id in &ids {
        // It cannot always say where its data root is.
        for root in [OWN, "var/lib/docker"] {
            let state = json!({ "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0 });
            stored_in(&host, root, id, &state);
        }
        host.deployed(id, &["hooks/start"]);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let engine = lists_only(&host, &ids, || Answer::Hang);
    // The first inspections take all of it.
    let finished = status(&host, &["--timeout", "1"]);
    let (seen, source) = verdicts(&finished);
    let expected: Vec<String> = ids.iter().map(|id| format!("{id} applied hooks-ran")).collect();
    assert_eq!((seen, source), (expected, "store".into()), "{finished}");
    assert!(finished.err.contains("--timeout allows more"), "{finished}");
    drop(engine);

    // All of it is over before the first inspection.
    let store = Store::of(&[Container::new("c00")]);
    let _engine = host.engine_but(&store, |_, path| (path == "/info").then_some(Answer::Hang));
    let finished = status(&host, &["--timeout", "3"]);
    let expected = vec!["c00 applied hooks-ran".to_owned()];
    assert_eq!(verdicts(&finished), (expected, "store".into()), "{finished}");
    assert!(finished.err.contains("cannot inspect the containers"), "{finished}");
}

#[test]
fn an_engine_that_stops_answering_between_two_inspections_is_replaced_as_well() {
    let host = Host::new();
    three_stored(&host);
    let store = Store::of(&IDS.map(Container::new));
    let inspected = AtomicBool::new(false);
    let _engine = host.engine_but(&store, move |_, path| match path {
        "/containers/good/json" => {
            inspected.store(true, Ordering::SeqCst);
            None
        }
        _ if is_inspection(path) => Some(Answer::Hang),
        _ => inspected.load(Ordering::SeqCst).then_some(Answer::Hang),
    });
    let finished = status(&host, &REQUEST_TIMEOUT);
    assert_eq!(verdicts(&finished), (STORED.map(str::to_owned).into(), "store".into()));
    assert!(finished.err.contains("cannot ping the engine: no answer"), "{finished}");
}

#[test]
fn a_container_about_which_an_answering_engine_is_silent_is_unknown() {
    // The engine is doing something with it, so its record may be outdated.
    let answers: [Respond; 3] = [
        || Answer::Hang,
        || Answer::Raw(Vec::new()),
        || Answer::Json(500, json!({ "message": "no layer" })),
    ];
    for answer in answers {
        let host = Host::new();
        three_stored(&host);
        let store = Store::of(&IDS.map(Container::new));
        let _engine =
            host.engine_but(&store, move |_, path| (path == "/containers/bad/json").then(answer));
        let (seen, source) = verdicts(&status(&host, &REQUEST_TIMEOUT));
        assert_eq!((seen[0].as_str(), source), ("bad unknown not-inspected", "engine".into()));
        assert_eq!(seen[2], "good applied hooks-ran");
    }
}

#[test]
fn an_engine_that_answers_every_inspection_with_an_error_has_answered() {
    let host = Host::new();
    three_stored(&host);
    let _engine =
        lists_only(&host, &IDS, || Answer::Json(500, json!({ "message": "no layer store" })));
    let finished = status(&host, &[]);
    let (seen, source) = verdicts(&finished);
    let expected = IDS.map(|id| format!("{id} unknown not-inspected"));
    assert_eq!((seen, source), (expected.into(), "engine".into()));
    assert!(finished.out.contains("no layer store"), "{finished}");
}

#[test]
fn what_the_data_directory_does_not_show_either_is_unknown() {
    // An engine does not answer about a container while it starts it. `absent` has no record.
    let never = "0001-01-01T00:00:00Z";
    let host = Host::new();
    stored_in(&host, OWN, "bad", &json!({ "Error": "no", "StartedAt": never }));
    stored_in(&host, OWN, "starting", &json!({ "StartedAt": never }));
    let _engine = lists_only(&host, &["absent", "bad", "starting"], || Answer::Hang);
    let (seen, source) = verdicts(&status(&host, &REQUEST_TIMEOUT));
    let expected = ["absent unknown not-inspected", STORED[0], "starting unknown not-inspected"];
    assert_eq!((seen, source), (expected.map(str::to_owned).into(), "store".into()));
}

#[test]
fn without_a_data_directory_the_list_is_kept() {
    let host = Host::new();
    let _engine = lists_only(&host, &["a"], || Answer::Hang);
    let finished = status(&host, &REQUEST_TIMEOUT);
    let expected = (vec!["a unknown not-inspected".to_owned()], "engine".into());
    assert_eq!(verdicts(&finished), expected);
    for text in ["no answer from the engine", "instead failed as well", "container store"] {
        assert!(finished.err.contains(text), "{text:?} was expected of {finished}");
    }
}

#[test]
fn cleanup_decides_nothing_from_the_data_directory() {
    let host = Host::new();
    three_stored(&host);
    let engine = lists_only(&host, &IDS, || Answer::Hang);
    for words in [&["cleanup"][..], &["cleanup", "--stale-os"]] {
        let words = [words, &REQUEST_TIMEOUT, &["--format", "json"]].concat();
        let finished = host.manager(&words);
        assert_eq!(finished.code(), 1, "{finished}");
        let summary = &finished.json()["summary"];
        let counts = (&summary["remove"], &summary["undecided"]);
        assert_eq!(counts, (&0.into(), &3.into()), "{finished}");
    }
    let finished = host.manager(&["cleanup", "--timeout", "1"]);
    assert!(finished.code() != 0 && finished.err.contains("no answer"), "{finished}");
    assert!(engine.removals().is_empty(), "{:?}", engine.removals());
}

#[test]
fn a_signal_during_the_inspections_ends_the_command() {
    let host = Host::new();
    three_stored(&host);
    let engine = lists_only(&host, &IDS, || Answer::Hang);
    let mut started = crate::process::start(&mut host.command(&["status"]));
    let inspects = || engine.requests().iter().any(|request| request.contains("/containers/good"));
    crate::process::wait_for("the inspections", || inspects().then_some(()));
    crate::process::signal(started.pid(), rustix::process::Signal::INT);
    assert_eq!(started.wait(), 4);
}
