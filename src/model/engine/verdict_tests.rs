//! Tests of the verdicts: one row for every code, and the document that explains them.

use super::*;
use crate::model::container::deploy_record::{HookOutput, MountNamespace, RecordedCall};
use crate::model::engine::inventory::Mounted;
use crate::model::extension::claim::tests::running;
use crate::model::extension::labels;
use crate::model::kernel::records::{Committed, Field};

struct Case {
    state: EngineState,
    last_run: LastRun,
    labels: Vec<(&'static str, &'static str)>,
    since_boot: Option<bool>,
    record: Result<Option<DeployRecord>, String>,
    ran_by: RegisteredBinary,
    host: HostFacts,
    unreadable: bool,
}

fn step(verb: &str, hook: Option<&str>) -> RecordedCall {
    RecordedCall {
        verb: verb.to_owned(),
        time: String::new(),
        error: None,
        refused: None,
        warnings: Vec::new(),
        hooks: hook
            .map(|hook| HookOutput::new(hook, b"", MountNamespace::Host))
            .into_iter()
            .collect(),
    }
}

/// A create and a start, with this hook or without one.
fn deployed(hook: Option<&str>) -> DeployRecord {
    let record = DeployRecord::after(None, "x", step("create", None));
    DeployRecord::after(Some(record), "x", step("start", hook))
}

/// The record of a deploy whose last step failed.
fn recorded_failure(verb: &str) -> DeployRecord {
    let failed = RecordedCall { error: Some("hook failed".to_owned()), ..step(verb, None) };
    DeployRecord::after(Some(DeployRecord::after(None, "x", step("create", None))), "x", failed)
}

fn overlays(layer: &str) -> HostOverlays {
    HostOverlays { root: true, layers: [layer.to_owned()].into(), unnamed: Vec::new() }
}

fn host() -> HostFacts {
    HostFacts {
        running: running(),
        overlays: Ok(overlays("layer")),
        block: Ok(BlockValues::default()),
        slot: Ok(Slot::A),
        rejected: Ok(BTreeSet::new()),
        initramfs_log: "/run/initramfs/initramfs.debug".to_owned(),
        runtime: Some("ext".to_owned()),
    }
}

/// An extension that was deployed since the boot; each row changes something.
fn sound() -> Case {
    Case {
        state: EngineState::Exited,
        last_run: exiting(0),
        labels: Vec::new(),
        since_boot: Some(true),
        record: Ok(Some(deployed(Some("hooks/start")))),
        ran_by: RegisteredBinary::SameVersion,
        host: host(),
        unreadable: false,
    }
}

impl Case {
    fn find(&self) -> Explanation {
        let labels: serde_json::Map<String, serde_json::Value> =
            self.labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
        let container = EngineContainer {
            id: "0123456789abcdef".to_owned(),
            name: "ext".to_owned(),
            image: "img".to_owned(),
            image_id: "sha256:i".to_owned(),
            state: self.state,
            labels: serde_json::from_value(labels.into()).unwrap(),
            mounts: vec![Mounted {
                volume: Some("vol".to_owned()),
                source: "/v".to_owned(),
                destination: "/d".to_owned(),
            }],
            detail: match self.unreadable {
                true => Detail::Unreadable("status 500".to_owned()),
                false => Detail::Known(self.last_run.clone()),
            },
        };
        let evidence = Evidence {
            since_boot: self.since_boot,
            record: self.record.as_ref().map(Option::as_ref).map_err(String::as_str),
            ran_by: Some(&self.ran_by),
        };
        explain(&container, evidence, &self.host)
    }
}

fn in_unknown_namespace() -> DeployRecord {
    let hooks = vec![HookOutput::new("hooks/start", b"", MountNamespace::Unknown)];
    let record = DeployRecord::after(None, "x", step("create", None));
    DeployRecord::after(Some(record), "x", RecordedCall { hooks, ..step("start", None) })
}

/// Deployed before the boot, so that no record is left.
fn earlier() -> Case {
    Case { since_boot: Some(false), record: Ok(None), ..sound() }
}

fn failing(error: &str) -> LastRun {
    LastRun { error: Some(error.to_owned()), ..exiting(0) }
}

fn exiting(exit_code: i64) -> LastRun {
    LastRun {
        exit_code: Some(exit_code),
        error: Some(String::new()),
        layers: Some(vec!["own".to_owned()]),
        ..LastRun::default()
    }
}

fn layered(layer: &str) -> LastRun {
    LastRun { layers: Some(vec![layer.to_owned()]), ..exiting(0) }
}

/// As Podman reports it, which keeps no errors.
fn without_errors() -> LastRun {
    LastRun { error: None, ..exiting(0) }
}

