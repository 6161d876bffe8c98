//! The record of the last cleanup, for the metrics. `host/engine/cleanup_record.rs` has the file.

use serde::{Deserialize, Serialize};

/// A cleanup that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CleanupRecord {
    /// Unix time, in seconds.
    pub(crate) time: u64,
    /// With any, its exit status was 1.
    pub(crate) failures: usize,
}

impl CleanupRecord {
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub(crate) fn to_text(self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string(&self)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_half_a_record_is_an_error() {
        let record = CleanupRecord { time: 1_790_000_000, failures: 2 };
        let text = record.to_text().unwrap();
        assert_eq!(text, "{\"time\":1790000000,\"failures\":2}\n");
        assert_eq!(CleanupRecord::parse(&text).unwrap(), record);
        for end in 0..text.len() - 2 {
            assert!(CleanupRecord::parse(text.get(..end).unwrap()).is_err(), "{end}");
        }
    }
}
