//! `status`: the verdict about every extension, and the next step. `model/engine/verdict.rs` decides.

use super::host_view::HostView;
use super::inspected::{InventorySource, inspected};
use super::readable::Read;
use super::space::StaleOs;
use super::{Failure, ManagerExit, Session, metrics, print, print_json, space};
use crate::cli::manager::StatusArguments;
use crate::cli::values::StatusFormat;
use crate::model::engine::inventory::{EngineContainer, EngineState, Mounted};
use crate::model::engine::space::{ExtensionSpace, Reclaimable};
use crate::model::engine::verdict::{self, Explanation, Verdict};
use crate::model::extension::claim::ComparedClaim;
use crate::model::extension::labels::OVERRIDE;
use crate::model::text::cause::on_one_line;
use crate::model::text::cut::{self, short_id};
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
    #[serde(flatten)]
    space: ExtensionSpace,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDocument<'a> {
    schema: u32,
    command: &'static str,
    source: InventorySource,
    extensions: Vec<ExtensionView<'a>>,
    /// Of the whole device, so not in an answer about some extensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_os: Option<Read<StaleOs>>,
}

pub(super) fn status(session: &Session, request: &StatusArguments) -> Result<ManagerExit, Failure> {
    let inspected = inspected(session, &request.ids)?;
    if request.format == StatusFormat::Prometheus {
        return metrics::metrics(session, &inspected, request.output.as_deref());
    }
    let (sizes, stale_os) = match request.ids.as_slice() {
        [] => {
            let (sizes, stale_os) =
                space::of_device(session, &inspected, &inspected.host.facts.running)?;
            (sizes, Some(stale_os))
        }
        [_, ..] => (space::of_extensions(session, &inspected)?, None),
    };
    inspected.log_requests(session);
    let views = inspected
        .containers
        .iter()
        .map(|one| ExtensionView::new(one, &inspected.host, sizes.space(one)));
    if request.format == StatusFormat::Json {
        print_json(&StatusDocument {
            schema: 1,
            command: "status",
            source: inspected.source(),
            extensions: views.collect(),
            stale_os: stale_os.map(Read::from),
        })?;
    } else {
        let stale_os = stale_os.as_ref().map(|read| read.as_ref().map_err(String::as_str));
        let stale_os = stale_os.and_then(stale_os_line).unwrap_or_default();
        print(&(table(views) + &stale_os))?;
    }
    Ok(ManagerExit::Done)
}

impl<'a> ExtensionView<'a> {
    pub(super) fn new(
        container: &'a EngineContainer,
        host: &HostView,
        space: ExtensionSpace,
    ) -> Self {
        let Explanation { reason, sentence, next } = host.explain(container);
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
            space,
        }
    }
}

fn table<'a>(views: impl Iterator<Item = ExtensionView<'a>>) -> String {
    const HEAD: &str =
        "ID            NAME                      STATE       VERDICT             SIZE  REASON\n";
    // A formatter into a String cannot fail.
    let (mut rows, mut details) = (HEAD.to_owned(), String::new());
    for view in views {
        let (id, state, verdict) = (short_id(view.id), view.state, view.verdict);
        let name = on_one_line(view.name);
        let reason = view.reason;
        let size = view.space.all().map_or_else(|| "unknown".to_owned(), cut::size);
        let _ = writeln!(rows, "{id:<13} {name:<25} {state:<11} {verdict:<15} {size:>8}  {reason}");
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

/// What `cleanup --stale-os` would free; `None` if it has nothing to do.
pub(super) fn stale_os_line(stale_os: Result<&StaleOs, &str>) -> Option<String> {
    let StaleOs { reclaimable, update_can_roll_back } = match stale_os {
        Ok(stale_os) => stale_os,
        Err(why) => {
            return Some(format!(
                "\nunknown what cleanup --stale-os would free: {}\n",
                on_one_line(why)
            ));
        }
    };
    let Reclaimable { remove, undecided, bytes, unmeasured } = *reclaimable;
    if remove == 0 && undecided == 0 {
        return None;
    }
    let mut line =
        format!("\ncleanup --stale-os would remove {remove} objects and free {}", cut::size(bytes));
    if unmeasured > 0 {
        line += &format!(", and the space of {unmeasured} objects of unknown size");
    }
    if undecided > 0 {
        line += &format!("; it could not decide about {undecided} objects");
    }
    line += match update_can_roll_back {
        Some(false) => "",
        Some(true) => "; it is refused until the OS update has committed",
        None => "; it is refused, because it is unknown whether an OS update can still roll back",
    };
    Some(line + "\n")
}
