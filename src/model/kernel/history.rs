//! The history of overrides: one line of JSON for each event. No verdict depends on it. `host/kernel/history.rs` keeps
//! the file.

use crate::model::kernel::abi::Abi;
use crate::model::kernel::records::Slot;
use crate::model::kernel::verdict::{Cause, OverrideVerdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The file is cut to its newer half when it has reached this size.
pub(crate) const MAX_LEN: usize = 64 * 1024;

/// One event. docs/kernel-override.md lists the codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryEntry {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    /// The command: `activate`, `validate`, `hup commit`.
    pub(crate) by: String,
    /// What happened, as one word.
    pub(crate) event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) abi: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slot: Option<String>,
    /// A sentence for people.
    pub(crate) detail: String,
}

impl HistoryEntry {
    /// The events of a verdict: one for each kernel.
    pub(crate) fn all_of_verdict(time: &str, by: &str, verdict: &OverrideVerdict) -> Vec<Self> {
        let of_one = |verdict: &OverrideVerdict| Self::of_verdict(time.to_owned(), by, verdict);
        let one = |abi: &Abi| BTreeSet::from([abi.clone()]);
        match verdict {
            OverrideVerdict::Swept { abis } => {
                abis.iter().map(|abi| of_one(&OverrideVerdict::Swept { abis: one(abi) })).collect()
            }
            OverrideVerdict::RejectionFinished { abis } => abis
                .iter()
                .map(|abi| of_one(&OverrideVerdict::RejectionFinished { abis: one(abi) }))
                .collect(),
            OverrideVerdict::Nothing
            | OverrideVerdict::Scrubbed
            | OverrideVerdict::RelayConsumed { .. }
            | OverrideVerdict::Restored { .. }
            | OverrideVerdict::Forgotten { .. }
            | OverrideVerdict::Pending { .. }
            | OverrideVerdict::Trial { .. }
            | OverrideVerdict::Committed { .. }
            | OverrideVerdict::Rejected { .. }
            | OverrideVerdict::Armed { .. }
            | OverrideVerdict::RolledBack { .. }
            | OverrideVerdict::Allowed { .. } => vec![of_one(verdict)],
        }
    }

    /// The event of a verdict about one kernel.
    pub(crate) fn of_verdict(time: String, by: &str, verdict: &OverrideVerdict) -> Self {
        let (event, abi, slot) = summary(verdict);
        Self {
            time,
            by: by.to_owned(),
            event: event.to_owned(),
            abi: abi.map(Abi::to_string),
            slot: slot.map(|slot| slot.to_string()),
            detail: verdict.to_string(),
        }
    }

    pub(crate) fn line(&self) -> String {
        // Only strings, which can always be written as JSON.
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{json}\n")
    }
}

fn summary(verdict: &OverrideVerdict) -> (&'static str, Option<&Abi>, Option<Slot>) {
    match verdict {
        OverrideVerdict::Nothing => ("nothing", None, None),
        OverrideVerdict::Scrubbed => ("malformed-removed", None, None),
        OverrideVerdict::RelayConsumed { abi } => ("rolled-back-forgotten", Some(abi), None),
        OverrideVerdict::Swept { abis } => ("swept", abis.first(), None),
        OverrideVerdict::Restored { abi, slot } => ("restored", Some(abi), Some(*slot)),
        OverrideVerdict::Forgotten { abi } => ("forgotten", Some(abi), None),
        OverrideVerdict::Pending { abi, .. } => ("pending", Some(abi), None),
        OverrideVerdict::Trial { abi } => ("trial", Some(abi), None),
        OverrideVerdict::Committed { abi, slot } => ("committed", Some(abi), Some(*slot)),
        OverrideVerdict::Rejected { abi, by: Cause::Health, .. } => {
            ("rejected-by-health", Some(abi), None)
        }
        OverrideVerdict::Rejected { abi, by: Cause::Boots(_), .. } => {
            ("rejected-by-boots", Some(abi), None)
        }
        OverrideVerdict::RejectionFinished { abis } => ("rejection-completed", abis.first(), None),
        OverrideVerdict::Armed { abi } => ("armed", Some(abi), None),
        OverrideVerdict::RolledBack { from, .. } => ("rolled-back", Some(from), None),
        OverrideVerdict::Allowed { abi } => ("allowed", Some(abi), None),
    }
}

/// The events of a file, and how many of its lines are none. A last line without a line end is being written, or was
/// torn by a power cut, and is left out.
pub(crate) fn parse(bytes: &[u8]) -> (Vec<HistoryEntry>, usize) {
    let (mut entries, mut others) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { continue };
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push(entry),
            // An empty line stands behind one that was torn.
            Err(_) if line.is_empty() => {}
            Err(_) => others += 1,
        }
    }
    (entries, others)
}

