//! `status`: what became of every extension, and why. The verdicts are given in `model/verdict.rs`.

use super::gather::{self, Depth, Source, brief};
use super::{Context, Each, Exit, Failure, print_by, print_json, resolve};
use crate::cli::manager::{Format, Status};
use crate::host::{clock, deploy, grubenv, kernel};
use crate::model::cause::{chain, on_one_line};
use crate::model::container_id::ContainerId;
use crate::model::deploy::Record;
use crate::model::inventory::{Container, Detail, Mounted, Phase};
use crate::model::verdict::{self, ClaimView, Finding, Host, Known, OVERRIDE, Verdict};
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
    let (containers, source) = gather::extensions(context, Depth::Inspected)?;
    let mut shown: Vec<&Container> = containers.iter().collect();
    if !request.ids.is_empty() {
        shown.clear();
        for name in &request.ids {
            shown.push(resolve(&containers, name, |one| (one.id.as_str(), one.name.as_str()))?);
        }
    }
    let known = HostView::read(context);
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
pub(super) struct HostView<'a> {
    context: &'a Context,
    host: Host,
    booted: Result<SystemTime, String>,
}

impl<'a> HostView<'a> {
    pub(super) fn read(context: &'a Context) -> Self {
        let root = &context.host;
        let arm = match grubenv::load(root) {
            Ok(block) => Ok(block.and_then(|block| block.value(grubenv::ARM).map(str::to_owned))),
            Err(error) => Err(chain(&error)),
        };
        let rejected = root.read_if_there(REJECTED).and_then(|text| match text {
            None if root.lacks_mount(STATE) => {
                Err(format!("the state partition is not mounted at {:?}", root.path(STATE)))
            }
            text => Ok(text.unwrap_or_default().lines().map(str::to_owned).collect()),
        });
        let host = Host {
            running: kernel::running(root),
            layering: kernel::layering(root),
            arm,
            rejected,
        };
        Self { context, host, booted: kernel::boot_time(root) }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The record of the container's last deploy, if there is a readable one.
    pub(super) fn record(&self, container: &Container) -> Option<Record> {
        let id = ContainerId::parse(&container.id).ok()?;
        match deploy::load(&self.context.host.path(deploy::FOLDER), &id) {
            Ok(record) => record,
            Err(error) => {
                self.context.log.warn(&chain(&error));
                None
            }
        }
    }

    fn since_boot(&self, container: &Container, record: Option<&Record>) -> Option<bool> {
        // Records do not outlive the boot, and clocks of devices jump.
        if record.is_some() {
            return Some(true);
        }
        let Detail::Known(outcome) = &container.detail else { return None };
        let started = clock::parse(&outcome.started)?;
        Some(started >= *self.booted.as_ref().ok()?)
    }

    pub(super) fn view<'c>(&self, container: &'c Container) -> View<'c> {
        let record = self.record(container);
        let since_boot = self.since_boot(container, record.as_ref());
        let known = Known { since_boot, record: record.as_ref() };
        let Finding { code, sentence, next } = verdict::find(container, known, &self.host);
        let exit_code = match (&container.detail, container.phase) {
            (Detail::Known(outcome), Phase::Exited | Phase::Dead) => Some(outcome.exit_code),
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
        if view.verdict != Verdict::Applied {
            let subject = if name.is_empty() { id } else { name };
            told.push((subject, view.detail, view.next));
        }
    }
    for (name, detail, next) in told {
        writeln!(out, "\n{name}: {detail}\n  next: {next}")?;
    }
    Ok(())
}
