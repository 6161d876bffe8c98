//! `override status`, `retry` and `forget`: what a person can see of kernel overrides, and do about them.

use super::super::readable::Read;
use super::super::{Failure, ManagerExit, Session, print, print_json};
use super::{Device, KernelError, Reboot, running};
use crate::cli::kernel::OverrideCommand;
use crate::cli::values::OutputFormat;
use crate::host::engine::claims;
use crate::host::kernel::block;
use crate::host::kernel::history as history_file;
use crate::host::kernel::override_store::OverrideStore;
use crate::host::kernel::slot;
use crate::host::os::host_root::HostRoot;
use crate::host::os::privilege;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::history;
use crate::model::kernel::records::{BlockValues, Field, Slot, TRIAL_LIMIT};
use crate::model::kernel::transition::Event;
use crate::model::text::cause::{chain, in_words, on_one_line};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;

pub(in crate::manager) fn run(
    session: &Session,
    request: &OverrideCommand,
) -> Result<ManagerExit, Failure> {
    match request {
        OverrideCommand::Status { format } => return status(session, *format),
        OverrideCommand::Retry { abi } => change(session, "override retry", &Event::Retry { abi })?,
        OverrideCommand::Forget { abi } => {
            change(session, "override forget", &Event::Forget { abi })?;
        }
    }
    Ok(ManagerExit::Done)
}

fn change(session: &Session, by: &'static str, event: &Event<'_>) -> Result<(), Failure> {
    privilege::check()?;
    let device = Device::open(session, by, Reboot::Left)?.ok_or(KernelError::NoOverrides)?;
    if let Event::Retry { .. } = event {
        // A kernel is not off a list that cannot be seen.
        device.store.seen_rejected().map_err(KernelError::from)?;
    }
    device.settle(event)?.complete()?;
    Ok(())
}

/// docs/kernel-override.md describes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OverrideDocument {
    schema: u32,
    command: &'static str,
    /// Whether the device has a boot environment block.
    overrides: bool,
    running: Read<Option<Abi>>,
    slot: Read<Slot>,
    armed: Option<String>,
    /// Whether the armed kernel is on trial in the slot that runs; `None` if the slot is unknown.
    on_trial: Option<bool>,
    trial_boots: u32,
    trial_limit: u32,
    committed: CommittedDocument,
    update_window: bool,
    to_forget: Option<String>,
    rejected: Read<Vec<RejectedKernel>>,
    published: Read<Vec<PublishedKernel>>,
    claims: Read<BTreeSet<Abi>>,
}

#[derive(Default, Serialize)]
struct CommittedDocument {
    a: Option<String>,
    b: Option<String>,
}

#[derive(Serialize)]
struct RejectedKernel {
    abi: Abi,
    /// The newest event of the history about its rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    why: String,
}

#[derive(Serialize)]
struct PublishedKernel {
    abi: Abi,
    target: Read<String>,
    /// Whether the link leads to a file.
    bootable: Read<bool>,
}

fn status(session: &Session, format: OutputFormat) -> Result<ManagerExit, Failure> {
    let host = &session.host;
    let block = block::read(host).map_err(KernelError::from)?;
    let document = match &block {
        Some(block) => document(host, &block.values()),
        None => OverrideDocument::without_block(host),
    };
    match format {
        OutputFormat::Json => print_json(&document)?,
        OutputFormat::Table if block.is_none() => {
            print("this device has no boot environment block, so it has no kernel overrides\n")?;
        }
        OutputFormat::Table => print(&table(&document))?,
    }
    Ok(ManagerExit::Done)
}

/// The rejected kernels, and why.
fn rejected(host: &HostRoot) -> Result<Vec<RejectedKernel>, String> {
    let rejected = OverrideStore::new(host).seen_rejected().map_err(|error| chain(&error))?;
    let events = history_file::read(host).map(|bytes| history::parse(&bytes).0);
    let rejected = rejected.iter().map(|abi| {
        let (when, why) = match &events {
            Ok(events) => match history::rejection(events, abi) {
                Some(event) => (Some(event.time.clone()), event.detail.clone()),
                None => (None, "the history has no event about it".to_owned()),
            },
            Err(error) => (None, format!("unknown: cannot read the history: {}", in_words(error))),
        };
        RejectedKernel { abi: abi.clone(), when, why }
    });
    Ok(rejected.collect())
}

/// The published kernels, and where.
fn published(host: &HostRoot) -> Result<Vec<PublishedKernel>, String> {
    let store = OverrideStore::new(host);
    let published = store.published().map_err(|error| chain(&error))?;
    let published = published.abis.iter().map(|abi| PublishedKernel {
        abi: abi.clone(),
        target: store
            .target(abi)
            .map(|target| target.display().to_string())
            .map_err(|error| in_words(&error))
            .into(),
        bootable: store.is_bootable(abi).map_err(|error| in_words(&error)).into(),
    });
    Ok(published.collect())
}

