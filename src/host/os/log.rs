//! The log: the file that engines name with `--log`, or standard error. What a line looks like is
//! decided in `model/text/log.rs`.

use crate::host::os::clock;
use crate::host::os::stdio;
use crate::host::os::trusted;
use crate::host::os::unblocked::Writer;
use crate::model::text::cause::sentence;
use crate::model::text::cut;
use crate::model::text::log::{Fact, Format, Level, line};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An open log with the fields that every line of a call carries.
pub(crate) struct Log {
    file: Option<Writer>,
    /// How long its lines may still wait for whoever reads them.
    patience: Cell<Duration>,
    format: Format,
    threshold: Level,
    fields: RefCell<Vec<(&'static str, Fact)>>,
    /// Every warning so far, for the record of the deploy.
    warnings: RefCell<Vec<String>>,
    told: Told,
    /// The lines of those that are not told yet, and what they say.
    held: RefCell<Vec<(String, String)>>,
}

/// When warnings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    AtOnce,
    /// When the call ends: before the line of one that succeeds, and within that of one that fails. Podman
    /// reads the file of a `create` that has failed as one document.
    AtTheEnd,
}

/// The log file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("open the log file {path:?} (name another with --log)")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot use the log file {path:?} (name another with --log)")]
    Distrusted { path: PathBuf, source: trusted::Error },
}

impl Log {
    /// Opens the log for appending and creates it if need be: containerd's shim reads it after any
    /// failure, and a missing file hides every cause.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn to_file(
        path: &Path,
        format: Format,
        threshold: Level,
        told: Told,
    ) -> Result<Self, Unusable> {
        let path = || path.to_owned();
        let file = trusted::append(&path()).map_err(|error| match error {
            trusted::Error::Open { source, .. } => Unusable::Open { path: path(), source },
            distrusted @ trusted::Error::Distrusted { .. } => {
                Unusable::Distrusted { path: path(), source: distrusted }
            }
        })?;
        Ok(Self::new(Some(Writer::Opened(file.into())), format, threshold, told))
    }

    /// Logs to standard error.
    pub(crate) fn to_stderr(format: Format, threshold: Level) -> Self {
        Self::new(None, format, threshold, Told::AtOnce)
    }

    fn new(file: Option<Writer>, format: Format, threshold: Level, told: Told) -> Self {
        let (fields, warnings, held) = Default::default();
        let patience = Cell::new(stdio::PATIENCE);
        Self { file, patience, format, threshold, fields, warnings, told, held }
    }

    /// Lets lines wait for `patience` in all instead of [`stdio::PATIENCE`].
    pub(crate) fn patient(self, patience: Duration) -> Self {
        self.patience.set(patience);
        self
    }

    /// Takes the warnings of this call out.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// Adds a field to every further line.
    pub(crate) fn with(&self, key: &'static str, value: &str) {
        self.fields.borrow_mut().push((key, Fact::Text(value.to_owned())));
    }

    /// Tells a part of the story, put into words only if somebody wants to hear it.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.threshold <= Level::Debug {
            // Not as a sentence: here a hook's words are as it has printed them.
            self.write(Level::Debug, &cut::middle(&message(), 0, cut::SENTENCE_MAX), &[]);
        }
    }

    /// Reports what a call has done that has come to its end; nothing where there is nothing to tell.
    pub(crate) fn succeed(&self, message: Option<&str>, fields: &[(&str, Fact)]) {
        for (line, _) in self.held.take() {
            self.put(&line);
        }
        if let Some(message) = message {
            self.write(Level::Info, &sentence(message), fields);
        }
    }

    pub(crate) fn warn(&self, message: &str) {
        let message = &sentence(message);
        self.warnings.borrow_mut().push(message.to_owned());
        match self.told {
            Told::AtOnce => self.write(Level::Warn, message, &[]),
            Told::AtTheEnd if Level::Warn < self.threshold => {}
            Told::AtTheEnd => {
                let line = self.line(Level::Warn, message, &[]);
                self.held.borrow_mut().push((line, message.to_owned()));
            }
        }
    }

    /// Tells one failure of several; the call goes on.
    pub(crate) fn error(&self, message: &str) {
        self.write(Level::Error, &sentence(message), &[]);
    }

    /// Reports the error that ends the call, put into words by `cause::chain`: to the log, and to standard error for whoever captured
    /// that. On standard error it is the bare sentence, because engines put it into their own.
    pub(crate) fn fail(&self, message: &str, fields: &[(&str, Fact)]) {
        if self.file.is_some() {
            let held: Vec<String> = self.held.take().into_iter().map(|(_, said)| said).collect();
            let mut fields = fields.to_vec();
            if !held.is_empty() {
                fields.push(("warnings", Fact::Texts(held)));
            }
            self.write(Level::Error, message, &fields);
            self.complain(message);
        } else if self.format == Format::Json {
            self.write(Level::Error, message, fields);
        } else {
            self.complain(message);
        }
    }

    fn write(&self, level: Level, message: &str, fields: &[(&str, Fact)]) {
        if level >= self.threshold {
            self.put(&self.line(level, message, fields));
        }
    }

    fn line(&self, level: Level, message: &str, fields: &[(&str, Fact)]) -> String {
        let common = self.fields.borrow();
        let fields: Vec<(&str, Fact)> = common.iter().chain(fields).cloned().collect();
        line(self.format, &clock::now(), level, message, &fields)
    }

    /// One `write` a line, so that lines of several processes do not mix. A log that cannot be
    /// written must not stop a container.
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
