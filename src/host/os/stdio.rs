//! Standard output and standard error. Podman closes the read end of the standard error of some calls, so a closed
//! pipe is never an error here. A full disk behind a redirection is.
//!
//! A reader that never reads must not block a command for ever: at `create` the engine reads only after the command
//! has returned.

use crate::host::os::unblocked::Writer;
use rustix::stdio::{stderr as standard_error, stdout as standard_output};
use std::io;
use std::time::Duration;

/// How long the errors and warnings of a call wait for their reader, in all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How much of an answer its reader must take within the limit.
const PIECE: usize = 64 * 1024;

/// Writes a whole answer to standard output. The reader may take `limit` for each piece. If it has closed the pipe, that
/// is no error.
pub(crate) fn print(text: &[u8], limit: Duration) -> io::Result<()> {
    let Some(writer) = Writer::standard(standard_output()) else { return Ok(()) };
    for piece in text.chunks(PIECE) {
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

/// Writes a line to standard error. If that fails, there is no place to report it.
pub(crate) fn complain(line: &str) {
    complain_within(line, &mut PATIENCE.clone());
}

/// The same for one line of several, which wait for `patience` together.
pub(crate) fn complain_within(line: &str, patience: &mut Duration) {
    if let Some(writer) = Writer::standard(standard_error()) {
        let _ = writer.write_all(format!("{line}\n").as_bytes(), patience);
    }
}
