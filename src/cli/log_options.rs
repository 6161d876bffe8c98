//! The log flags of the runtime. They are read even if the rest of the command line is wrong, so that the error is
//! logged.

use crate::model::text::log::{Format, Level};
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

impl LogOptions {
    /// Sets the defaults of `command`.
    pub(super) fn apply_defaults(&mut self, command: &str) {
        if command == "create" {
            self.stderr = Stderr::Container;
        }
        if matches!(command, "create" | "start" | "run") {
            self.need = Need::Demanded;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::runtime::parse;
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt as _;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn log_options(words: &[OsString]) -> LogOptions {
        parse(words).0.log
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
