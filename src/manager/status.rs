//! `status`: what became of every extension, and why. The verdicts are given in `model/engine/verdict.rs`.

use super::gather::{self, Source, brief};
use super::records::Records;
use super::surroundings::{Surroundings, initramfs_log};
use super::{Context, Each, Exit, Failure, print_by, print_json, resolve};
use crate::cli::manager::{Format, Status};
use crate::host::kernel::boot_mounts;
use crate::host::kernel::release;
use crate::host::os::clock;
use crate::model::container::deploy_record::Record;
use crate::model::engine::inventory::{Container, Detail, Mounted, Phase};
use crate::model::engine::runtimes::{RanBy, Runtimes};
use crate::model::engine::verdict::{self, ClaimView, Finding, Host, Known, OVERRIDE, Verdict};
use crate::model::kernel::block;
use crate::model::text::cause::{chain, on_one_line};
use serde::Serialize;
use std::io::{self, Write};
use std::time::SystemTime;

/// The version of the JSON.
const SCHEMA: u32 = 1;
/// Where the kernels are listed that are not tried again.
const REJECTED: &str = "/mnt/state/override-rejected";
/// Where the partition with it is mounted.
const STATE: &str = "/mnt/state";

/// One extension with everything that is known of it. docs/manager.md has the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    image: &'a str,
    image_id: &'a str,
    state: Phase,
    exit_code: Option<i64>,
    pub(super) verdict: Verdict,
    reason: &'static str,
    detail: String,
    next: String,
    claims: Vec<ClaimView>,
    /// What is wrong with its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
    /// The priority above the root filesystem, as labelled.
    #[serde(rename = "override")]
    priority: Option<&'a str>,
    requires_reboot: bool,
    volumes: &'a [Mounted],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<Views: Serialize> {
    schema: u32,
    command: &'static str,
    source: &'static str,
    extensions: Views,
}

pub(super) fn status(context: &Context, request: &Status) -> Result<Exit, Failure> {
    let (containers, source, surroundings) = gather::inspected(context)?;
    let mut shown: Vec<&Container> = containers.iter().collect();
    if !request.ids.is_empty() {
        shown.clear();
        for name in &request.ids {
            shown.push(resolve(&containers, name, |one| (one.id.as_str(), one.name.as_str()))?);
        }
    }
    let known = HostView::read(context, surroundings);
    let views = shown.iter().map(|container| known.view(container));
    match request.format {
        Format::Json => print_json(&Document {
            schema: SCHEMA,
            command: "status",
            source: match source {
                Source::Engine => "engine",
                Source::Store => "store",
            },
            extensions: Each(views),
        })?,
        Format::Table => print_by(|stdout| table(stdout, views))?,
    }
    Ok(Exit::Done)
}

/// What is known of the host, and where records are.
pub(super) struct HostView {
    host: Host,
    runtimes: Runtimes,
    booted: Result<SystemTime, String>,
    records: Records,
}

impl HostView {
    pub(super) fn read(context: &Context, surroundings: Surroundings) -> Self {
        let root = &context.host;
        let arm = match boot_mounts::block(root) {
            Ok(block) => Ok(block.and_then(|block| block.value(block::ARM).map(str::to_owned))),
            Err(error) => Err(chain(&error)),
        };
        let rejected = root.read_if_there(REJECTED).and_then(|text| match text {
            None if root.lacks_mount(STATE) => {
                Err(format!("the state partition is not mounted at {:?}", root.shown(STATE)))
            }
            text => Ok(text.unwrap_or_default().lines().map(str::to_owned).collect()),
        });
        let Surroundings { layering, runtimes } = surroundings;
        let host = Host {
            running: release::running(root),
            layering,
            arm,
            rejected,
            initramfs_log: initramfs_log(root),
            runtime: runtimes.own_name().map(str::to_owned),
        };
        let records = Records::find(root);
        Self { host, runtimes, booted: release::boot_time(root), records }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The record of the container's last deploy.
    pub(super) fn record(&self, container: &Container) -> Result<Option<Record>, String> {
        self.records.of(&container.id)
    }

    fn since_boot(&self, container: &Container) -> Option<bool> {
        let Detail::Known(outcome) = &container.detail else { return None };
        let started = clock::parse(&outcome.started)?;
        Some(started >= *self.booted.as_ref().ok()?)
    }

    pub(super) fn view<'c>(&self, container: &'c Container) -> View<'c> {
        let record = self.record(container);
        let ran_by = match &container.detail {
            Detail::Known(outcome) => self.runtimes.ran_by(&outcome.runtime),
            Detail::NotAsked | Detail::Unreadable(_) => RanBy::Unknown,
        };
        let known = Known {
            since_boot: self.since_boot(container),
            record: record.as_ref().map(Option::as_ref).map_err(String::as_str),
            ran_by,
        };
        let Finding { code, sentence, next } = verdict::find(container, known, &self.host);
        let exit_code = match (&container.detail, container.phase) {
            (Detail::Known(outcome), Phase::Exited | Phase::Dead) => outcome.exit_code,
            _ => None,
        };
        View {
            id: &container.id,
            name: &container.name,
            image: &container.image,
            image_id: &container.image_id,
            state: container.phase,
            exit_code,
            verdict: code.verdict(),
            reason: code.word(),
            detail: sentence,
            next,
            claims: verdict::claims(&container.labels, &self.host.running),
            warning: container.labels.claims().malformed(),
            priority: container.labels.value(OVERRIDE),
            requires_reboot: verdict::requires_reboot(&container.labels),
            volumes: &container.mounts,
        }
    }
}

fn table<'a>(out: &mut dyn Write, views: impl Iterator<Item = View<'a>>) -> io::Result<()> {
    let mut views = views.peekable();
    if views.peek().is_none() {
        return writeln!(out, "there are no extensions");
    }
    writeln!(out, "ID            NAME                      STATE       VERDICT         REASON")?;
    let mut told = Vec::new();
    for view in views {
        let (id, state, verdict) = (brief(view.id), view.state.word(), view.verdict.word());
        let name = on_one_line(view.name);
        writeln!(out, "{id:<13} {name:<25} {state:<11} {verdict:<15} {}", view.reason)?;
        if view.verdict != Verdict::Applied || view.warning.is_some() {
            let subject = if name.is_empty() { id } else { name };
            told.push((subject, view));
        }
    }
    for (name, view) in told {
        writeln!(out, "\n{name}: {}\n  next: {}", view.detail, view.next)?;
        if let Some(warning) = view.warning {
            writeln!(out, "  warning: {warning}")?;
        }
    }
    Ok(())
}