fn document(host: &HostRoot, values: &BlockValues) -> OverrideDocument {
    let slot = slot::running(host).map_err(|error| chain(&error));
    let on_trial = slot.as_ref().ok().map(|slot| values.is_on_trial(*slot));
    OverrideDocument {
        schema: 1,
        command: "override status",
        overrides: true,
        running: running(host).map_err(|error| chain(&error)).into(),
        armed: text(&values.arm),
        on_trial,
        trial_boots: values.boots(),
        trial_limit: TRIAL_LIMIT,
        committed: CommittedDocument { a: text(&values.committed.a), b: text(&values.committed.b) },
        update_window: values.update_window,
        to_forget: text(&values.relay),
        rejected: rejected(host).into(),
        published: published(host).into(),
        claims: claims::load_claims(host).map_err(|error| chain(&error)).into(),
        slot: slot.into(),
    }
}

impl OverrideDocument {
    /// That of a host that has no overrides.
    fn without_block(host: &HostRoot) -> Self {
        let nothing = document(host, &BlockValues::default());
        let (rejected, published) = (Read::Value(Vec::new()), Read::Value(Vec::new()));
        Self { overrides: false, running: Read::Value(None), rejected, published, ..nothing }
    }
}

/// The text of a field; `None` if it is empty.
fn text(field: &Field) -> Option<String> {
    match field {
        Field::Empty => None,
        Field::Abi(abi) => Some(abi.to_string()),
        Field::Malformed => Some("malformed".to_owned()),
    }
}

fn table(document: &OverrideDocument) -> String {
    let stock = |kernel: Option<&str>| kernel.unwrap_or("the stock kernel").to_owned();
    let mut text = String::new();
    // A formatter into a String cannot fail.
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<13} {value}");
    };
    let slot = match &document.slot {
        Read::Value(slot) => format!("slot {slot}"),
        Read::Unreadable { unreadable } => format!("slot unknown: {unreadable}"),
    };
    let running = match &document.running {
        Read::Value(running) => stock(running.as_ref().map(Abi::as_str)),
        Read::Unreadable { unreadable } => format!("unknown: {unreadable};"),
    };
    row("running", &format!("{running} in {slot}"));
    let armed = stock(document.armed.as_deref());
    row(
        "armed",
        &match document.on_trial {
            Some(true) => format!(
                "{armed}, on trial: booted {} of {} times",
                document.trial_boots, document.trial_limit
            ),
            None if document.armed.is_some() => format!("{armed}; unknown whether it is on trial"),
            Some(false) | None => armed,
        },
    );
    row("committed A", &stock(document.committed.a.as_deref()));
    row("committed B", &stock(document.committed.b.as_deref()));
    if document.update_window {
        row("update", "an OS update can still roll back; it judges the kernel");
    }
    if let Some(abi) = &document.to_forget {
        row("to forget", &format!("{abi}, at the next validate"));
    }
    let (rejected, published) = (&document.rejected, &document.published);
    for RejectedKernel { abi, when, why } in rejected.value().into_iter().flatten() {
        let when = when.as_ref().map(|when| format!("{when}: ")).unwrap_or_default();
        let why = format!("{when}{}", on_one_line(why));
        row("rejected", &format!("{abi}\n{:13} {why}", ""));
    }
    if let Read::Unreadable { unreadable } = rejected {
        row("rejected", &format!("unknown: {unreadable}"));
    }
    for PublishedKernel { abi, target, bootable } in published.value().into_iter().flatten() {
        let (target, leads) = match (target, bootable) {
            (Read::Value(target), Read::Value(true)) => (on_one_line(target), String::new()),
            (Read::Value(target), Read::Value(false)) => {
                (on_one_line(target), ", which is missing or no file".to_owned())
            }
            (Read::Value(target), Read::Unreadable { unreadable }) => {
                (on_one_line(target), format!(", unknown: {unreadable}"))
            }
            (Read::Unreadable { unreadable }, _) => {
                (format!("unknown: {unreadable}"), String::new())
            }
        };
        let claimed = match &document.claims {
            Read::Value(claims) if claims.contains(abi) => "claimed by a deployed extension",
            Read::Value(_) => "claimed by no deployed extension; the next validate forgets it",
            Read::Unreadable { .. } => "unknown whether it is claimed",
        };
        row("published", &format!("{abi}\n{:13} {target}{leads}; {claimed}", ""));
    }
    if let Read::Unreadable { unreadable } = published {
        row("published", &format!("unknown: {unreadable}"));
    }
    if let Read::Unreadable { unreadable } = &document.claims {
        row("claims", unreadable);
    }
    text
}