/// The ABI of a kernel that does not run, and a claim on the one that runs.
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const RUNNING: (&str, &str) =
    (labels::ABI, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");

/// A kernel that was booted twice, and what slot A has committed.
fn armed(arm: &str, committed: &str) -> BlockValues {
    let committed = Committed { a: Field::parse(committed), b: Field::Empty };
    BlockValues { arm: Field::parse(arm), committed, trial: Some(2), ..BlockValues::default() }
}

fn bare() -> Result<HostOverlays, String> {
    Ok(HostOverlays::default())
}

#[test]
fn every_reason_has_a_case_that_leads_to_it() {
    const ABI: (&str, &str) = (labels::ABI, OTHER);
    const REBOOT: (&str, &str) = ("io.balena.update.requires-reboot", "1");
    let why = || "cannot be read".to_owned();
    let blind = Running { os_version: Err(why()), ..running() };
    let rows: Vec<(VerdictReason, Case)> = vec![
        (VerdictReason::Layered, Case { last_run: layered("layer"), ..earlier() }),
        (VerdictReason::HooksRan, sound()),
        (VerdictReason::RequiresReboot, Case { labels: vec![REBOOT], ..sound() }),
        (VerdictReason::NoHooks, Case { record: Ok(Some(deployed(None))), ..sound() }),
        (
            VerdictReason::KernelArmed,
            Case {
                labels: vec![ABI],
                host: HostFacts { block: Ok(armed(OTHER, "")), ..host() },
                ..sound()
            },
        ),
        (
            VerdictReason::KernelTrialOver,
            Case {
                labels: vec![ABI],
                host: HostFacts {
                    block: Ok(BlockValues { trial: Some(TRIAL_LIMIT), ..armed(OTHER, "") }),
                    ..host()
                },
                ..sound()
            },
        ),
        (
            VerdictReason::KernelOnTrial,
            Case {
                labels: vec![RUNNING],
                host: HostFacts { block: Ok(armed(RUNNING.1, "")), ..host() },
                ..sound()
            },
        ),
        (
            VerdictReason::SlotUnknown,
            Case {
                labels: vec![RUNNING],
                host: HostFacts {
                    block: Ok(armed(RUNNING.1, RUNNING.1)),
                    slot: Err(why()),
                    ..host()
                },
                ..sound()
            },
        ),
        (
            VerdictReason::KernelRejected,
            Case {
                labels: vec![ABI],
                host: HostFacts { rejected: Ok(Abi::parse(OTHER).into_iter().collect()), ..host() },
                ..sound()
            },
        ),
        (
            VerdictReason::RejectedUnreadable,
            Case {
                labels: vec![ABI],
                host: HostFacts { rejected: Err("EIO".to_owned()), ..host() },
                ..sound()
            },
        ),
        (VerdictReason::RefusedByRuntime, Case { last_run: exiting(1), ..sound() }),
        (
            VerdictReason::CreateFailed,
            Case {
                state: EngineState::Created,
                last_run: failing("OCI runtime create failed: no"),
                ..sound()
            },
        ),
        (
            VerdictReason::StartFailed,
            Case { last_run: failing("OCI runtime start failed: no"), ..sound() },
        ),
        (VerdictReason::BadExit, Case { last_run: exiting(3), ..sound() }),
        (VerdictReason::Killed, Case { last_run: exiting(137), ..sound() }),
        (
            VerdictReason::OtherRuntime,
            Case {
                ran_by: RegisteredBinary::Another,
                record: Ok(None),
                last_run: exiting(127),
                ..sound()
            },
        ),
        (VerdictReason::NeverStarted, Case { state: EngineState::Created, ..earlier() }),
        (
            VerdictReason::OutcomeUnknown,
            Case { state: EngineState::Created, last_run: without_errors(), ..earlier() },
        ),
        (VerdictReason::NotLayered, earlier()),
        (VerdictReason::NotRecorded, Case { record: Ok(None), ..sound() }),
        (VerdictReason::RecordUnreadable, Case { record: Err(why()), ..sound() }),
        (
            VerdictReason::LayersUnnamed,
            Case { last_run: LastRun { layers: None, ..exiting(0) }, ..earlier() },
        ),
        (VerdictReason::KernelAbiMismatch, Case { labels: vec![ABI], ..sound() }),
        (
            VerdictReason::KernelVersionMismatch,
            Case { labels: vec![(labels::KERNEL_VERSION, "5.0.0")], ..sound() },
        ),
        (
            VerdictReason::OsVersionMismatch,
            Case { labels: vec![(labels::OS_VERSION, "1.*")], ..sound() },
        ),
        (VerdictReason::EngineDead, Case { state: EngineState::Dead, ..sound() }),
        (VerdictReason::BeingRemoved, Case { state: EngineState::Removing, ..sound() }),
        (VerdictReason::Deploying, Case { state: EngineState::Running, ..sound() }),
        (VerdictReason::Restarting, Case { state: EngineState::Restarting, ..sound() }),
        (VerdictReason::StrangeState, Case { state: EngineState::Other, ..sound() }),
        (VerdictReason::NotInspected, Case { unreadable: true, ..sound() }),
        (
            VerdictReason::SystemUnreadable,
            Case {
                labels: vec![(labels::OS_VERSION, "1.*")],
                host: HostFacts { running: blind, ..host() },
                ..sound()
            },
        ),
        (
            VerdictReason::BootEnvironmentUnreadable,
            Case { labels: vec![ABI], host: HostFacts { block: Err(why()), ..host() }, ..sound() },
        ),
        (
            VerdictReason::MountsUnreadable,
            Case { host: HostFacts { overlays: Err(why()), ..host() }, ..sound() },
        ),
        (VerdictReason::StartTimeUnknown, Case { since_boot: None, ..earlier() }),
        (
            VerdictReason::MountNamespaceUnknown,
            Case { record: Ok(Some(in_unknown_namespace())), ..sound() },
        ),
        (
            VerdictReason::NotVisible,
            Case { host: HostFacts { overlays: bare(), ..host() }, ..earlier() },
        ),
    ];
    for (reason, case) in &rows {
        let finding = case.find();
        assert_eq!(finding.reason, *reason, "{}", finding.sentence);
        assert!(
            !finding.sentence.is_empty()
                && !["{id}", "{runtime}", "{log}"].iter().any(|mark| finding.next.contains(mark)),
            "{finding:?}"
        );
    }
    for reason in VerdictReason::ALL {
        assert!(rows.iter().any(|(found, _)| found == reason), "{reason:?} has no case");
    }
}

#[test]
fn every_verdict_and_every_reason_is_explained_in_the_document() {
    let document = include_str!("../../../docs/manager.md");
    for reason in VerdictReason::ALL {
        let row = format!("| `{}` | `{}` |", reason.verdict(), reason.code());
        assert!(document.contains(&row), "docs/manager.md has no row {row}");
    }
}

#[test]
fn a_volume_that_is_layered_counts_as_the_extensions_content() {
    let case = Case { host: HostFacts { overlays: Ok(overlays("vol")), ..host() }, ..earlier() };
    assert_eq!(case.find().reason, VerdictReason::Layered);
}

#[test]
fn the_runtimes_error_replaces_the_engines() {
    let last_run = failing("OCI runtime create failed: much around it");
    let record = Ok(Some(recorded_failure("create")));
    let finding = Case { state: EngineState::Created, last_run, record, ..sound() }.find();
    assert_eq!(
        (finding.reason, finding.sentence.as_str()),
        (VerdictReason::CreateFailed, "hook failed")
    );
}

#[test]
fn a_recorded_failure_counts_where_the_engine_keeps_none() {
    for (state, verb, code) in [
        (EngineState::Created, "create", VerdictReason::CreateFailed),
        (EngineState::Created, "start", VerdictReason::StartFailed),
        (EngineState::Exited, "start", VerdictReason::StartFailed),
        // A delete that failed changes nothing about the deploy.
        (EngineState::Created, "delete", VerdictReason::NeverStarted),
    ] {
        let record = Ok(Some(recorded_failure(verb)));
        let case = Case { state, last_run: without_errors(), record, ..sound() };
        assert_eq!(case.find().reason, code, "{state:?} {verb}");
    }
    let unreadable = Err("read the record".to_owned());
    let case = Case {
        state: EngineState::Created,
        last_run: without_errors(),
        record: unreadable,
        ..sound()
    };
    assert_eq!(case.find().reason, VerdictReason::RecordUnreadable);
}

#[test]
fn a_record_beats_a_clock_that_was_set_after_the_boot() {
    for since_boot in [None, Some(false), Some(true)] {
        assert_eq!(Case { since_boot, ..sound() }.find().reason, VerdictReason::HooksRan);
    }
}

#[test]
fn layers_without_a_name_may_be_those_of_the_extension() {
    let unnamed = vec!["/tmp/mobynit-lower1/3".to_owned()];
    let host = HostFacts { overlays: Ok(HostOverlays { unnamed, ..overlays("other") }), ..host() };
    let finding = Case { host: host.clone(), ..earlier() }.find();
    assert_eq!(finding.reason, VerdictReason::LayersUnnamed);
    assert!(finding.sentence.contains("/tmp/mobynit-lower1/3"), "{}", finding.sentence);
    let found = Case { last_run: layered("other"), host, ..earlier() };
    assert_eq!(found.find().reason, VerdictReason::Layered);
}

#[test]
fn only_numbers_of_signals_mean_that_a_process_was_killed() {
    for (status, code) in [
        (128, VerdictReason::BadExit),
        (129, VerdictReason::Killed),
        (192, VerdictReason::Killed),
        (193, VerdictReason::BadExit),
        (255, VerdictReason::BadExit),
        (-1, VerdictReason::BadExit),
        (2, VerdictReason::BadExit),
    ] {
        assert_eq!(Case { last_run: exiting(status), ..sound() }.find().reason, code, "{status}");
    }
    let silent = LastRun { exit_code: None, ..exiting(0) };
    assert_eq!(Case { last_run: silent, ..sound() }.find().reason, VerdictReason::NotInspected);
}

#[test]
fn an_extension_that_another_runtime_ran_is_applied_only_if_the_boot_has_layered_it() {
    let ran_by = || RegisteredBinary::Another;
    for status in [0, 1, 127] {
        let (last_run, record) = (exiting(status), Ok(None));
        let case = Case {
            last_run: LastRun { runtime: "runc".to_owned(), ..last_run },
            ran_by: ran_by(),
            record,
            ..sound()
        };
        let finding = case.find();
        assert_eq!(finding.reason, VerdictReason::OtherRuntime);
        assert!(finding.sentence.contains("\"runc\""), "{}", finding.sentence);
        assert_eq!(
            finding.next,
            "remove it: docker rm 0123456789ab; then deploy it with: docker run --runtime ext IMAGE"
        );
    }
    let last_run = layered("layer");
    assert_eq!(
        Case { ran_by: ran_by(), last_run, ..earlier() }.find().reason,
        VerdictReason::Layered
    );
    // What cannot be seen may be layered, and a record that cannot be read may know better.
    let blind = HostFacts { overlays: Err("why".to_owned()), ..host() };
    assert_eq!(
        Case { ran_by: ran_by(), host: blind, ..earlier() }.find().reason,
        VerdictReason::MountsUnreadable
    );
    let last_run = LastRun { layers: None, ..exiting(0) };
    assert_eq!(
        Case { ran_by: ran_by(), last_run, ..earlier() }.find().reason,
        VerdictReason::LayersUnnamed
    );
    let unread = Case { ran_by: ran_by(), record: Err("why".to_owned()), ..earlier() };
    assert_eq!(unread.find().reason, VerdictReason::RecordUnreadable);
    // A wrapper with a name of its own: the record knows better.
    assert_eq!(Case { ran_by: ran_by(), ..sound() }.find().reason, VerdictReason::HooksRan);
}

#[test]
fn claims_are_shown_with_the_running_values() {
    let map = serde_json::json!({labels::KERNEL_VERSION: "5.0.0", labels::OS_VERSION: "2.*"});
    let labels: Labels = serde_json::from_value(map).unwrap();
    let stock = Running { abi: Ok(None), ..running() };
    let shown = serde_json::to_value(labels.claims().compare(&stock)).unwrap();
    assert_eq!(
        shown,
        serde_json::json!([
            {"claim": "kernelVersion", "claimed": "5.0.0", "running": "6.1.0", "holds": false},
            {"claim": "osVersion", "claimed": "2.*", "running": "2.113.4", "holds": true},
        ])
    );
}

#[test]
fn a_trial_is_told_by_the_block_the_slot_and_the_kernel_that_runs() {
    let slot_unknown = || Err("no label".to_owned());
    let is_on_trial =
        (VerdictReason::KernelOnTrial, "its kernel runs on trial (booted 2 of 3 times)");
    let is_applied = (VerdictReason::HooksRan, "its hooks ran since the host booted");
    let (running, both) =
        (RUNNING.1, || Committed { a: Field::parse(RUNNING.1), b: Field::parse(RUNNING.1) });
    for (block, slot, expected) in [
        (armed(running, ""), Ok(Slot::A), is_on_trial),
        (armed(running, OTHER), Ok(Slot::A), is_on_trial),
        (armed(running, running), Ok(Slot::A), is_applied),
        (armed(running, running), Ok(Slot::B), is_on_trial),
        // Both slots agree.
        (armed(running, ""), slot_unknown(), is_on_trial),
        (BlockValues { committed: both(), ..armed(running, "") }, slot_unknown(), is_applied),
        // It runs and another one is armed: nothing will judge it.
        (armed(OTHER, ""), Ok(Slot::A), is_applied),
        (BlockValues::default(), slot_unknown(), is_applied),
    ] {
        let host = HostFacts { block: Ok(block.clone()), slot, ..host() };
        let found = Case { labels: vec![RUNNING], host, ..sound() }.find();
        assert_eq!((found.reason, found.sentence.as_str()), expected, "{block:?}");
    }
    let host = HostFacts { block: Ok(armed(OTHER, "")), ..host() };
    let found = Case { labels: vec![(labels::ABI, OTHER)], host, ..sound() }.find();
    assert!(found.sentence.ends_with("it was booted 2 of 3 times and does not run"), "{found:?}");
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
