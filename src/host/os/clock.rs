//! The time, in the form that logs and state carry.

use std::time::SystemTime;

/// Now, as RFC 3339 in UTC with nanoseconds.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_nanos(system_time()).to_string()
}

/// Now, as RFC 3339 in UTC with seconds.
pub(crate) fn now_in_seconds() -> String {
    humantime::format_rfc3339_seconds(system_time()).to_string()
}

/// Now, in seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    // A clock before 1970 has never been set.
    system_time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(not(target_pointer_width = "32"))]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// The standard library asks the C library for 32 bits on such a machine, and panics from January 2038 on.
#[cfg(target_pointer_width = "32")]
fn system_time() -> SystemTime {
    use rustix::time::{ClockId, clock_gettime};
    let since_1970 = std::time::Duration::try_from(clock_gettime(ClockId::Realtime));
    SystemTime::UNIX_EPOCH + since_1970.unwrap_or_default()
}

/// Parses an RFC 3339 time.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}
