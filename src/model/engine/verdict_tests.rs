//! Tests of the verdicts: one row for every code, and the document that explains them.

use super::*;
use crate::model::container::deploy_record::{Heard, MountNamespace, Step};
use crate::model::engine::inventory::Mounted;
use crate::model::extension::claim::tests::running;
use std::sync::Arc;

struct Case {
    phase: Phase,
    outcome: Outcome,
    labels: Vec<(&'static str, &'static str)>,
    since_boot: Option<bool>,
    record: Result<Option<Record>, String>,
    ran_by: RanBy,
    host: Host,
    unreadable: bool,
}

fn step(verb: &str, hook: Option<&str>) -> Step {
    Step {
        verb: verb.to_owned(),
        time: String::new(),
        error: None,
        refused: None,
        warnings: Vec::new(),
        hooks: hook.map(|hook| Heard::new(hook, b"", MountNamespace::Host)).into_iter().collect(),
    }
}

/// A create and a start, with this hook or without one.
fn deployed(hook: Option<&str>) -> Record {
    let record = Record::after(None, "x", step("create", None));
    Record::after(Some(record), "x", step("start", hook))
}

/// The record of a deploy whose last step failed.
fn recorded_failure(verb: &str) -> Record {
    let failed = Step { error: Some("hook failed".to_owned()), ..step(verb, None) };
    Record::after(Some(Record::after(None, "x", step("create", None))), "x", failed)
}

fn layering(layer: &str) -> Layering {
    Layering { root: true, layers: [layer.to_owned()].into(), unnamed: Vec::new() }
}

fn host() -> Host {
    Host {
        running: running(),
        layering: Ok(layering("layer")),
        arm: Ok(None),
        rejected: Ok(Vec::new()),
        initramfs_log: "/run/initramfs/initramfs.debug".to_owned(),
        runtime: Some("ext".to_owned()),
    }
}

/// An extension that was deployed since the boot; each row changes something.
fn sound() -> Case {
    Case {
        phase: Phase::Exited,
        outcome: exiting(0),
        labels: Vec::new(),
        since_boot: Some(true),
        record: Ok(Some(deployed(Some("hooks/start")))),
        ran_by: RanBy::This,
        host: host(),
        unreadable: false,
    }
}

impl Case {
    fn find(&self) -> Finding {
        let labels: serde_json::Map<String, serde_json::Value> =
            self.labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
        let container = Container {
            id: "0123456789abcdef".to_owned(),
            name: "ext".to_owned(),
            image: "img".to_owned(),
            image_id: "sha256:i".into(),
            phase: self.phase,
            labels: Arc::new(serde_json::from_value(labels.into()).unwrap()),
            mounts: vec![Mounted {
                volume: Some("vol".to_owned()),
                source: "/v".to_owned(),
                destination: "/d".to_owned(),
            }],
            detail: match self.unreadable {
                true => Detail::Unreadable("status 500".to_owned()),
                false => Detail::Known(Box::new(self.outcome.clone())),
            },
        };
        let known = Known {
            since_boot: self.since_boot,
            record: self.record.as_ref().map(Option::as_ref).map_err(String::as_str),
            ran_by: self.ran_by,
        };
        find(&container, known, &self.host)
    }
}

fn in_unknown_namespace() -> Record {
    let hooks = vec![Heard::new("hooks/start", b"", MountNamespace::Unknown)];
    let record = Record::after(None, "x", step("create", None));
    Record::after(Some(record), "x", Step { hooks, ..step("start", None) })
}

/// One of an earlier boot: nothing is recorded of it any more.
fn earlier() -> Case {
    Case { since_boot: Some(false), record: Ok(None), ..sound() }
}

fn failing(error: &str) -> Outcome {
    Outcome { error: Some(error.to_owned()), ..exiting(0) }
}

fn exiting(exit_code: i64) -> Outcome {
    Outcome {
        exit_code: Some(exit_code),
        error: Some(String::new()),
        layers: Some(vec!["own".to_owned()]),
        ..Outcome::default()
    }
}

fn layered(layer: &str) -> Outcome {
    Outcome { layers: Some(vec![layer.to_owned()]), ..exiting(0) }
}

/// As Podman tells it, which keeps no errors.
fn without_errors() -> Outcome {
    Outcome { error: None, ..exiting(0) }
}

fn bare() -> Result<Layering, String> {
    Ok(Layering::default())
}

