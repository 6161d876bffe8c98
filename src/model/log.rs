//! What a log line looks like. containerd's shim reads the JSON form, keys `level`, `msg`, `time`,
//! and shows a user the `msg` of the last line whose level is exactly `error`.

use serde_json::Value;
use std::fmt::Write as _;

/// How much a line matters. The order is that of `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// The spelling in a log line, which is logrus's.
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warning",
            Self::Error => "error",
        }
    }

    /// Reads the value of `--log-level`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "debug" | "trace" => Some(Self::Debug),
            "info" => Some(Self::Info),
            "warn" | "warning" => Some(Self::Warn),
            "error" | "fatal" | "panic" => Some(Self::Error),
            _ => None,
        }
    }
}

/// The form of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// One line, newline included. `time` is RFC 3339.
pub(crate) fn line(
    format: Format,
    time: &str,
    level: Level,
    message: &str,
    fields: &[(&str, Value)],
) -> String {
    match format {
        Format::Json => {
            let mut object = serde_json::Map::new();
            object.insert("level".to_owned(), level.name().into());
            object.insert("msg".to_owned(), message.into());
            object.insert("time".to_owned(), time.into());
            for (key, value) in fields {
                object.entry((*key).to_owned()).or_insert_with(|| value.clone());
            }
            let mut line = Value::Object(object).to_string();
            line.push('\n');
            line
        }
        Format::Text => {
            let level = level.name();
            let mut line = format!("time={time:?} level={level} msg={message:?}");
            for (key, value) in fields {
                // A formatter into a String cannot fail.
                let _ = write!(line, " {key}={value}");
            }
            line.push('\n');
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_one_object_with_the_keys_engines_read() {
        let fields = [("id", Value::from("x")), ("msg", Value::from("not me"))];
        let text = line(Format::Json, "2026-01-02T03:04:05Z", Level::Warn, "a\n\"b\"", &fields);
        assert_eq!(text.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["level"], "warning");
        assert_eq!(value["msg"], "a\n\"b\"");
        assert_eq!(value["time"], "2026-01-02T03:04:05Z");
        assert_eq!(value["id"], "x");
    }

    #[test]
    fn a_text_line_cannot_be_forged_by_its_message() {
        let text = line(Format::Text, "t", Level::Error, "a\nlevel=info", &[]);
        assert_eq!(text, "time=\"t\" level=error msg=\"a\\nlevel=info\"\n");
    }

    #[test]
    fn levels_are_read_as_runc_reads_them() {
        assert_eq!(Level::parse("warn"), Some(Level::Warn));
        assert_eq!(Level::parse("WARNING"), Some(Level::Warn));
        assert_eq!(Level::parse("loud"), None);
        assert!(Level::Debug < Level::Error);
    }
}
