//! The log flags of the runtime. They are read before the rest of the command line, so that an error in the
//! rest is logged, too.

use crate::cli::commands;
use crate::model::text::log::{Format, Level};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Where the log is written, and from which level on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: Option<Format>,
    pub(crate) level: Option<Level>,
    pub(crate) stderr: Stderr,
    pub(crate) need: Need,
}

/// Who reads standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stderr {
    /// The caller's.
    #[default]
    Caller,
    /// At `create` it is the container's own log.
    Container,
}

/// Whether the call fails if the log cannot be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Need {
    /// The call continues: it must be possible to delete a container whose bundle, with the engine's log, is
    /// gone, and to query one.
    #[default]
    Wanted,
    /// The call fails: a deploy whose hooks leave no log could not be examined.
    Demanded,
}

/// Reads the log flags, whatever else is wrong with the command line.
pub(crate) fn log_options(words: &[OsString]) -> LogOptions {
    let mut options = LogOptions::default();
    let mut words = words.iter().map(OsString::as_os_str);
    while let Some(word) = words.next() {
        // A value is taken as it is: a path need not be UTF-8.
        let mut parts = word.as_bytes().splitn(2, |&byte| byte == b'=');
        let flag = parts.next().unwrap_or_default();
        let joined = parts.next().map(OsStr::from_bytes);
        match flag {
            b"--debug" => options.level = Some(Level::Debug),
            b"--log" | b"--log-format" | b"--log-level" => {
                let Some(value) = joined.or_else(|| words.next()) else { break };
                let text = value.to_string_lossy();
                match flag {
                    b"--log" => options.file = Some(PathBuf::from(value)),
                    b"--log-format" => options.format = log_format(&text).or(options.format),
                    _ => options.level = Level::parse(&text).or(options.level),
                }
            }
            b"--root" | b"--docker-root" | b"--criu" | b"--cgroup-manager" if joined.is_none() => {
                words.next();
            }
            // The command comes next, whatever it looks like.
            b"--" => {
                options.apply_defaults(words.next());
                break;
            }
            // The words after the command belong to it.
            _ if word.to_str().is_some_and(|word| commands::find(word).is_some()) => {
                options.apply_defaults(Some(word));
                break;
            }
            // Another flag, or an invalid word, such as the value of a misspelt flag. The flags that an engine
            // appends may still follow.
            _ => {}
        }
    }
    options
}

impl LogOptions {
    /// Sets the defaults of `command`.
    fn apply_defaults(&mut self, command: Option<&OsStr>) {
        let is_one_of = |names: &[&str]| {
            command.is_some_and(|command| names.iter().any(|name| command == *name))
        };
        if is_one_of(&["create"]) {
            self.stderr = Stderr::Container;
        }
        if is_one_of(&["create", "start", "run"]) {
            self.need = Need::Demanded;
        }
    }
}

/// Reads the value of `--log-format`.
pub(crate) fn log_format(text: &str) -> Option<Format> {
    match text {
        "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_log_is_found_in_a_command_line_that_is_wrong_otherwise() {
        for line in [
            "--bogus --log /l --log-format=json create",
            "--root /r --log=/l --log-format json frob",
            "--log /l --log-format json",
            "--log /l --log-format json create --log /other x",
            "--log-levl debug --root /r --log /l --log-format json create x",
            "frob --log /l --log-format json exec --log /other",
        ] {
            let options = log_options(&words(line));
            assert_eq!(options.file.as_deref(), Some("/l".as_ref()), "{line}");
            assert_eq!(options.format, Some(Format::Json), "{line}");
        }
        assert_eq!(log_options(&words("--debug list")).level, Some(Level::Debug));
        assert_eq!(log_options(&words("list --log /l")), LogOptions::default());
    }

    #[test]
    fn a_path_that_is_not_utf_8_is_taken_as_it_is() {
        let path = OsStr::from_bytes(b"/l\xff");
        let joined = OsString::from(OsStr::from_bytes(b"--log=/l\xff"));
        for words in [vec!["--log".into(), path.to_owned()], vec![joined]] {
            assert_eq!(log_options(&words).file.as_deref(), Some(path.as_ref()));
        }
    }

    #[test]
    fn what_applies_an_extension_demands_its_log() {
        for (line, need) in [
            ("--debug create x", Need::Demanded),
            ("--root delete start x", Need::Demanded),
            ("-- run x", Need::Demanded),
            ("delete --force start", Need::Wanted),
            ("kill x", Need::Wanted),
            ("--version", Need::Wanted),
        ] {
            assert_eq!(log_options(&words(line)).need, need, "{line}");
        }
    }

    #[test]
    fn at_create_standard_error_is_the_containers_behind_a_double_dash_too() {
        for (line, stderr) in [
            ("--debug create x", Stderr::Container),
            ("-- create x", Stderr::Container),
            ("-- start create", Stderr::Caller),
            ("--root create start x", Stderr::Caller),
        ] {
            assert_eq!(log_options(&words(line)).stderr, stderr, "{line}");
        }
    }
}