#[test]
fn every_code_has_a_case_that_leads_to_it() {
    const ABI: (&str, &str) = (claim::ABI, "bb");
    const REBOOT: (&str, &str) = ("io.balena.update.requires-reboot", "1");
    let why = || "cannot be read".to_owned();
    let blind = Running { os_version: Err(why()), ..running() };
    let rows: Vec<(Code, Case)> = vec![
        (Code::Layered, Case { outcome: layered("layer"), ..earlier() }),
        (Code::HooksRan, sound()),
        (Code::RequiresReboot, Case { labels: vec![REBOOT], ..sound() }),
        (Code::NoHooks, Case { record: Ok(Some(deployed(None))), ..sound() }),
        (
            Code::KernelArmed,
            Case {
                labels: vec![ABI],
                host: Host { arm: Ok(Some("bb".to_owned())), ..host() },
                ..sound()
            },
        ),
        (
            Code::KernelRejected,
            Case {
                labels: vec![ABI],
                host: Host { rejected: Ok(vec!["bb".to_owned()]), ..host() },
                ..sound()
            },
        ),
        (
            Code::RejectedUnreadable,
            Case {
                labels: vec![ABI],
                host: Host { rejected: Err("EIO".to_owned()), ..host() },
                ..sound()
            },
        ),
        (Code::RefusedByRuntime, Case { outcome: exiting(1), ..sound() }),
        (
            Code::CreateFailed,
            Case {
                phase: Phase::Created,
                outcome: failing("OCI runtime create failed: no"),
                ..sound()
            },
        ),
        (Code::StartFailed, Case { outcome: failing("OCI runtime start failed: no"), ..sound() }),
        (Code::BadExit, Case { outcome: exiting(3), ..sound() }),
        (Code::Killed, Case { outcome: exiting(137), ..sound() }),
        (
            Code::OtherRuntime,
            Case { ran_by: RanBy::Another, record: Ok(None), outcome: exiting(127), ..sound() },
        ),
        (Code::NeverStarted, Case { phase: Phase::Created, ..earlier() }),
        (
            Code::OutcomeUnknown,
            Case { phase: Phase::Created, outcome: without_errors(), ..earlier() },
        ),
        (Code::NotLayered, earlier()),
        (Code::NotRecorded, Case { record: Ok(None), ..sound() }),
        (Code::RecordUnreadable, Case { record: Err(why()), ..sound() }),
        (
            Code::LayersUnnamed,
            Case { outcome: Outcome { layers: None, ..exiting(0) }, ..earlier() },
        ),
        (Code::KernelAbiMismatch, Case { labels: vec![ABI], ..sound() }),
        (
            Code::KernelVersionMismatch,
            Case { labels: vec![(claim::KERNEL_VERSION, "5.0.0")], ..sound() },
        ),
        (Code::OsVersionMismatch, Case { labels: vec![(claim::OS_VERSION, "1.*")], ..sound() }),
        (Code::EngineDead, Case { phase: Phase::Dead, ..sound() }),
        (Code::BeingRemoved, Case { phase: Phase::Removing, ..sound() }),
        (Code::Deploying, Case { phase: Phase::Running, ..sound() }),
        (Code::Restarting, Case { phase: Phase::Restarting, ..sound() }),
        (Code::StrangeState, Case { phase: Phase::Other, ..sound() }),
        (Code::NotInspected, Case { unreadable: true, ..sound() }),
        (
            Code::SystemUnreadable,
            Case {
                labels: vec![(claim::OS_VERSION, "1.*")],
                host: Host { running: blind, ..host() },
                ..sound()
            },
        ),
        (
            Code::BootEnvironmentUnreadable,
            Case { labels: vec![ABI], host: Host { arm: Err(why()), ..host() }, ..sound() },
        ),
        (Code::MountsUnreadable, Case { host: Host { layering: Err(why()), ..host() }, ..sound() }),
        (Code::StartTimeUnknown, Case { since_boot: None, ..earlier() }),
        (Code::MountNamespaceUnknown, Case { record: Ok(Some(in_unknown_namespace())), ..sound() }),
        (Code::NotVisible, Case { host: Host { layering: bare(), ..host() }, ..earlier() }),
    ];
    for (code, case) in &rows {
        let finding = case.find();
        assert_eq!(finding.code, *code, "{}", finding.sentence);
        assert!(!finding.sentence.is_empty() && !finding.next.contains('{'), "{finding:?}");
    }
    for code in Code::ALL {
        assert!(rows.iter().any(|(found, _)| found == code), "{code:?} has no case");
    }
}

#[test]
fn every_verdict_and_every_code_is_explained_in_the_document() {
    let document = include_str!("../../../docs/manager.md");
    for code in Code::ALL {
        let row = format!("| `{}` | `{}` |", code.verdict().word(), code.word());
        assert!(document.contains(&row), "docs/manager.md has no row {row}");
    }
}

#[test]
fn a_volume_that_is_layered_counts_as_the_extensions_content() {
    let case = Case { host: Host { layering: Ok(layering("vol")), ..host() }, ..earlier() };
    assert_eq!(case.find().code, Code::Layered);
}

#[test]
fn the_runtimes_words_take_the_place_of_the_engines() {
    let outcome = failing("OCI runtime create failed: much around it");
    let record = Ok(Some(recorded_failure("create")));
    let finding = Case { phase: Phase::Created, outcome, record, ..sound() }.find();
    assert_eq!((finding.code, finding.sentence.as_str()), (Code::CreateFailed, "hook failed"));
}

