//! The process that works on a container at this moment: whoever holds the lock of its folder.
//! `delete --force` must not wait for a hook that hangs, so it ends that process, whose guard and proxy
//! end with it; a proxy that is stopped and so cannot is ended by itself.

use crate::host::listing;
use crate::host::process::{self, Process, Waited};
use crate::model::operator::{is_delete, works_on};
use crate::model::proxy::command_line;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Which commands [`end`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// All but deletes: one may have taken the lock a moment ago, from the command to be ended.
    NoDelete,
    All,
}

/// Kills the command that holds the lock of `folder`, the folder of container `id`. None, or one that is
/// gone by now, is fine; anything else that holds the lock is left alone.
///
/// # Errors
/// `/proc` cannot be read, or the kernel refuses.
pub(crate) fn end(id: &str, folder: &Path, ends: Ends) -> io::Result<()> {
    for process in find(id, folder, ends)? {
        process.kill()?;
    }
    Ok(())
}

/// Kills the proxy of container `id`, should it have `folder` open: it shares the lock of a `create` that has
/// died, follows it by itself unless somebody has stopped it (SIGSTOP), and is recorded nowhere yet.
///
/// # Errors
/// `/proc` cannot be read, or the kernel refuses.
pub(crate) fn end_unrecorded_proxy(id: &str, folder: &Path) -> io::Result<()> {
    let line = command_line(id);
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let is_ours = |pid: i32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line)
                && is_command(pid, id, Ends::All)
                && has_open(pid, folder)
        };
        if !is_ours(pid) {
            continue;
        }
        let Some(process) = process::open(pid)? else { continue };
        // Looked at again, for only now does the pid stay the same process's.
        if is_ours(pid) && process.wait_end(Duration::ZERO)? == Waited::StillThere {
            process.kill()?;
        }
    }
    Ok(())
}

/// Whether a command works on the container. The lock alone does not say so: what a dead one has started
/// may still hold it for a moment.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn is_at_work(id: &str, folder: &Path) -> io::Result<bool> {
    Ok(!find(id, folder, Ends::All)?.is_empty())
}

fn find(id: &str, folder: &Path, ends: Ends) -> io::Result<Vec<Process>> {
    let inode = std::fs::metadata(folder)?.ino();
    let mut found = Vec::new();
    for pid in holders(&std::fs::read_to_string("/proc/locks")?, inode) {
        let Some(process) = process::open(pid)? else { continue };
        // The lock outlives the process that took it while its children share it; by then the pid
        // may be another's. This one must be a command on the container and have the folder open.
        let is_ours = is_command(pid, id, ends) && has_open(pid, folder);
        if is_ours && process.wait_end(Duration::ZERO)? == Waited::StillThere {
            found.push(process);
        }
    }
    Ok(found)
}

/// The pids that `/proc/locks` (proc_locks(5)) names for flock(2) on `inode`.
fn holders(locks: &str, inode: u64) -> Vec<i32> {
    let mut pids = Vec::new();
    for line in locks.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else { continue };
        let same = file.rsplit(':').next().is_some_and(|number| number.parse() == Ok(inode));
        pids.extend(pid.parse::<i32>().ok().filter(|_| same));
    }
    pids
}

/// Whether `pid` runs this program, in this or another version, on container `id`.
fn is_command(pid: i32, id: &str, ends: Ends) -> bool {
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe"));
    let (Ok(theirs), Ok(own)) = (program(&pid.to_string()), program("self")) else { return false };
    let Ok(command_line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    (ends == Ends::All || !is_delete(&command_line))
        && works_on(&command_line, &theirs.to_string_lossy(), &own.to_string_lossy(), id)
}

fn has_open(pid: i32, folder: &Path) -> bool {
    let Ok(wanted) = std::fs::metadata(folder) else { return false };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(table) = rustix::fs::open(format!("/proc/{pid}/fd"), flags, Mode::empty()) else {
        return false;
    };
    listing::names(&table).unwrap_or_default().iter().any(|number| {
        rustix::fs::statat(&table, number, AtFlags::empty())
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (wanted.dev(), wanted.ino()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flocks_on_the_folder_count() {
        let locks = "1: FLOCK  ADVISORY  WRITE 10 00:19:77 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 11 00:19:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 14 00:19:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 12 00:19:78 0 EOF\n\
                     garbage\n\
                     4: FLOCK  ADVISORY  READ 13 fe:00:77 0 EOF\n";
        assert_eq!(holders(locks, 77), [10, 13]);
        assert!(holders("", 77).is_empty());
    }
}