/// The event that explains why a kernel is rejected: its newest rejection since it was last allowed. If a crash came
/// before that was recorded, the one that completed it.
pub(crate) fn rejection<'a>(entries: &'a [HistoryEntry], abi: &Abi) -> Option<&'a HistoryEntry> {
    let of_it = entries.iter().rev().filter(|entry| entry.abi.as_deref() == Some(abi.as_str()));
    let since = of_it.take_while(|entry| entry.event != "allowed");
    let is_completion = |entry: &&HistoryEntry| entry.event == "rejection-completed";
    let mut rejections = since.clone().filter(|entry| entry.event.starts_with("rejected-by"));
    rejections.next().or_else(|| since.clone().find(is_completion))
}

/// The newer half of a file, in whole lines.
pub(crate) fn newer_half(bytes: &[u8]) -> &[u8] {
    let second = bytes.get(bytes.len() / 2..).unwrap_or_default();
    let line_end = second.iter().position(|&byte| byte == b'\n');
    line_end.and_then(|at| second.get(at + 1..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize) -> HistoryEntry {
        let abi = Abi::parse(&"a".repeat(64)).unwrap();
        let verdict = OverrideVerdict::Committed { abi, slot: Slot::B };
        HistoryEntry::of_verdict(number.to_string(), "validate", &verdict)
    }

    #[test]
    fn events_are_read_back_and_torn_lines_are_counted_or_left_out() {
        let (one, two) = (entry(1), entry(2));
        assert_eq!((one.event.as_str(), one.slot.as_deref()), ("committed", Some("B")));
        let text = format!("{}{{\"time\":\n\n{}{{\"ti", one.line(), two.line());
        assert_eq!(parse(text.as_bytes()), (vec![one, two], 1));
        assert_eq!(parse(b""), (vec![], 0));
    }

    #[test]
    fn a_verdict_about_several_kernels_has_an_event_for_each() {
        let abis = ["a", "b"].map(|digit| Abi::parse(&digit.repeat(64)).unwrap());
        let set = BTreeSet::from(abis.clone());
        for verdict in [
            OverrideVerdict::Swept { abis: set.clone() },
            OverrideVerdict::RejectionFinished { abis: set },
        ] {
            let entries = HistoryEntry::all_of_verdict("now", "validate", &verdict);
            assert_eq!(entries.len(), 2);
            for ((entry, abi), other) in entries.iter().zip(&abis).zip(abis.iter().rev()) {
                assert_eq!(entry.abi.as_deref(), Some(abi.as_str()));
                assert!(entry.detail.contains(abi.as_str()), "{}", entry.detail);
                assert!(!entry.detail.contains(other.as_str()), "{}", entry.detail);
            }
        }
        let verdict = OverrideVerdict::Scrubbed;
        assert_eq!(HistoryEntry::all_of_verdict("now", "validate", &verdict).len(), 1);
    }

    #[test]
    fn a_rejection_is_explained_by_its_newest_event_since_the_kernel_was_allowed() {
        let [a, b] = ["a", "b"].map(|digit| Abi::parse(&digit.repeat(64)).unwrap());
        let of = |event: &str, abi: &Abi| HistoryEntry {
            event: event.to_owned(),
            abi: Some(abi.to_string()),
            ..entry(1)
        };
        for (events, expected) in [
            (&[][..], None),
            (&["armed", "health-failed"], None),
            (&["rejected-by-health", "rejected-by-boots"], Some("rejected-by-boots")),
            // A second call has removed what the first one could not.
            (&["rejected-by-health", "rejection-completed"], Some("rejected-by-health")),
            (&["health-failed", "rejection-completed"], Some("rejection-completed")),
            (&["rejected-by-health", "allowed"], None),
            (
                &["rejected-by-health", "allowed", "armed", "rejection-completed"],
                Some("rejection-completed"),
            ),
        ] {
            let mut entries: Vec<_> = events.iter().map(|event| of(event, &a)).collect();
            entries.push(of("rejected-by-boots", &b));
            let found = rejection(&entries, &a).map(|entry| entry.event.as_str());
            assert_eq!(found, expected, "{events:?}");
        }
    }

    #[test]
    fn the_newer_half_begins_with_a_whole_line() {
        let text: String = (0..100).map(|number| entry(number).line()).collect();
        let half = newer_half(text.as_bytes());
        assert!(half.len() <= text.len() / 2);
        let (entries, others) = parse(half);
        assert_eq!((entries.len(), others), (49, 0));
        assert_eq!(entries.last(), Some(&entry(99)));
        assert!(newer_half(b"no line end").is_empty() && newer_half(b"").is_empty());
    }
}
