//! The form of a log line. containerd's shim reads the JSON form, keys `level`, `msg`, `time`,
//! and shows a user the `msg` of the last line whose level is exactly `error`.

use crate::model::text::cause::on_one_line;
use crate::model::text::cut;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use std::fmt::Write as _;

/// The severity of a line, in the order of `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// The spelling in a log line, as logrus writes it.
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
    /// The bare message, indented, as a part of an answer for people.
    Plain,
}

impl Format {
    /// Reads the value of `--log-format`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The value of a field of a line.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Text(String),
    Texts(Vec<String>),
    Millis(f64),
    /// Milliseconds by name, in this order.
    Steps(Vec<(String, f64)>),
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(&cut::value(text)),
            Self::Texts(texts) => serializer.collect_seq(texts),
            Self::Millis(millis) => serializer.serialize_f64(*millis),
            Self::Steps(steps) => serializer
                .collect_map(steps.iter().map(|(name, millis)| (cut::value(name), millis))),
        }
    }
}

/// A line that is being built. A field whose name is taken is dropped, because readers differ in which of two counts.
struct Line<'a> {
    time: &'a str,
    level: Level,
    message: &'a str,
    fields: &'a [(&'a str, Fact)],
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut taken = vec!["level", "msg", "time"];
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("level", self.level.name())?;
        map.serialize_entry("msg", self.message)?;
        map.serialize_entry("time", self.time)?;
        for (key, fact) in self.fields {
            if !taken.contains(key) {
                taken.push(key);
                map.serialize_entry(key, fact)?;
            }
        }
        map.end()
    }
}

/// One line, newline included. `time` is RFC 3339.
pub(crate) fn line(
    format: Format,
    time: &str,
    level: Level,
    message: &str,
    fields: &[(&str, Fact)],
) -> String {
    // Writing strings and numbers into memory cannot fail.
    let mut line = match format {
        Format::Json => {
            serde_json::to_string(&Line { time, level, message, fields }).unwrap_or_default()
        }
        Format::Plain => {
            let level = match level {
                Level::Debug | Level::Info => "",
                Level::Warn => "warning: ",
                Level::Error => "error: ",
            };
            format!("  {level}{}", on_one_line(message))
        }
        Format::Text => {
            let level = level.name();
            let mut line = format!("time={time:?} level={level} msg={message:?}");
            for (key, fact) in fields {
                let fact = serde_json::to_string(fact).unwrap_or_default();
                let _ = write!(line, " {key}={fact}");
            }
            line
        }
    };
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn text(text: &str) -> Fact {
        Fact::Text(text.to_owned())
    }

    #[test]
    fn a_json_line_is_one_object_with_the_keys_engines_read() {
        let fields = [("id", text("x")), ("msg", text("not me")), ("id", text("nor me"))];
        let text = line(Format::Json, "2026-01-02T03:04:05Z", Level::Warn, "a\n\"b\"", &fields);
        assert_eq!(text.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["level"], "warning");
        assert_eq!(value["msg"], "a\n\"b\"");
        assert_eq!(value["time"], "2026-01-02T03:04:05Z");
        assert_eq!(value["id"], "x");
        assert_eq!(text.matches("me").count(), 1, "the key `time` alone: {text}");
    }

    #[test]
    fn steps_stay_in_their_order() {
        let steps = vec![("z".to_owned(), 1.5), ("a".to_owned(), 2.0)];
        let fields = [("durationMs", Fact::Millis(3.5)), ("hooksMs", Fact::Steps(steps))];
        let json = line(Format::Json, "t", Level::Info, "m", &fields);
        assert!(json.ends_with(
            r#""durationMs":3.5,"hooksMs":{"z":1.5,"a":2.0}}
"#
        ));
        let text = line(Format::Text, "t", Level::Info, "m", &fields);
        assert!(text.ends_with(" durationMs=3.5 hooksMs={\"z\":1.5,\"a\":2.0}\n"), "{text}");
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
