//! The values of the manager's options and arguments.

use crate::model::engine::api::socket_of;
use crate::model::kernel::abi::Abi;
use crate::model::text::log::Level;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// The format of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// For programs; docs/manager.md describes the fields
    Json,
}

/// The format of an answer of `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusFormat {
    /// For people
    #[default]
    Table,
    /// For programs; docs/manager.md describes the fields
    Json,
    /// Metrics for the textfile collector of node_exporter; docs/metrics.md describes them
    Prometheus,
}

/// Why a value is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidValue {
    #[error("only unix sockets can be used: unix:///path/to.sock")]
    Host,
    #[error("must be debug, info, warn or error")]
    Level,
    #[error("must be a number of seconds, at most a week")]
    Seconds,
    #[error("an ABI has 64 lowercase hex digits (override status shows those of this device)")]
    Abi,
    #[error("must be an ABI, which has 64 lowercase hex digits, or none for the OS's stock kernel")]
    StatedKernel,
    #[error("must be a release of a kernel, as uname -r prints it")]
    Release,
    #[error("must be the version of an OS, VERSION_ID of its os-release")]
    OsVersion,
}

/// A kernel that the user states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatedKernel {
    Stock,
    Override(Abi),
}

pub(crate) fn socket(url: &str) -> Result<PathBuf, InvalidValue> {
    socket_of(url).ok_or(InvalidValue::Host)
}

pub(crate) fn level(text: &str) -> Result<Level, InvalidValue> {
    Level::parse(text).ok_or(InvalidValue::Level)
}

/// Decimal seconds. Parsed by hand: the tables for parsing floating point would be 1 % of the binary.
pub(crate) fn seconds(text: &str) -> Result<Duration, InvalidValue> {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(InvalidValue::Seconds);
    }
    let whole = whole.parse().map_err(|_| InvalidValue::Seconds)?;
    let nanoseconds = format!("{fraction:0<9}").parse().map_err(|_| InvalidValue::Seconds)?;
    Some(Duration::new(whole, nanoseconds))
        .filter(|time| *time <= WEEK)
        .ok_or(InvalidValue::Seconds)
}

pub(crate) fn abi(text: &str) -> Result<Abi, InvalidValue> {
    Abi::parse(text).ok_or(InvalidValue::Abi)
}

pub(crate) fn stated_kernel(text: &str) -> Result<StatedKernel, InvalidValue> {
    match text {
        "none" => Ok(StatedKernel::Stock),
        text => Abi::parse(text).map(StatedKernel::Override).ok_or(InvalidValue::StatedKernel),
    }
}

pub(crate) fn os_version(text: &str) -> Result<String, InvalidValue> {
    if text.trim().is_empty() { Err(InvalidValue::OsVersion) } else { Ok(text.to_owned()) }
}

/// `uname -r`, which is also the name of a directory of modules.
pub(crate) fn release(text: &str) -> Result<String, InvalidValue> {
    let is_name = |text: &str| {
        !matches!(text, "" | "." | "..")
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    if is_name(text) { Ok(text.to_owned()) } else { Err(InvalidValue::Release) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_decimal_and_bounded() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("30", Some(30_000)),
            ("0.5", Some(500)),
            ("604800", Some(604_800_000)),
        ] {
            let seconds = seconds(text).ok().map(|time| time.as_millis());
            assert_eq!(seconds, milliseconds, "{text}");
        }
        for text in
            ["", ".", ".5", "-1", "1e3", "604800.1", "604801", "99999999999999999999", "1.2.3"]
        {
            assert_eq!(seconds(text), Err(InvalidValue::Seconds), "{text}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidValue {
        Host, Level, Seconds, Abi, StatedKernel, Release, OsVersion,
    }
}
