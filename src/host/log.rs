//! The log: the file that engines name with `--log`, or standard error. What a line looks like is
//! decided in `model/log.rs`.

use crate::host::{clock, output};
use crate::model::log::{Fact, Format, Level, line};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// An open log with the fields that every line of a call carries.
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    threshold: Level,
    fields: RefCell<Vec<(&'static str, Fact)>>,
    /// Every warning so far, for the record of the deploy.
    warnings: RefCell<Vec<String>>,
}

/// The log file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("open the log file {path:?} (name another with --log)")]
    Open { path: PathBuf, source: io::Error },
}

impl Log {
    /// Opens the log for appending and creates it if need be: containerd's shim reads it after any
    /// failure, and a missing file hides every cause.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn to_file(path: &Path, format: Format, threshold: Level) -> Result<Self, Unusable> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            // A FIFO without a reader must not hang the call.
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| Unusable::Open { path: path.to_owned(), source })?;
        Ok(Self::new(Some(file), format, threshold))
    }

    /// Logs to standard error.
    pub(crate) fn to_stderr(format: Format, threshold: Level) -> Self {
        Self::new(None, format, threshold)
    }

    fn new(file: Option<File>, format: Format, threshold: Level) -> Self {
        let (fields, warnings) = (RefCell::default(), RefCell::default());
        Self { file, format, threshold, fields, warnings }
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
            self.write(Level::Debug, &message(), &[]);
        }
    }

    pub(crate) fn info(&self, message: &str, fields: &[(&str, Fact)]) {
        self.write(Level::Info, message, fields);
    }

    pub(crate) fn warn(&self, message: &str) {
        self.warnings.borrow_mut().push(message.to_owned());
        self.write(Level::Warn, message, &[]);
    }

    /// Tells one failure of several; the call goes on.
    pub(crate) fn error(&self, message: &str) {
        self.write(Level::Error, message, &[]);
    }

    /// Reports the error that ends the call: to the log, and to standard error for whoever captured
    /// that. On standard error it is the bare sentence, because engines put it into their own.
    pub(crate) fn fail(&self, message: &str, fields: &[(&str, Fact)]) {
        if self.file.is_some() {
            self.write(Level::Error, message, fields);
            output::complain(message);
        } else if self.format == Format::Json {
            self.write(Level::Error, message, fields);
        } else {
            output::complain(message);
        }
    }

    /// One `write` a line, so that lines of several processes do not mix. A log that cannot be
    /// written must not stop a container.
    fn write(&self, level: Level, message: &str, fields: &[(&str, Fact)]) {
        if level < self.threshold {
            return;
        }
        let common = self.fields.borrow();
        let fields: Vec<(&str, Fact)> = common.iter().chain(fields).cloned().collect();
        let text = line(self.format, &clock::now(), level, message, &fields);
        match &self.file {
            Some(file) => {
                let mut file: &File = file;
                let _ = file.write_all(text.as_bytes());
            }
            None => output::complain(text.trim_end()),
        }
    }
}
