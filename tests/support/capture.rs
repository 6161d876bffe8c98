//! Runs programs and captures what they print.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::finished::{End, Finished};
use super::process::{self, LIMIT, Started};

/// Captures the output of a program in memory files. A pipe would remain open as long as a child that the
/// program leaves behind, and the test would hang.
pub(crate) struct Output {
    out: File,
    err: File,
}

impl Output {
    /// Redirects both streams of `command`. Its standard input is empty.
    pub(crate) fn of(command: &mut Command) -> Self {
        let file = |name| {
            File::from(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap())
        };
        let (out, err) = (file("out"), file("err"));
        command.stdin(Stdio::null());
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        Self { out, err }
    }

    pub(crate) fn finish(&self, command: String, end: End) -> Finished {
        let (out, err) = (read(&self.out), read(&self.err));
        Finished { command, end, out, err, log: Vec::new() }
    }
}

/// Reads from the start. The position in the file is shared with the program.
fn read(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The command line of `command`.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs `command` to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    start(command).finish_within(LIMIT)
}

/// Starts `command` and leaves it running.
#[track_caller]
pub(crate) fn start(command: &mut Command) -> Captured {
    let output = Output::of(command);
    Captured { command: describe(command), started: process::start(command), output }
}

/// A running program whose output is captured. It is killed when this is dropped.
pub(crate) struct Captured {
    command: String,
    started: Started,
    output: Output,
}

impl Captured {
    pub(crate) fn pid(&self) -> i32 {
        self.started.pid()
    }

    /// Its result, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<Finished> {
        let end = self.started.ended()?;
        Some(self.output.finish(self.command.clone(), end))
    }

    /// Its result. Fails the test if it does not end within `limit`.
    #[track_caller]
    pub(crate) fn finish_within(self, limit: Duration) -> Finished {
        self.result_within(limit).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Its result, or an error if it does not end within `limit`.
    pub(crate) fn result_within(mut self, limit: Duration) -> Result<Finished, String> {
        let finished = process::poll_within(limit, || self.ended());
        finished.ok_or_else(|| format!("did not end within {limit:?}: {}", self.command))
    }
}
