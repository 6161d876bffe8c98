//! The process that works on a container at this moment: the holder of the lock on its directory.
//! `delete --force` must not wait for a hook that hangs, so it kills that process; guard and proxy then exit too. A
//! proxy that is stopped (SIGSTOP) cannot exit and is killed separately.

use crate::host::os::directory;
use crate::host::os::process::{self, Process};
use crate::model::container::lock_holder::{is_delete, names, works_on};
use crate::model::container::proxy::command_line;
use crate::model::text::cause::in_words;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Which commands [`end`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// All but deletes: one may have taken the lock a moment ago, from the command to be ended.
    NoDelete,
    All,
}

/// Kills the command that holds the lock on `folder`, the directory of container `id`. It is not an error if there is
/// no such process or directory any more. A holder that is not a command of this program is left alone.
pub(crate) fn end(id: &str, folder: &Path, ends: Ends) -> io::Result<()> {
    for process in find(id, folder, ends)? {
        process.kill()?;
    }
    Ok(())
}

/// Kills the proxy of container `id` if it has `folder` open. It shares the lock of a `create` that died and is not
/// recorded yet. It exits by itself unless it was stopped (SIGSTOP).
pub(crate) fn end_unrecorded_proxy(id: &str, folder: &Path) -> io::Result<()> {
    process::check_proc()?;
    let Some(folder) = inode(folder)? else { return Ok(()) };
    for pid in process::pids()? {
        if !looks_like_proxy(pid, id)? {
            continue;
        }
        let Some(process) = process::open(pid)? else { continue };
        // Looked at again, for only now does the pid stay the same process's.
        let is_proxy = |pid| {
            Ok(looks_like_proxy(pid, id)?
                && is_command(pid, id, Ends::All)?
                && has_open(pid, folder)?)
        };
        if holds(&process, is_proxy)? {
            process.kill()?;
        }
    }
    Ok(())
}

/// The processes with the command line of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Lookalikes {
    /// Their pids, in ascending order.
    pub(crate) pids: Vec<i32>,
    /// Why one of the others may be a proxy too: its command line could not be read.
    pub(crate) unread: Option<io::Error>,
}

/// Finds the processes that look like the proxy of container `id`, for when its state does not say which one it is.
/// They must not be signalled: another state root may have a container of the same id.
pub(crate) fn find_lookalikes(id: &str) -> io::Result<Lookalikes> {
    process::check_proc()?;
    let mut found = Lookalikes::default();
    for pid in process::pids()? {
        match looks_like_proxy(pid, id) {
            Ok(true) => found.pids.push(pid),
            Ok(false) => {}
            Err(error) => found.unread = Some(error),
        }
    }
    found.pids.sort_unstable();
    Ok(found)
}

fn looks_like_proxy(pid: i32, id: &str) -> io::Result<bool> {
    Ok(process::read_proc(pid, "cmdline")?.is_some_and(|line| line == command_line(id)))
}

/// Whether a command works on the container. The lock alone does not say so: what a dead one has started
/// may still hold it for a moment.
pub(crate) fn is_at_work(id: &str, folder: &Path) -> io::Result<bool> {
    Ok(!find(id, folder, Ends::All)?.is_empty())
}

fn find(id: &str, folder: &Path, ends: Ends) -> io::Result<Vec<Process>> {
    process::check_proc()?;
    let Some(folder) = inode(folder)? else { return Ok(Vec::new()) };
    let locks = std::fs::read_to_string("/proc/locks").map_err(|error| {
        io::Error::other(format!("/proc/locks names the holders of locks: {}", in_words(&error)))
    })?;
    let mut found = Vec::new();
    for pid in holders(&locks, folder.1) {
        let Some(process) = process::open(pid)? else { continue };
        // The lock outlives the process that took it while its children share it; by then the pid
        // may be another's. This one must be a command on the container and have the folder open.
        if holds(&process, |pid| Ok(is_command(pid, id, ends)? && has_open(pid, folder)?))? {
            found.push(process);
        }
    }
    Ok(found)
}

/// Whether a process is there and `is_holder` is true of it.
fn holds(process: &Process, is_holder: impl Fn(i32) -> io::Result<bool>) -> io::Result<bool> {
    let holds = process.ask(|pid| {
        is_holder(pid).map_err(|error| {
            let why = in_words(&error);
            io::Error::other(format!(
                "cannot determine whether process {pid} is working on it (without CAP_SYS_PTRACE?): {why}"
            ))
        })
    })?;
    Ok(holds.unwrap_or(false))
}

/// Device and inode; `None` if nothing is there.
fn inode(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The pids that `/proc/locks` (proc_locks(5)) names for flock(2) on `inode`, and perhaps some for another file:
/// see [`shows`].
fn holders(locks: &str, inode: u64) -> Vec<i32> {
    let mut pids = Vec::new();
    for line in locks.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else { continue };
        let number = file.rsplit(':').next().and_then(|number| number.parse().ok());
        let same = number.is_some_and(|number| shows(number, inode));
        pids.extend(pid.parse::<i32>().ok().filter(|_| same));
    }
    pids
}

/// Whether `number` in `/proc/locks` may stand for `inode`, the number that stat(2) returns.
///
/// A 32-bit kernel has only 32 bits for the former. Of a larger number XFS and btrfs keep the lower half there, and
/// NFS and FUSE both halves, combined by exclusive or.
fn shows(number: u64, inode: u64) -> bool {
    let (high, low) = (inode >> 32, inode & u64::from(u32::MAX));
    number == inode || number == low || number == low ^ high
}

/// Whether `pid` runs this program, in this or another version, on container `id`.
fn is_command(pid: i32, id: &str, ends: Ends) -> io::Result<bool> {
    // First, since everybody may read it.
    let line = process::read_proc(pid, "cmdline")?.unwrap_or_default();
    if !names(&line, id) || (ends == Ends::NoDelete && is_delete(&line)) {
        return Ok(false);
    }
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe"));
    let (theirs, own) = (program(&pid.to_string())?, program("self")?);
    Ok(works_on(&line, &theirs.to_string_lossy(), &own.to_string_lossy(), id))
}

fn has_open(pid: i32, folder: (u64, u64)) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let table = rustix::fs::open(format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    for number in directory::names(&table)? {
        match rustix::fs::statat(&table, number, AtFlags::empty()) {
            Ok(found) if (found.st_dev, found.st_ino) == folder => return Ok(true),
            // NOENT: closed meanwhile.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
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

    #[test]
    fn an_inode_beyond_32_bits_is_found_as_64_bit_and_32_bit_kernels_write_it() {
        let inode = 0x0000_0003_8000_0080_u64;
        for (number, found) in [
            (inode, true),
            // XFS and btrfs, then NFS and FUSE, on a 32-bit kernel.
            (0x8000_0080, true),
            (0x8000_0083, true),
            (0x8000_0081, false),
            (3, false),
            (inode + 1, false),
            (u64::MAX, false),
        ] {
            let locks = format!("1: FLOCK  ADVISORY  WRITE 10 fe:00:{number} 0 EOF\n");
            assert_eq!(!holders(&locks, inode).is_empty(), found, "{number:#x}");
        }
        let beyond_64_bits = "1: FLOCK  ADVISORY  WRITE 10 fe:00:18446744073709551616 0 EOF";
        assert!(holders(beyond_64_bits, 0).is_empty());
    }
}
