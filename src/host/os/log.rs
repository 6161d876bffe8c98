//! The log: the file that engines name with `--log`, or standard error. What a line looks like is
//! decided in `model/text/log.rs`.

use crate::host::os::clock;
use crate::host::os::stdio;
use crate::host::os::trusted;
use crate::host::os::unblocked::Writer;
use crate::model::text::cause::sentence;
use crate::model::text::cut;
use crate::model::text::log::{Fact, Format, Level, line};
use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An open log, with the fields that every line of a call has.
pub(crate) struct Log {
    file: Option<Writer>,
    /// How long the lines of this call may still wait for a slow reader.
    patience: Cell<Duration>,
    format: Format,
    threshold: Level,
    fields: Vec<(&'static str, Fact)>,
}

/// The log file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("cannot open the log file {path:?} (name another with --log)")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot use the log file {path:?} (name another with --log)")]
    Distrusted { path: PathBuf, source: trusted::Error },
}

impl Log {
    /// Opens the log for appending, and creates it if it is missing: containerd's shim reads it after any failure, and
    /// a missing file hides every cause.
    pub(crate) fn to_file(path: &Path, format: Format, threshold: Level) -> Result<Self, Unusable> {
        let path = || path.to_owned();
        let file = trusted::append(&path()).map_err(|error| match error {
            trusted::Error::Open { source, .. } => Unusable::Open { path: path(), source },
            distrusted @ trusted::Error::Distrusted { .. } => {
                Unusable::Distrusted { path: path(), source: distrusted }
            }
        })?;
        Ok(Self::new(Some(Writer::Opened(file.into())), format, threshold))
    }

    /// Logs to standard error.
    pub(crate) fn to_stderr(format: Format, threshold: Level) -> Self {
        Self::new(None, format, threshold)
    }

    /// Prints bare messages to standard output, as a part of an answer.
    pub(crate) fn to_stdout(threshold: Level) -> Self {
        Self::new(Writer::standard(rustix::stdio::stdout()), Format::Plain, threshold)
    }

    fn new(file: Option<Writer>, format: Format, threshold: Level) -> Self {
        let patience = Cell::new(stdio::PATIENCE);
        Self { file, patience, format, threshold, fields: Vec::new() }
    }

    /// Lets lines wait for `patience` in all instead of [`stdio::PATIENCE`].
    pub(crate) fn patient(self, patience: Duration) -> Self {
        self.patience.set(patience);
        self
    }

    /// Adds a field to all lines from now on.
    pub(crate) fn with(&mut self, key: &'static str, value: &str) {
        self.fields.push((key, Fact::Text(value.to_owned())));
    }

    /// Logs at debug level; `message` is only called if that level is enabled.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.threshold <= Level::Debug {
            // Not rewritten as a sentence: this is the output of a hook as it was printed.
            self.write(Level::Debug, &cut::middle(&message(), 0, cut::SENTENCE_MAX), &[]);
        }
    }

    /// Reports what a successful call did.
    pub(crate) fn succeed(&self, message: &str, fields: &[(&str, Fact)]) {
        self.write(Level::Info, &sentence(message), fields);
    }

    /// Reports what a call that goes on has done or found.
    pub(crate) fn info(&self, message: &str) {
        if Level::Info >= self.threshold {
            self.write(Level::Info, &sentence(message), &[]);
        }
    }

    pub(crate) fn warn(&self, message: &str) {
        self.warn_of(&clock::now(), message);
    }

    /// Warns of something that happened at `time`.
    pub(crate) fn warn_of(&self, time: &str, message: &str) {
        if Level::Warn >= self.threshold {
            self.put(&self.line(time, Level::Warn, &sentence(message), &[]));
        }
    }

    /// Whether warnings are logged at all.
    pub(crate) fn shows_warnings(&self) -> bool {
        Level::Warn >= self.threshold
    }

    /// Reports one failure of several; the call continues.
    pub(crate) fn error(&self, message: &str) {
        self.write(Level::Error, &sentence(message), &[]);
    }

    /// Reports the error that ends the call, put into words by `cause::chain`: to the log, and to standard error for whoever captured
    /// that. On standard error it is the bare sentence, because engines put it into their own.
    pub(crate) fn fail(&self, message: &str, fields: &[(&str, Fact)]) {
        if self.file.is_some() {
            self.write(Level::Error, message, fields);
            self.complain(message);
        } else if self.format == Format::Json {
            self.write(Level::Error, message, fields);
        } else {
            self.complain(message);
        }
    }

    fn write(&self, level: Level, message: &str, fields: &[(&str, Fact)]) {
        if level >= self.threshold {
            self.put(&self.line(&clock::now(), level, message, fields));
        }
    }

    fn line(&self, time: &str, level: Level, message: &str, fields: &[(&str, Fact)]) -> String {
        let fields: Vec<(&str, Fact)> = self.fields.iter().chain(fields).cloned().collect();
        line(self.format, time, level, message, &fields)
    }

    /// One write(2) per line, so that lines of several processes do not mix. A log that cannot be written must not stop
    /// a container.
    fn put(&self, text: &str) {
        match &self.file {
            Some(file) => {
                let mut patience = self.patience.get();
                let _ = file.write_all(text.as_bytes(), &mut patience);
                self.patience.set(patience);
            }
            None => self.complain(text.trim_end()),
        }
    }

    fn complain(&self, line: &str) {
        let mut patience = self.patience.get();
        stdio::complain_within(line, &mut patience);
        self.patience.set(patience);
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Unusable {
        Open { path, source }, Distrusted { path, source },
    }
}
