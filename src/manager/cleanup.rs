//! `cleanup`: gather, plan, apply. What goes and why is decided in `model/engine/cleanup.rs`.

use super::apply::{Became, Deactivated, Done, NotGone, apply};
use super::gather::{self, Breadth, brief};
use super::parallel::{self, Ended};
use super::preview;
use super::records::Records;
use super::sharing::shared_volumes;
use super::{Context, Each, Exit, Failure, print_by, print_json};
use crate::cli::manager::{Cleanup, Format};
use crate::host::engine::client::Client;
use crate::host::kernel::boot_mounts;
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::kernel::release;
use crate::host::os::privilege;
use crate::model::engine::cleanup::{Decision, Fate, Kind, Object, Plan, Window, plan};
use crate::model::engine::inspection::Errors;
use crate::model::engine::inventory::{Container, Detail, Inventory, Outcome, Phase};
use crate::model::kernel::rollback::Rollback;
use crate::model::text::bytes;
use crate::model::text::cause::{chain, on_one_line};
use serde::Serialize;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The version of the JSON.
const SCHEMA: u32 = 1;
/// How often an engine that is starting up is asked.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn cleanup(context: &Context, request: &Cleanup) -> Result<Exit, Failure> {
    if !request.dry_run {
        privilege::check()?;
    }
    refuse_before_commit(context, request)?;
    let client = Arc::new(connect(context, request)?);
    let lock = match request.dry_run {
        true => None,
        false => Some(OperationLock::acquire(&context.host, context.deadline, &context.stop)?),
    };
    // While engine and lock were waited for, an update may have begun.
    if !request.force {
        refuse_before_commit(context, request)?;
    }
    let running = request.stale_os.then(|| release::running(&context.host));
    let window = running.as_ref().map_or(Window::RollbackPossible, Window::Committed);
    let (inventory, plan) = decide(context, &client, window)?;
    let plan = Arc::new(plan);
    let (results, ended) = match lock {
        Some(lock) => apply(context, &client, &plan, &inventory.containers, lock),
        None => (Vec::new(), Ended::Complete),
    };
    context.note_requests(&client);
    let unreadable = inventory.unreadable.as_slice();
    let previews: Vec<Vec<Deactivated>> = match request.dry_run {
        true => plan.0.iter().map(preview::look).collect(),
        false => Vec::new(),
    };
    let report =
        Report { plan: &plan, results: &results, previews: &previews, unreadable, request };
    match request.format {
        Format::Json => print_json(&report.document())?,
        Format::Table => print_by(|stdout| report.table(stdout))?,
    }
    report.complain(context);
    match ended {
        Ended::Stopped => Err(Failure::Stopped),
        Ended::OutOfTime => Err(context.out_of_time()),
        // Each had its turn; those that failed may have failed for want of time.
        Ended::Complete if report.failures() > 0 => {
            match parallel::why_to_end(&context.stop, context.deadline) {
                Some(Ended::Stopped) => Err(Failure::Stopped),
                Some(_) => Err(context.out_of_time()),
                None => Ok(Exit::Failed),
            }
        }
        Ended::Complete => Ok(Exit::Done),
    }
}

/// Fails if claims are to be judged while an update may still roll back.
fn refuse_before_commit(context: &Context, request: &Cleanup) -> Result<(), Failure> {
    if !request.stale_os {
        return Ok(());
    }
    match boot_mounts::rollback(&context.host) {
        Rollback::Possible { path } if !request.force => Err(Failure::RollbackPossible { path }),
        Rollback::Possible { .. } | Rollback::Impossible => Ok(()),
        Rollback::Unknown { why } if request.force => {
            context.log.warn(&format!("{why}; going ahead (--force)"));
            Ok(())
        }
        Rollback::Unknown { why } => Err(Failure::WindowUnknown { why }),
    }
}

/// Connects, and waits for an engine that is starting up if that is wished.
fn connect(context: &Context, request: &Cleanup) -> Result<Client, Failure> {
    let deadline = Instant::now() + request.wait;
    loop {
        match context.connect() {
            Err(Failure::Engine(error)) if error.may_pass() && Instant::now() < deadline => {
                if context.stop.pause(PAUSE) {
                    return Err(Failure::Stopped);
                }
            }
            result => return result,
        }
    }
}

