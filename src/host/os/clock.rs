//! The time, in the form that logs and state carry.

use std::time::SystemTime;

/// Now, as RFC 3339 in UTC with nanoseconds.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}

/// Parses an RFC 3339 time.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}
