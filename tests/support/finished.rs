//! The result of a program: how it ended, what it printed, and what it wrote to its log.

#![allow(
    clippy::as_conversions,
    clippy::wildcard_enum_match_arm,
    reason = "signals are numbers here, and only two ways to end count"
)]

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde_json::Value;

/// Engines search errors for these phrases, in lower case. They react with exit status 127 or 126 instead of
/// 125, with a question about mounts, or with silence.
pub(crate) const ENGINES_REACT_TO: [&str; 6] = [
    "no such file or directory",
    "permission denied",
    "operation not permitted",
    "not a directory",
    "is a directory",
    "executable file not found",
];
/// This phrase means an unknown container. Engines take it for success.
pub(crate) const UNKNOWN: &str = "does not exist";

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Status(i32),
    Killed(Signal),
    /// The test killed it, because it did not end in time.
    Hung,
}

impl End {
    /// The process that has ended and how, if that is what `status` reports.
    pub(crate) fn of(status: WaitStatus) -> Option<(Pid, Self)> {
        match status {
            WaitStatus::Exited(pid, status) => Some((pid, Self::Status(status))),
            WaitStatus::Signaled(pid, signal, _) => Some((pid, Self::Killed(signal))),
            _ => None,
        }
    }

    /// The exit status as a shell reports it.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Killed(signal) => 128 + signal as i32,
            Self::Hung => 128 + Signal::SIGKILL as i32,
        }
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        let signal = || Signal::try_from(status.signal().unwrap()).unwrap();
        status.code().map_or_else(|| Self::Killed(signal()), Self::Status)
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its command line.
    pub(crate) command: String,
    pub(crate) end: End,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The lines that it added to its log file, where a test has read them.
    pub(crate) log: Vec<Value>,
}

impl Finished {
    /// The exit status as a shell reports it.
    pub(crate) fn code(&self) -> i32 {
        self.end.code()
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.end == End::Status(0)
    }

    /// Itself if it succeeded, otherwise the description of the failure.
    pub(crate) fn success(self) -> Result<Self, String> {
        if self.succeeded() { Ok(self) } else { Err(format!("{self}")) }
    }

    /// Everything it printed.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.succeeded(), "{self}");
        self
    }

    /// Fails the test unless the program failed with `code`.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self}");
        self
    }

    /// Fails the test unless `wanted` is somewhere in the output.
    #[track_caller]
    pub(crate) fn says(self, wanted: &str) -> Self {
        assert!(self.text().contains(wanted), "expected {wanted:?} in the output of {self}");
        self
    }

    /// Fails the test unless the call succeeded and printed nothing.
    #[track_caller]
    pub(crate) fn silent(self) -> Self {
        assert!(self.succeeded() && self.out.is_empty() && self.err.is_empty(), "{self}");
        self
    }

    /// Fails the test unless the call failed properly, and returns its error: one line on standard error, the
    /// same as the one error in the log, without the phrases that engines react to.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        assert!((1..128).contains(&self.code()), "a plain failure was expected of {self}");
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
        let Self { command, end, out, err, log } = self;
        write!(formatter, "{command}\n{end:?}\nstdout: {out}\nstderr: {err}")?;
        log.iter().try_for_each(|line| write!(formatter, "\nlog: {line}"))
    }
}
