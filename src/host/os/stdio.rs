//! Standard output and standard error. Podman closes the read end of some calls' standard error, so
//! a reader that has gone away is never an error here; a full disk behind a redirection is.
//!
//! A reader that never reads must not hold a command for ever: at `create` nobody reads before the command
//! has returned.

use crate::host::os::unblocked::Writer;
use rustix::stdio::{stderr as standard_error, stdout as standard_output};
use std::io;
use std::time::Duration;

/// How long errors and warnings wait for their reader, all of a call together.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How much of an answer its reader must take within the limit.
const PIECE: usize = 64 * 1024;

/// Writes a whole answer to standard output. For each piece its reader may take `limit`.
///
/// # Errors
/// The write's, except that the reader has gone away.
pub(crate) fn print(text: &str, limit: Duration) -> io::Result<()> {
    let Some(writer) = Writer::standard(standard_output()) else { return Ok(()) };
    for piece in text.as_bytes().chunks(PIECE) {
        match writer.write_all(piece, &mut limit.clone()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let seconds = limit.as_secs();
                return Err(io::Error::other(format!(
                    "its reader has read nothing for {seconds} s"
                )));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
