//! `status`: the verdict about every extension, and the next step. `model/engine/verdict.rs` decides.

use super::gather::{self, InventorySource};
use super::records::Records;
use super::surroundings::{Surroundings, initramfs_log};
use super::{Failure, ManagerExit, Session, print, print_json, resolve};
use crate::cli::manager::{OutputFormat, StatusArguments};
use crate::host::kernel::boot_mounts;
use crate::host::kernel::release;
use crate::host::os::clock;
use crate::model::container::deploy_record::DeployRecord;
use crate::model::engine::inventory::{Detail, EngineContainer, EngineState, Mounted};
use crate::model::engine::runtimes::{RanBy, Runtimes};
use crate::model::engine::verdict::{self, ClaimView, Evidence, Explanation, HostFacts, Verdict};
use crate::model::extension::labels::OVERRIDE;
use crate::model::kernel::block;
use crate::model::text::cause::{chain, on_one_line};
use crate::model::text::short_id::short_id;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::SystemTime;

/// The list of the kernels that are not tried again.
const REJECTED: &str = "/mnt/state/override-rejected";
/// The mount point of its partition.
const STATE: &str = "/mnt/state";

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
    claims: Vec<ClaimView>,
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
    source: &'static str,
    extensions: &'a [ExtensionView<'a>],
}

pub(super) fn status(session: &Session, request: &StatusArguments) -> Result<ManagerExit, Failure> {
    let (containers, source, surroundings) = gather::inspected(session)?;
    let shown: Vec<&EngineContainer> = match request.ids.as_slice() {
        [] => containers.iter().collect(),
        ids => {
            let find = |name| resolve(&containers, name, EngineContainer::id_and_name);
            ids.iter().map(|name| find(name)).collect::<Result<_, _>>()?
        }
    };
    let host = HostView::read(session, surroundings);
    let views: Vec<_> = shown.into_iter().map(|container| host.view(container)).collect();
    match request.format {
        OutputFormat::Json => print_json(&StatusDocument {
            schema: 1,
            command: "status",
            source: match source {
                InventorySource::Engine => "engine",
                InventorySource::Store => "store",
            },
            extensions: &views,
        })?,
        OutputFormat::Table => print(&table(&views))?,
    }
    Ok(ManagerExit::Done)
}

/// The facts about the host, and the runtime's records.
pub(super) struct HostView {
    host: HostFacts,
    runtimes: Runtimes,
    booted: Result<SystemTime, String>,
    records: Records,
}

impl HostView {
    pub(super) fn read(session: &Session, surroundings: Surroundings) -> Self {
        let root = &session.host;
        let armed = match boot_mounts::block(root) {
            Ok(block) => Ok(block.and_then(|block| block.value(block::ARM).map(str::to_owned))),
            Err(error) => Err(chain(&error)),
        };
        let rejected = root.read_if_there(REJECTED).and_then(|text| match text {
            None if root.lacks_mount(STATE) => {
                Err(format!("the state partition is not mounted at {:?}", root.display_path(STATE)))
            }
            text => Ok(text.unwrap_or_default().lines().map(str::to_owned).collect()),
        });
        let Surroundings { overlays, runtimes } = surroundings;
        let host = HostFacts {
            running: release::running(root),
            overlays,
            armed,
            rejected,
            initramfs_log: initramfs_log(root),
            runtime: runtimes.own_name().map(str::to_owned),
        };
        let records = Records::find(root);
        Self { host, runtimes, booted: release::boot_time(root), records }
    }

    pub(super) fn host(&self) -> &HostFacts {
        &self.host
    }

    /// The record of the container's last deploy.
    pub(super) fn record(
        &self,
        container: &EngineContainer,
    ) -> Result<Option<DeployRecord>, String> {
        self.records.of(&container.id)
    }

    fn since_boot(&self, container: &EngineContainer) -> Option<bool> {
        let Detail::Known(last_run) = &container.detail else { return None };
        let started = clock::parse(&last_run.started)?;
        Some(started >= *self.booted.as_ref().ok()?)
    }

    pub(super) fn view<'c>(&self, container: &'c EngineContainer) -> ExtensionView<'c> {
        let record = self.record(container);
        let ran_by = match &container.detail {
            Detail::Known(last_run) => self.runtimes.ran_by(&last_run.runtime),
            Detail::NotAsked | Detail::Unreadable(_) => RanBy::Unknown,
        };
        let evidence = Evidence {
            since_boot: self.since_boot(container),
            record: record.as_ref().map(Option::as_ref).map_err(String::as_str),
            ran_by,
        };
        let explanation = verdict::explain(container, evidence, &self.host);
        let Explanation { reason, sentence, next } = explanation;
        let exit_code = match (&container.detail, container.state) {
            (Detail::Known(last_run), EngineState::Exited | EngineState::Dead) => {
                last_run.exit_code
            }
            _ => None,
        };
        ExtensionView {
            id: &container.id,
            name: &container.name,
            image: &container.image,
            image_id: &container.image_id,
            state: container.state,
            exit_code,
            verdict: reason.verdict(),
            reason: reason.code(),
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

fn table(views: &[ExtensionView<'_>]) -> String {
    if views.is_empty() {
        return "there are no extensions\n".to_owned();
    }
    // A formatter into a String cannot fail.
    let (mut rows, mut details) = (String::new(), String::new());
    for view in views {
        let (id, state, verdict) = (short_id(view.id), view.state.word(), view.verdict.word());
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
    format!(
        "ID            NAME                      STATE       VERDICT         REASON\n{rows}{details}"
    )
}
