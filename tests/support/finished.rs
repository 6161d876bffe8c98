//! What a call of the runtime did: its status, its output, and what it wrote to the log.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::process;

/// What engines do when they find one of these in an error: exit status 127 or 126 instead of 125, a
/// question about mounts, or silence (engines search in lower case).
pub(crate) const ENGINES_REACT_TO: [&str; 6] = [
    "no such file or directory",
    "permission denied",
    "operation not permitted",
    "not a directory",
    "is a directory",
    "executable file not found",
];
/// This one means an unknown container, and engines take it for success.
pub(crate) const UNKNOWN: &str = "does not exist";

/// A call that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) what: String,
    /// As a shell has it.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The lines of the log file that this call has added.
    pub(crate) log: Vec<Value>,
}

/// Runs `command` to its end with nothing on standard input. Its output goes to files, not to pipes:
/// a child that it leaves behind must not hang the test.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let what = format!("{command:?}");
    command.stdin(Stdio::null());
    command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let code = process::start(command).wait();
    Finished { what, code, out: read(&mut out), err: read(&mut err), log: Vec::new() }
}

fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

impl Finished {
    /// Fails the test unless the call succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }

    /// Fails the test unless the call succeeded without a word on either stream.
    #[track_caller]
    pub(crate) fn silent(self) -> Self {
        assert!(self.code == 0 && self.out.is_empty() && self.err.is_empty(), "{self}");
        self
    }

    /// Fails the test unless the call failed properly, and returns its error: one line on standard
    /// error, the same as the one error in the log, with no word that engines react to.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        assert!(self.code > 0 && self.code < 128, "a plain failure was expected of {self}");
        let error = match self.errors().as_slice() {
            [] if self.log.is_empty() => self.err.trim().to_owned(),
            [error] => error.clone(),
            errors => panic!("{} errors in the log of {self}", errors.len()),
        };
        assert!(!error.is_empty() && self.err.contains(&error), "stderr and log differ: {self}");
        let lower = error.to_lowercase();
        for text in ENGINES_REACT_TO {
            assert!(!lower.contains(text), "engines react to {text:?} in {self}");
        }
        error
    }

    /// Fails the test unless the call failed properly with all of `texts` in its error.
    #[track_caller]
    pub(crate) fn fails(&self, texts: &[&str]) {
        let error = self.error();
        for text in texts {
            assert!(error.contains(text), "{text:?} was expected in {error:?}");
        }
        let unknown = texts.contains(&UNKNOWN);
        assert_eq!(
            error.contains(UNKNOWN),
            unknown,
            "{UNKNOWN:?} is for unknown containers: {error}"
        );
    }

    fn errors(&self) -> Vec<String> {
        let lines = self.log.iter().filter(|line| line["level"] == "error");
        lines.map(|line| line["msg"].as_str().unwrap().to_owned()).collect()
    }

    /// The warnings in the log, joined.
    pub(crate) fn warnings(&self) -> String {
        let lines = self.log.iter().filter(|line| line["level"] == "warning");
        lines.map(|line| line["msg"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, code, out, err, log } = self;
        write!(formatter, "{what}\nexit status {code}\nstdout: {out}\nstderr: {err}\nlog: ")?;
        log.iter().try_for_each(|line| write!(formatter, "{line}\n     "))
    }
}
