//! The processes that look like the proxy of a container, for when its state does not say which one it is. None
//! of them is signalled: another state root may have a container of the same id.

use crate::host::os::process;
use crate::model::container::proxy::command_line;
use std::io;

/// The processes with the command line of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Lookalikes {
    /// Their pids, in ascending order.
    pub(crate) pids: Vec<i32>,
    /// Why one of the others may be a proxy too: its command line could not be read.
    pub(crate) unread: Option<io::Error>,
}

/// All processes with the command line of container `id`'s proxy.
pub(crate) fn proxies(id: &str) -> io::Result<Lookalikes> {
    process::check_proc()?;
    let line = command_line(id);
    let mut found = Lookalikes::default();
    for pid in process::pids()? {
        match process::read_proc(pid, "cmdline") {
            Ok(read) if read.as_ref() == Some(&line) => found.pids.push(pid),
            Ok(_) => {}
            Err(error) => found.unread = Some(error),
        }
    }
    found.pids.sort_unstable();
    Ok(found)
}