#[test]
fn a_recorded_failure_counts_where_the_engine_keeps_none() {
    for (phase, verb, code) in [
        (Phase::Created, "create", Code::CreateFailed),
        (Phase::Created, "start", Code::StartFailed),
        (Phase::Exited, "start", Code::StartFailed),
        // A delete that failed changes nothing about the deploy.
        (Phase::Created, "delete", Code::NeverStarted),
    ] {
        let record = Ok(Some(recorded_failure(verb)));
        let case = Case { phase, outcome: without_errors(), record, ..sound() };
        assert_eq!(case.find().code, code, "{phase:?} {verb}");
    }
    let unreadable = Err("read the record".to_owned());
    let case =
        Case { phase: Phase::Created, outcome: without_errors(), record: unreadable, ..sound() };
    assert_eq!(case.find().code, Code::RecordUnreadable);
}

#[test]
fn a_record_beats_a_clock_that_was_set_after_the_boot() {
    for since_boot in [None, Some(false), Some(true)] {
        assert_eq!(Case { since_boot, ..sound() }.find().code, Code::HooksRan);
    }
}

#[test]
fn layers_without_a_name_may_be_those_of_the_extension() {
    let unnamed = vec!["/tmp/mobynit-lower1/3".to_owned()];
    let host = Host { layering: Ok(Layering { unnamed, ..layering("other") }), ..host() };
    let finding = Case { host: host.clone(), ..earlier() }.find();
    assert_eq!(finding.code, Code::LayersUnnamed);
    assert!(finding.sentence.contains("/tmp/mobynit-lower1/3"), "{}", finding.sentence);
    let found = Case { outcome: layered("other"), host, ..earlier() };
    assert_eq!(found.find().code, Code::Layered);
}

#[test]
fn only_signals_that_there_are_kill_a_process() {
    for (status, code) in [
        (128, Code::BadExit),
        (129, Code::Killed),
        (192, Code::Killed),
        (193, Code::BadExit),
        (255, Code::BadExit),
        (-1, Code::BadExit),
        (2, Code::BadExit),
    ] {
        assert_eq!(Case { outcome: exiting(status), ..sound() }.find().code, code, "{status}");
    }
    let silent = Outcome { exit_code: None, ..exiting(0) };
    assert_eq!(Case { outcome: silent, ..sound() }.find().code, Code::NotInspected);
}

#[test]
fn what_another_runtime_ran_is_applied_only_if_the_boot_has_layered_it() {
    let ran_by = RanBy::Another;
    for status in [0, 1, 127] {
        let (outcome, record) = (exiting(status), Ok(None));
        let case = Case {
            outcome: Outcome { runtime: "runc".to_owned(), ..outcome },
            ran_by,
            record,
            ..sound()
        };
        let finding = case.find();
        assert_eq!(finding.code, Code::OtherRuntime);
        assert!(finding.sentence.contains("\"runc\""), "{}", finding.sentence);
        assert_eq!(finding.next, "docker rm 0123456789ab, and docker run --runtime ext …");
    }
    let outcome = layered("layer");
    assert_eq!(Case { ran_by, outcome, ..earlier() }.find().code, Code::Layered);
    // What cannot be seen may be layered, and a record that cannot be read may know better.
    let blind = Host { layering: Err("why".to_owned()), ..host() };
    assert_eq!(Case { ran_by, host: blind, ..earlier() }.find().code, Code::MountsUnreadable);
    let outcome = Outcome { layers: None, ..exiting(0) };
    assert_eq!(Case { ran_by, outcome, ..earlier() }.find().code, Code::LayersUnnamed);
    let unread = Case { ran_by, record: Err("why".to_owned()), ..earlier() };
    assert_eq!(unread.find().code, Code::RecordUnreadable);
    // A wrapper with a name of its own: the record knows better.
    assert_eq!(Case { ran_by, ..sound() }.find().code, Code::HooksRan);
}

#[test]
fn claims_are_shown_beside_what_runs() {
    let map = serde_json::json!({claim::KERNEL_VERSION: "5.0.0", claim::OS_VERSION: "2.*"});
    let labels: Labels = serde_json::from_value(map).unwrap();
    let stock = Running { abi: Ok(None), ..running() };
    let shown = serde_json::to_value(claims(&labels, &stock)).unwrap();
    assert_eq!(
        shown,
        serde_json::json!([
            {"claim": "kernelVersion", "claimed": "5.0.0", "running": "6.1.0", "holds": false},
            {"claim": "osVersion", "claimed": "2.*", "running": "2.113.4", "holds": true},
        ])
    );
}

#[test]
fn only_a_plain_no_means_that_no_reboot_is_required() {
    for (text, expected) in
        [("1", true), ("true", true), ("0", false), ("false", false), ("", false)]
    {
        let labels = serde_json::json!({"io.balena.image.requires-reboot": text});
        assert_eq!(requires_reboot(&serde_json::from_value(labels).unwrap()), expected, "{text}");
    }
}
