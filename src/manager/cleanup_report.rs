//! Prints the plan and the results of `cleanup`: a table or JSON on standard output, failures on standard error,
//! where a journal expects them.

use super::apply::Done;
use super::deactivate::Deactivated;
use super::{Failure, print, print_json};
use crate::cli::manager::CleanupArguments;
use crate::cli::values::OutputFormat;
use crate::host::os::log::Log;
use crate::model::engine::cleanup::{Decision, Fate, Object, Plan};
use crate::model::text::cause::on_one_line;
use crate::model::text::cut;
use crate::model::text::cut::short_id;
use serde::Serialize;
use std::fmt::Write as _;

/// The JSON answer. docs/manager.md describes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CleanupReport<'a> {
    schema: u32,
    command: &'static str,
    dry_run: bool,
    stale_os: bool,
    objects: Vec<ObjectRow<'a>>,
    /// Items of the engine's lists that cannot be parsed, and a list of volumes that is missing.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unreadable: &'a [String],
    summary: Summary,
    #[serde(skip)]
    verbose: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRow<'a> {
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
    /// The size of the images and volumes that are, or would be, removed.
    bytes: u64,
}

impl<'a> CleanupReport<'a> {
    /// `results` are those of the plan's decisions; of a dry run they have previews.
    pub(super) fn new(
        request: &CleanupArguments,
        plan: &'a Plan,
        unreadable: &'a [String],
        results: &'a [Done],
    ) -> Self {
        let row = |(Decision { object, fate }, done): (&'a Decision, &'a Done)| {
            let (action, reason, detail) = match fate {
                Fate::Remove { reason, .. } => ("remove", reason.code(), reason.to_string()),
                Fate::Keep(kept) => ("keep", kept.code(), kept.to_string()),
            };
            let was_due = action == "remove" && !request.dry_run;
            let result = was_due.then(|| done.word());
            let (error, deactivated) = (done.error(), done.deactivated.as_slice());
            ObjectRow { object, action, reason, detail, result, error, deactivated }
        };
        let objects: Vec<_> = plan.0.iter().zip(results).map(row).collect();
        Self {
            schema: 1,
            command: "cleanup",
            dry_run: request.dry_run,
            stale_os: request.stale_os,
            summary: summary(&objects, unreadable.len()),
            objects,
            unreadable,
            verbose: request.verbose,
        }
    }

    /// The number of failures. With any, the exit status is 1.
    pub(super) fn failures(&self) -> usize {
        let Summary { failed, undecided, not_tried, .. } = self.summary;
        let hooks = self.objects.iter().flat_map(|row| row.deactivated);
        failed + undecided + not_tried + hooks.filter(|hook| hook.error.is_some()).count()
    }

    pub(super) fn print(&self, format: OutputFormat) -> Result<(), Failure> {
        match format {
            OutputFormat::Json => print_json(self),
            OutputFormat::Table => print(&self.table()),
        }
    }

    fn table(&self) -> String {
        // A formatter into a String cannot fail.
        let mut table = String::new();
        let is_shown = |row: &&ObjectRow<'_>| {
            let is_notable = matches!(row.reason, "undecided" | "malformed-claim");
            row.action == "remove" || self.verbose || is_notable
        };
        for row in self.objects.iter().filter(is_shown) {
            if table.is_empty() {
                table.push_str(
                    "ACTION    KIND       ID            NAME                  SIZE  WHY\n",
                );
            }
            let action = match row.result {
                Some(result @ ("failed" | "unknown" | "not-tried" | "recovered" | "claimed")) => {
                    result
                }
                _ => row.action,
            };
            let ObjectRow { object, detail, error, .. } = row;
            let (kind, id) = (object.kind.to_string(), short_id(&object.id));
            let name = on_one_line(object.name.as_str());
            let size = object.bytes.map(cut::size).unwrap_or_default();
            let error = error.map(|error| format!(" ({})", on_one_line(error)));
            let error = error.unwrap_or_default();
            let _ = writeln!(
                table,
                "{action:<9} {kind:<10} {id:<13} {name:<16} {size:>9}  {detail}{error}"
            );
            for line in row.deactivated.iter().filter(|_| self.dry_run).filter_map(preview_line) {
                let _ = writeln!(table, "  {}", on_one_line(line));
            }
        }
        let Summary { remove, keep, undecided, failed, not_tried, bytes } = self.summary;
        let (verb, freed) = match self.dry_run {
            true => ("would be removed", "would be freed"),
            false => ("removed", "freed"),
        };
        let (removed, all_failed) = (remove - failed - not_tried, failed + not_tried + undecided);
        let bytes = cut::size(bytes);
        let _ =
            writeln!(table, "{removed} {verb}, {keep} kept, {all_failed} failed; {bytes} {freed}");
        table
    }

    /// Logs every failure as an error.
    pub(super) fn log_failures(&self, log: &Log) {
        self.unreadable.iter().for_each(|item| log.error(item));
        for row in &self.objects {
            let ObjectRow { object: Object { kind, id, name, .. }, detail, .. } = row;
            let object = format!("{kind} {} ({name})", short_id(id));
            match (row.reason, row.result, row.error) {
                ("undecided", _, _) => log.error(&format!("{object} is kept: {detail}")),
                (_, Some("unknown"), Some(why)) => {
                    log.error(&format!("{object} may still be there: {why}"));
                }
                (_, _, Some(why)) => log.error(&format!("{object} is still there: {why}")),
                (_, _, None) => {}
            }
            if self.dry_run {
                continue;
            }
            let continued =
                if row.error.is_none() { "; the removal continued all the same" } else { "" };
            for Deactivated { volume, error, .. } in row.deactivated {
                if let Some(error) = error {
                    log.error(&format!(
                        "deactivate of volume {volume} of {object} failed{continued}: {error}"
                    ));
                }
            }
        }
    }
}

/// The `deactivate` that a dry run would run, or why it would not run one.
fn preview_line(Deactivated { volume, program, error, .. }: &Deactivated) -> Option<String> {
    match (program, error) {
        (Some(program), _) => Some(format!("runs {program}")),
        (None, Some(why)) => Some(format!("does not run deactivate of volume {volume}: {why}")),
        (None, None) => None,
    }
}

fn summary(rows: &[ObjectRow<'_>], unreadable: usize) -> Summary {
    let mut summary = Summary { undecided: unreadable, ..Summary::default() };
    for row in rows {
        match (row.action, row.result) {
            ("keep", _) | (_, Some("recovered" | "claimed")) => {
                summary.keep += 1;
                summary.undecided += usize::from(row.reason == "undecided");
                continue;
            }
            (_, Some("failed" | "unknown")) => summary.failed += 1,
            (_, Some("not-tried")) => summary.not_tried += 1,
            // The engine may report any number as a size.
            _ => {
                let bytes = row.object.bytes.unwrap_or_default();
                summary.bytes = summary.bytes.saturating_add(bytes);
            }
        }
        summary.remove += 1;
    }
    summary
}