/// Gathers what decides, and decides.
fn decide(
    context: &Context,
    client: &Arc<Client>,
    window: Window<'_>,
) -> Result<(Inventory, Plan), Failure> {
    let mut inventory = match window {
        Window::RollbackPossible => gather::containers(client, Breadth::Extensions)?,
        Window::Committed(_) => {
            let leftovers = gather::leftovers(client)?;
            // After images and volumes: what was made meanwhile counts as in use.
            let Inventory { containers, foreign, unreadable, .. } =
                gather::containers(client, Breadth::Everything)?;
            let unreadable = leftovers.unreadable.into_iter().chain(unreadable).collect();
            Inventory { containers, foreign, unreadable, ..leftovers }
        }
    };
    // Only the error decides.
    let trim = |outcome: &mut Outcome| {
        *outcome = Outcome { error: outcome.error.take(), ..Outcome::default() };
    };
    gather::inspect(context, client, &mut inventory.containers, trim)?;
    if client.errors() == Errors::NotKept {
        let records = Records::find(&context.host);
        inventory.containers.iter_mut().for_each(|container| add_failure(container, &records));
    }
    if matches!(window, Window::Committed(_)) {
        inventory.shared = shared_volumes(&inventory);
    }
    let mut planned = plan(&inventory, window);
    if planned.removals().any(|decision| decision.object.kind == Kind::Volume) {
        match gather::volume_sizes(client) {
            Ok(sizes) => planned.measure(&sizes),
            Err(error) if error.is_stop() => return Err(Failure::Stopped),
            // Sizes decide nothing.
            Err(error) => context.log.warn(&format!("{}; sizes are left out", chain(&error))),
        }
    }
    Ok((inventory, planned))
}

/// Adds what the runtime has recorded since the host booted, where the engine keeps no errors.
fn add_failure(container: &mut Container, records: &Records) {
    let Detail::Known(outcome) = &mut container.detail else { return };
    if !matches!(container.phase, Phase::Created | Phase::Exited) || outcome.error.is_some() {
        return;
    }
    match records.failure(&container.id) {
        Ok(failure) => outcome.error = failure,
        Err(why) => container.detail = Detail::Unreadable(why),
    }
}

/// A plan with what became of it; nothing yet in a dry run.
struct Report<'a> {
    plan: &'a Plan,
    results: &'a [Option<Done>],
    /// What a dry run would run.
    previews: &'a [Vec<Deactivated>],
    /// Items of the engine's lists that could not be judged.
    unreadable: &'a [String],
    request: &'a Cleanup,
}

/// The JSON answer. docs/manager.md has the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, Rows: Serialize> {
    schema: u32,
    command: &'static str,
    dry_run: bool,
    stale_os: bool,
    objects: Rows,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unreadable: &'a [String],
    summary: Summary,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(flatten)]
    object: &'a Object,
    action: &'static str,
    reason: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    deactivated: &'a [Deactivated],
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    remove: usize,
    keep: usize,
    undecided: usize,
    failed: usize,
    not_tried: usize,
    /// What the engine says that images and volumes which went, or would go, take.
    bytes: u64,
}

impl<'a> Report<'a> {
    fn rows(&self) -> impl Iterator<Item = Row<'a>> + Clone + use<'a> {
        let (plan, results, previews) = (self.plan, self.results, self.previews);
        let dry_run = self.request.dry_run;
        plan.0.iter().enumerate().map(move |(index, decision)| {
            let done = results.get(index).and_then(Option::as_ref);
            let preview = previews.get(index).map(Vec::as_slice).unwrap_or_default();
            let deactivated = done.map_or(preview, |done| &done.deactivated);
            row(decision, done, deactivated, dry_run)
        })
    }

    fn document(&self) -> Document<'a, impl Serialize + use<'a>> {
        Document {
            schema: SCHEMA,
            command: "cleanup",
            dry_run: self.request.dry_run,
            stale_os: self.request.stale_os,
            objects: Each(self.rows()),
            unreadable: self.unreadable,
            summary: self.summary(),
        }
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary { undecided: self.unreadable.len(), ..Summary::default() };
        for row in self.rows() {
            if row.action == "keep" {
                summary.keep += 1;
                summary.undecided += usize::from(row.reason == "undecided");
                continue;
            }
            summary.remove += 1;
            match row.result {
                Some("failed" | "unknown") => summary.failed += 1,
                Some("recovered") => {
                    summary.remove -= 1;
                    summary.keep += 1;
                }
                Some("not-tried") => summary.not_tried += 1,
                // An engine may say anything of a size.
                _ => {
                    let bytes = row.object.bytes.unwrap_or_default();
                    summary.bytes = summary.bytes.saturating_add(bytes);
                }
            }
        }
        summary
    }

    /// What makes the exit status 1.
    fn failures(&self) -> usize {
        let summary = self.summary();
        let hooks = self.rows().flat_map(|row| row.deactivated);
        let hooks = hooks.filter(|deactivated| deactivated.error.is_some()).count();
        summary.failed + summary.undecided + summary.not_tried + hooks
    }

