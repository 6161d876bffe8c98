//! The log flags of the runtime, read before and apart from the rest of the command line, so that an
//! error in the rest reaches the log too.

use crate::model::log::{Format, Level};
use std::ffi::OsString;
use std::path::PathBuf;

/// Where the log goes, and how much of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: Option<Format>,
    pub(crate) level: Option<Level>,
    pub(crate) stderr: Stderr,
}

/// Whose the standard error is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stderr {
    /// The caller's.
    #[default]
    Caller,
    /// At `create`: the container's own log.
    Container,
}

/// Reads the log flags alone, with no regard to what else is wrong.
pub(crate) fn log_options(words: &[OsString]) -> LogOptions {
    let mut options = LogOptions::default();
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let (flag, joined) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word.into_owned(), None),
        };
        match flag.as_str() {
            "--debug" => options.level = Some(Level::Debug),
            "--log" | "--log-format" | "--log-level" => {
                let Some(value) = joined.or_else(|| words.next().map(|value| value.into_owned()))
                else {
                    break;
                };
                match flag.as_str() {
                    "--log" => options.file = Some(PathBuf::from(value)),
                    "--log-format" => options.format = log_format(&value).or(options.format),
                    _ => options.level = Level::parse(&value).or(options.level),
                }
            }
            "--root" | "--docker-root" | "--criu" | "--cgroup-manager" if joined.is_none() => {
                words.next();
            }
            "--" => break,
            flag if flag.starts_with('-') => {}
            // The command: what follows is its own.
            command => {
                if command == "create" {
                    options.stderr = Stderr::Container;
                }
                break;
            }
        }
    }
    options
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
        ] {
            let options = log_options(&words(line));
            assert_eq!(options.file.as_deref(), Some("/l".as_ref()), "{line}");
            assert_eq!(options.format, Some(Format::Json), "{line}");
        }
        assert_eq!(log_options(&words("--debug list")).level, Some(Level::Debug));
        assert_eq!(log_options(&words("list --log /l")), LogOptions::default());
    }
}
