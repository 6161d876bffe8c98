//! The manager's command line, which has its help and its version.

use std::ffi::OsString;

/// What the manager is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Version,
}

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("no command given: see balena-extension-manager --help")]
    NoCommand,
    #[error("unknown argument {word:?}: see balena-extension-manager --help")]
    Unknown { word: String },
}

/// `--help`.
pub(crate) const HELP: &str = include_str!("help/manager.txt");

/// Reads a whole command line, the program's name left out.
pub(crate) fn parse(words: &[OsString]) -> Result<Command, UsageError> {
    let word = words.first().ok_or(UsageError::NoCommand)?.to_string_lossy();
    match word.as_ref() {
        "--help" | "-h" | "help" => Ok(Command::Help),
        "--version" | "-v" | "-V" => Ok(Command::Version),
        word => Err(UsageError::Unknown { word: word.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_version_are_known_and_all_else_is_named() {
        let parse = |word: &str| parse(&[OsString::from(word)]);
        assert_eq!(parse("--help"), Ok(Command::Help));
        assert_eq!(parse("--version"), Ok(Command::Version));
        assert!(parse("cleanup").unwrap_err().to_string().contains("\"cleanup\""));
        assert_eq!(super::parse(&[]), Err(UsageError::NoCommand));
    }
}
