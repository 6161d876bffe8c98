//! The processes that look like the proxy of a container, for when its state does not say which one it is. None
//! of them is signalled: another state root may have a container of the same id.

use crate::host::process;
use crate::model::proxy::command_line;
use std::io;

/// The pids of all processes with the command line of container `id`'s proxy, in ascending order.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn proxies(id: &str) -> io::Result<Vec<i32>> {
    let line = command_line(id);
    let mut pids = process::pids()?;
    // One that has ended meanwhile has no command line.
    pids.retain(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line)
    });
    pids.sort_unstable();
    Ok(pids)
}
