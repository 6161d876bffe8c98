//! `status`: the verdict about every extension, and the next step. `model/engine/verdict.rs` decides.

use super::gather::{self, InventorySource};
use super::host_view::HostView;
use super::{Failure, ManagerExit, Session, print, print_json};
use crate::cli::manager::StatusArguments;
use crate::cli::values::OutputFormat;
use crate::model::engine::inventory::{EngineContainer, EngineState, Mounted};
use crate::model::engine::verdict::{self, Evidence, Explanation, Verdict};
use crate::model::extension::claim::ComparedClaim;
use crate::model::extension::labels::OVERRIDE;
use crate::model::text::cause::on_one_line;
use crate::model::text::cut::short_id;
use serde::Serialize;
use std::fmt::Write as _;

/// One extension and its verdict. docs/manager.md describes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExtensionView<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    image: &'a str,
    image_id: &'a str,
    state: EngineState,
    exit_code: Option<i64>,
    pub(super) verdict: Verdict,
    reason: &'static str,
    detail: String,
    next: String,
    claims: Vec<ComparedClaim>,
    /// A malformed label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
    /// The label with the priority above the root filesystem.
    #[serde(rename = "override")]
    priority: Option<&'a str>,
    requires_reboot: bool,
    volumes: &'a [Mounted],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDocument<'a> {
    schema: u32,
    command: &'static str,
    source: InventorySource,
    extensions: Vec<ExtensionView<'a>>,
}

pub(super) fn status(session: &Session, request: &StatusArguments) -> Result<ManagerExit, Failure> {
    let (containers, source, host) = gather::inspected(session, &request.ids)?;
    let views = containers.iter().map(|one| ExtensionView::new(one, &host));
    match request.format {
        OutputFormat::Json => print_json(&StatusDocument {
            schema: 1,
            command: "status",
            source,
            extensions: views.collect(),
        })?,
        OutputFormat::Table => print(&table(views))?,
    }
    Ok(ManagerExit::Done)
}

impl<'a> ExtensionView<'a> {
    pub(super) fn new(container: &'a EngineContainer, host: &HostView) -> Self {
        let record = host.records.of(&container.id);
        let evidence = Evidence {
            since_boot: host.since_boot(container),
            record: record.as_ref().map(Option::as_ref).map_err(String::as_str),
            ran_by: host.ran_by(container),
        };
        let Explanation { reason, sentence, next } =
            verdict::explain(container, evidence, &host.facts);
        let has_ended = matches!(container.state, EngineState::Exited | EngineState::Dead);
        let claims = container.labels.claims();
        Self {
            id: &container.id,
            name: &container.name,
            image: &container.image,
            image_id: &container.image_id,
            state: container.state,
            exit_code: container.last_run().filter(|_| has_ended).and_then(|run| run.exit_code),
            verdict: reason.verdict(),
            reason: reason.code(),
            detail: sentence,
            next,
            claims: claims.compare(&host.facts.running),
            warning: claims.malformed(),
            priority: container.labels.value(OVERRIDE),
            requires_reboot: verdict::requires_reboot(&container.labels),
            volumes: &container.mounts,
        }
    }
}

fn table<'a>(views: impl Iterator<Item = ExtensionView<'a>>) -> String {
    const HEAD: &str =
        "ID            NAME                      STATE       VERDICT         REASON\n";
    // A formatter into a String cannot fail.
    let (mut rows, mut details) = (HEAD.to_owned(), String::new());
    for view in views {
        let (id, state, verdict) = (short_id(view.id), view.state, view.verdict);
        let name = on_one_line(view.name);
        let reason = view.reason;
        let _ = writeln!(rows, "{id:<13} {name:<25} {state:<11} {verdict:<15} {reason}");
        if view.verdict != Verdict::Applied || view.warning.is_some() {
            let subject = if name.is_empty() { id } else { &name };
            let _ = writeln!(details, "\n{subject}: {}\n  next: {}", view.detail, view.next);
            if let Some(warning) = &view.warning {
                let _ = writeln!(details, "  warning: {warning}");
            }
        }
    }
    if rows == HEAD { "there are no extensions\n".to_owned() } else { rows + &details }
}