    fn table(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut printed = 0;
        for row in self.rows() {
            let is_told = matches!(row.reason, "undecided" | "malformed-claim");
            if row.action == "keep" && !self.request.verbose && !is_told {
                continue;
            }
            if printed == 0 {
                writeln!(
                    out,
                    "ACTION    KIND       ID            NAME                  SIZE  WHY"
                )?;
            }
            printed += 1;
            let size = row.object.bytes.map(bytes::shown).unwrap_or_default();
            let action = match row.result {
                Some(result @ ("failed" | "unknown" | "not-tried" | "recovered")) => result,
                _ => row.action,
            };
            let kind = row.object.kind.to_string();
            let (id, name) = (brief(&row.object.id), on_one_line(row.object.name.as_str()));
            write!(out, "{action:<9} {kind:<10} {id:<13} {name:<16} {size:>9}  {}", row.detail)?;
            match row.error {
                Some(error) => writeln!(out, " ({})", on_one_line(error))?,
                None => writeln!(out)?,
            }
            for Deactivated { volume, program, error, .. } in self.previewed(&row) {
                let volume = on_one_line(volume.as_str());
                match (program, error) {
                    (Some(program), _) => {
                        writeln!(out, "  runs {}", on_one_line(program.as_str()))?
                    }
                    (None, Some(why)) => {
                        writeln!(
                            out,
                            "  does not run deactivate of volume {volume}: {}",
                            on_one_line(why)
                        )?;
                    }
                    (None, None) => {}
                }
            }
        }
        let summary = self.summary();
        let (verb, freed) = match self.request.dry_run {
            true => ("would be removed", "would be freed"),
            false => ("removed", "freed"),
        };
        writeln!(
            out,
            "{} {verb}, {} kept, {} failed; {} {freed}",
            summary.remove - summary.failed - summary.not_tried,
            summary.keep,
            summary.failed + summary.not_tried + summary.undecided,
            bytes::shown(summary.bytes),
        )
    }

    /// What a dry run would run for a row.
    fn previewed(&self, row: &Row<'a>) -> &'a [Deactivated] {
        if self.request.dry_run { row.deactivated } else { &[] }
    }

    /// Tells every failure on standard error, where a journal looks for them.
    fn complain(&self, context: &Context) {
        for item in self.unreadable {
            context.log.error(item);
        }
        for (object, why) in self.plan.undecided() {
            let name = &object.name;
            context.log.error(&format!("{} {name} is kept: {why}", object.kind));
        }
        for (decision, done) in self.plan.0.iter().zip(self.results) {
            let Some(done) = done else { continue };
            let Object { kind, id, name, .. } = &decision.object;
            let id = brief(id);
            match &done.result {
                Ok(_) => {}
                Err(NotGone::Still(why) | NotGone::InTheWay(why)) => {
                    context.log.error(&format!("{kind} {id} ({name}) is still there: {why}"));
                }
                Err(NotGone::Unknown(why)) => context.log.error(&format!(
                    "{kind} {id} ({name}) may be still there, or may have gone: {why}"
                )),
            }
            for deactivated in &done.deactivated {
                if let Some(error) = &deactivated.error {
                    let volume = &deactivated.volume;
                    let went_on =
                        if done.result.is_ok() { ", and the removal went on" } else { "" };
                    context.log.error(&format!(
                        "deactivate of volume {volume} ({kind} {id}, {name}) did not do its \
                         work{went_on}: {error}"
                    ));
                }
            }
        }
    }
}

fn row<'a>(
    decision: &'a Decision,
    done: Option<&'a Done>,
    deactivated: &'a [Deactivated],
    dry_run: bool,
) -> Row<'a> {
    let (action, reason, detail) = match &decision.fate {
        Fate::Remove { reason, .. } => ("remove", reason.code(), reason.to_string()),
        Fate::Keep(kept) => ("keep", kept.code(), kept.to_string()),
    };
    let result = match (action, done.map(|done| &done.result)) {
        ("keep", _) => None,
        (_, Some(Ok(Became::Removed))) => Some("removed"),
        (_, Some(Ok(Became::GoneBefore))) => Some("gone-already"),
        (_, Some(Ok(Became::BeingRemoved))) => Some("being-removed"),
        (_, Some(Ok(Became::LeftDead))) => Some("left-dead"),
        (_, Some(Ok(Became::Recovered))) => Some("recovered"),
        (_, Some(Err(NotGone::Still(_) | NotGone::InTheWay(_)))) => Some("failed"),
        (_, Some(Err(NotGone::Unknown(_)))) => Some("unknown"),
        (_, None) if dry_run => None,
        (_, None) => Some("not-tried"),
    };
    Row {
        object: &decision.object,
        action,
        reason,
        detail,
        result,
        error: done.and_then(|done| done.result.as_ref().err()).map(NotGone::why),
        deactivated,
    }
}
