//! Tests of the verdicts: one row for every code, and the document that explains them.

use super::*;
use crate::model::claim::tests::running;
use crate::model::deploy::{Heard, MountNamespace, Step};
use crate::model::inventory::Mounted;
use std::sync::Arc;

struct Case {
    phase: Phase,
    outcome: Outcome,
    labels: Vec<(&'static str, &'static str)>,
    since_boot: Option<bool>,
    host: Host,
    unreadable: bool,
    record: Option<Record>,
}

fn host() -> Host {
    Host {
        running: running(),
        layering: Ok(Layering { root: true, layers: ["layer".to_owned()].into() }),
        arm: Ok(None),
        rejected: Ok(Vec::new()),
    }
}

/// An extension that was applied at boot; each row changes something.
fn sound() -> Case {
    Case {
        phase: Phase::Exited,
        outcome: Outcome::default(),
        labels: Vec::new(),
        since_boot: Some(true),
        host: host(),
        unreadable: false,
        record: None,
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
        let known = Known { since_boot: self.since_boot, record: self.record.as_ref() };
        find(&container, known, &self.host)
    }
}

fn unlayered() -> Host {
    Host { layering: bare(), ..host() }
}

fn in_unknown_namespace() -> Record {
    let step = Step {
        verb: "start".to_owned(),
        time: String::new(),
        error: None,
        warnings: Vec::new(),
        hooks: vec![Heard::new("hooks/start", b"", MountNamespace::Unknown)],
    };
    Record::after(None, "x", step)
}

fn failing(error: &str) -> Outcome {
    Outcome { error: error.to_owned(), ..Outcome::default() }
}

fn exiting(exit_code: i64) -> Outcome {
    Outcome { exit_code, ..Outcome::default() }
}

fn layered(layer: &str) -> Outcome {
    Outcome { layers: vec![layer.to_owned()], ..Outcome::default() }
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
        (Code::Layered, Case { outcome: layered("layer"), since_boot: Some(false), ..sound() }),
        (Code::HooksRan, sound()),
        (Code::RequiresReboot, Case { labels: vec![REBOOT], ..sound() }),
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
        (Code::NeverStarted, Case { phase: Phase::Created, ..sound() }),
        (Code::NotLayered, Case { since_boot: Some(false), ..sound() }),
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
        (Code::StartTimeUnknown, Case { since_boot: None, ..sound() }),
        (
            Code::MountNamespaceUnknown,
            Case { record: Some(in_unknown_namespace()), host: unlayered(), ..sound() },
        ),
        (
            Code::NotVisible,
            Case { since_boot: Some(false), host: Host { layering: bare(), ..host() }, ..sound() },
        ),
    ];
    for (code, case) in &rows {
        let finding = case.find();
        assert_eq!(finding.code, *code, "{}", finding.sentence);
        assert!(!finding.sentence.is_empty() && !finding.next.contains("{id}"), "{finding:?}");
    }
    for code in Code::ALL {
        assert!(rows.iter().any(|(found, _)| found == code), "{code:?} has no case");
    }
}

#[test]
fn every_verdict_and_every_code_is_explained_in_the_document() {
    let document = include_str!("../../docs/manager.md");
    for code in Code::ALL {
        let row = format!("| `{}` | `{}` |", code.verdict().word(), code.word());
        assert!(document.contains(&row), "docs/manager.md has no row {row}");
    }
}

#[test]
fn a_volume_that_is_layered_counts_as_the_extensions_content() {
    let layering = Layering { root: true, layers: ["vol".to_owned()].into() };
    let case = Case { host: Host { layering: Ok(layering), ..host() }, ..sound() };
    assert_eq!(case.find().code, Code::Layered);
}

#[test]
fn the_runtimes_words_take_the_place_of_the_engines() {
    let step = Step {
        verb: "create".to_owned(),
        time: String::new(),
        error: Some("hook hooks/create exited with status 3".to_owned()),
        warnings: Vec::new(),
        hooks: Vec::new(),
    };
    let record = Record::after(None, "x", step);
    let outcome = failing("OCI runtime create failed: much around it");
    let (code, text) = {
        let container = Container {
            id: "x".to_owned(),
            name: String::new(),
            image: String::new(),
            image_id: "".into(),
            phase: Phase::Created,
            labels: Arc::default(),
            mounts: Vec::new(),
            detail: Detail::Known(Box::new(outcome)),
        };
        let known = Known { since_boot: None, record: Some(&record) };
        let finding = find(&container, known, &host());
        (finding.code, finding.sentence)
    };
    assert_eq!(code, Code::CreateFailed);
    assert_eq!(text, "hook hooks/create exited with status 3");
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
