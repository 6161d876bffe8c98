//! Standard output and standard error. Podman closes the read end of some calls' standard error, so
//! a reader that has gone away is never an error here; a full disk behind a redirection is.
//!
//! A reader that never reads must not hold a command for ever: at `create` nobody reads before the command
//! has returned.

use crate::host::os::unblocked::Writer;
use rustix::stdio::{stderr as standard_error, stdout as standard_output};
use std::io::{self, Write};
use std::time::Duration;

/// How long errors and warnings wait for their reader, all of a call together.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How much of an answer its reader must take within the limit.
const PIECE: usize = 64 * 1024;

/// Writes an answer to standard output, whole. For each piece its reader may take `limit`.
///
/// # Errors
/// The write's, except that the reader has gone away.
pub(crate) fn print(text: &str, limit: Duration) -> io::Result<()> {
    stream(limit, |stdout| stdout.write_all(text.as_bytes()))
}

/// Writes an answer to standard output piece by piece, so that a long one is never in memory.
///
/// # Errors
/// The write's, except that the reader has gone away.
pub(crate) fn stream(
    limit: Duration,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let Some(writer) = Writer::standard(standard_output()) else { return Ok(()) };
    let mut stdout = io::BufWriter::new(Answer { writer, limit });
    let written = write(&mut stdout).and_then(|()| stdout.flush());
    // Dropped as it is, it would try once more, and wait as long again.
    drop(stdout.into_parts());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Standard output for an answer.
struct Answer {
    writer: Writer,
    limit: Duration,
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        match self.writer.write_all(piece, &mut self.limit.clone()) {
            Ok(()) => Ok(piece.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let seconds = self.limit.as_secs();
                Err(io::Error::other(format!("its reader has taken nothing for {seconds} s")))
            }
            Err(error) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line to standard error. There is nobody to tell when that fails.
pub(crate) fn complain(line: &str) {
    complain_within(line, &mut PATIENCE.clone());
}

/// The same for one line of several, which wait for `patience` together.
pub(crate) fn complain_within(line: &str, patience: &mut Duration) {
    if let Some(writer) = Writer::standard(standard_error()) {
        let _ = writer.write_all(format!("{line}\n").as_bytes(), patience);
    }
}
