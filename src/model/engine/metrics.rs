//! The metrics of `status --format prometheus`: the text format 0.0.4 of Prometheus, for the textfile collector of
//! node_exporter. docs/metrics.md describes every metric, and a test compares the two.
//!
//! A fact that could not be determined has no series, because 0 would be a claim; its `balena_extension_readable` is 0.

use crate::model::engine::cleanup_record::CleanupRecord;
use crate::model::engine::verdict::{Verdict, VerdictReason};
use crate::model::text::cut::{self, short_id};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// All verdicts.
const VERDICTS: [Verdict; 9] = [
    Verdict::Applied,
    Verdict::OnTrial,
    Verdict::PendingReboot,
    Verdict::Refused,
    Verdict::Failed,
    Verdict::Skipped,
    Verdict::Stale,
    Verdict::Dead,
    Verdict::Unknown,
];

/// An extension's container, as the metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtensionSample<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    /// Empty if it is unknown.
    pub(crate) image_id: &'a str,
    pub(crate) reason: VerdictReason,
}

/// Whether the list of the extensions has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    Complete,
    /// Items of the list could not be read, and each may have been an extension.
    LeftOut,
}

/// Where the list of the extensions was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineAnswer {
    Answered,
    /// The engine is down; the list is from its store on disk.
    Down,
}

/// Everything that the metrics show, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricsSnapshot<'a> {
    pub(crate) extensions: Vec<ExtensionSample<'a>>,
    pub(crate) completeness: Completeness,
    pub(crate) engine: EngineAnswer,
    /// The digest of [`applied_set`]; `None` if the set is unknown.
    pub(crate) applied_set: Option<String>,
    /// The boots of a kernel on trial; `None` if the boot environment cannot be read.
    pub(crate) trial_boots: Option<u32>,
    /// The size of the images that `cleanup --stale-os` would remove; `None` if it is unknown.
    pub(crate) stale_images: Option<u64>,
    /// The last cleanup since the host booted, or why its record cannot be read.
    pub(crate) last_cleanup: Result<Option<CleanupRecord>, String>,
}

/// What the digest of the applied set is made of: the ids of the images of all applied extensions, sorted by their
/// bytes, each once, without `sha256:`, and each with a newline. It depends neither on the order of the extensions nor
/// on names, so devices of one release have the same.
///
/// `None` if the set is unknown: an extension has the verdict `unknown`, the image of an applied one is unknown, or the
/// list is not complete.
pub(crate) fn applied_set(
    extensions: &[ExtensionSample<'_>],
    completeness: Completeness,
) -> Option<String> {
    let is_unknown = |one: &ExtensionSample<'_>| one.reason.verdict() == Verdict::Unknown;
    if completeness == Completeness::LeftOut || extensions.iter().any(is_unknown) {
        return None;
    }
    let applied = extensions.iter().filter(|one| one.reason.verdict() == Verdict::Applied);
    let ids: BTreeSet<&str> =
        applied.map(|one| one.image_id.trim_start_matches("sha256:")).collect();
    let line = |id: &str| format!("{id}\n");
    (!ids.contains("")).then(|| ids.into_iter().map(line).collect())
}

/// The series of one metric, by their labels, so that no two have the same.
#[derive(Default)]
struct Series(BTreeMap<String, u64>);

impl Series {
    /// Adds a series. Of two with the same labels, the higher value remains.
    fn add(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let present = self.0.entry(labels).or_default();
        *present = value.max(*present);
    }

    fn of(value: Option<u64>) -> Self {
        let mut series = Self::default();
        if let Some(value) = value {
            series.add(&[], value);
        }
        series
    }
}

/// A label value: of any length that an image or a container may have, in the escapes of the format. A control
/// character would end the line, or the document for some readers.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for found in cut::value(text).chars() {
        match found {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

impl MetricsSnapshot<'_> {
    /// The document. The same facts give the same bytes.
    pub(crate) fn to_text(&self) -> String {
        let cleanup = self.last_cleanup.as_ref().ok().and_then(Option::as_ref);
        let digest = self.applied_set.iter();
        let mut applied_set = Series::default();
        digest.for_each(|digest| applied_set.add(&[("digest", digest)], 1));
        let families = [
            (
                "balena_extension_applied_set_info",
                "The SHA-256 digest of the ids of the images of all applied extensions.",
                applied_set,
            ),
            (
                "balena_extension_containers",
                "The number of containers of extensions.",
                Series::of(u64::try_from(self.extensions.len()).ok()),
            ),
            (
                "balena_extension_info",
                "A container of an extension, with the reason for its verdict.",
                self.info(),
            ),
            (
                "balena_extension_kernel_trial_boots",
                "How often the kernel that is on trial was booted. At 3 it is rejected.",
                Series::of(self.trial_boots.map(u64::from)),
            ),
            (
                "balena_extension_last_cleanup_failures",
                "The number of failures of the last cleanup since the host booted.",
                Series::of(cleanup.and_then(|cleanup| u64::try_from(cleanup.failures).ok())),
            ),
            (
                "balena_extension_last_cleanup_timestamp_seconds",
                "When the last cleanup since the host booted was completed, in Unix time.",
                Series::of(cleanup.map(|cleanup| cleanup.time)),
            ),
            (
                "balena_extension_readable",
                "Whether a fact could be determined (1) or not (0), in which case its series are missing.",
                self.readable(),
            ),
            (
                "balena_extension_stale_images_bytes",
                "The size of the images that cleanup --stale-os would remove.",
                Series::of(self.stale_images),
            ),
            (
                "balena_extension_verdict",
                "Whether a container of this name has this verdict (1) or not (0).",
                self.verdicts(),
            ),
        ];
        let mut text = String::new();
        for (name, help, series) in families {
            if series.0.is_empty() {
                continue;
            }
            // Writing into a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
            for (labels, value) in series.0 {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }

    fn info(&self) -> Series {
        let mut series = Series::default();
        for one in &self.extensions {
            let labels = [
                ("id", one.id),
                ("image", one.image),
                ("image_id", one.image_id),
                ("name", one.shown_name()),
                ("reason", one.reason.code()),
            ];
            series.add(&labels, 1);
        }
        series
    }

    fn readable(&self) -> Series {
        let facts = [
            ("applied-set", self.applied_set.is_some()),
            ("containers", self.completeness == Completeness::Complete),
            ("engine", self.engine == EngineAnswer::Answered),
            ("kernel-trial", self.trial_boots.is_some()),
            ("last-cleanup", self.last_cleanup.is_ok()),
            ("stale-images", self.stale_images.is_some()),
        ];
        let mut series = Series::default();
        for (fact, is_known) in facts {
            series.add(&[("fact", fact)], u64::from(is_known));
        }
        series
    }

    /// All verdicts of each name: a series that disappears would end an alert without a reason.
    fn verdicts(&self) -> Series {
        let mut series = Series::default();
        for one in &self.extensions {
            for verdict in VERDICTS {
                let labels = [("name", one.shown_name()), ("verdict", &*verdict.to_string())];
                series.add(&labels, u64::from(verdict == one.reason.verdict()));
            }
        }
        series
    }
}

impl ExtensionSample<'_> {
    /// The name, or the beginning of the id if there is no name.
    fn shown_name(&self) -> &str {
        if self.name.is_empty() { short_id(self.id) } else { self.name }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
