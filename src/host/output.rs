//! Standard output and standard error. Podman closes the read end of some calls' standard error, so
//! a reader that has gone away is never an error here; a full disk behind a redirection is.

use std::io::{self, Write as _};

/// Writes an answer to standard output, whole.
///
/// # Errors
/// The write's, except that the reader has gone away.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes an answer to standard output piece by piece, so that a long one is never in memory.
///
/// # Errors
/// The write's, except that the reader has gone away.
pub(crate) fn stream(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line to standard error. There is nobody to tell when that fails.
pub(crate) fn complain(line: &str) {
    let mut text = line.to_owned();
    text.push('\n');
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
