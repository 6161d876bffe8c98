//! The file of the history of overrides, on the state partition. `model/kernel/history.rs` has its format.

use crate::host::kernel::override_store::STATE;
use crate::host::os::atomic_file;
use crate::host::os::host_root::HostRoot;
use crate::model::kernel::history::{self, HistoryEntry, MAX_LEN};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

const NAME: &str = "override-history.jsonl";
const MODE: Mode = Mode::from_raw_mode(0o644);

/// The path, for messages.
pub(crate) fn path(host: &HostRoot) -> PathBuf {
    host.display_path(Path::new(STATE).join(NAME))
}

/// The whole file; empty if it is missing.
pub(crate) fn read(host: &HostRoot) -> io::Result<Vec<u8>> {
    match host.bytes(Path::new(STATE).join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Appends an event, in one write.
pub(crate) fn append(host: &HostRoot, entry: &HistoryEntry) -> io::Result<()> {
    let before = read(host)?;
    let state = open_state(host)?;
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&state, NAME, flags, MODE)?;
    // A line that a power cut has torn must not become a part of this one.
    let is_torn = before.last().is_some_and(|&byte| byte != b'\n');
    let line = format!("{}{}", if is_torn { "\n" } else { "" }, entry.line());
    if rustix::io::write(&file, line.as_bytes())? != line.len() {
        return Err(io::Error::from(io::ErrorKind::WriteZero));
    }
    rustix::fs::fdatasync(&file)?;
    if before.is_empty() {
        rustix::fs::fsync(&state)?;
    }
    Ok(())
}

/// Removes the older half of a file that has become too large. The caller holds the operation lock, so that no two do it
/// at once; a line that another program appends meanwhile can be lost.
pub(crate) fn shorten(host: &HostRoot) -> io::Result<()> {
    let bytes = read(host)?;
    if bytes.len() < MAX_LEN {
        return Ok(());
    }
    let state = open_state(host)?;
    atomic_file::replace_durably(state.as_fd(), NAME, MODE, history::newer_half(&bytes))
}

fn open_state(host: &HostRoot) -> io::Result<OwnedFd> {
    host.open(STATE, OFlags::RDONLY | OFlags::DIRECTORY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kernel::abi::Abi;
    use crate::model::kernel::verdict::OverrideVerdict;

    #[test]
    fn the_file_stays_bounded_and_keeps_the_newest_events() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("mnt/state")).unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        let abi = Abi::parse(&"a".repeat(64)).unwrap();
        let entry = |number: usize| {
            let verdict = OverrideVerdict::Armed { abi: abi.clone() };
            HistoryEntry::of_verdict(number.to_string(), "activate", &verdict)
        };
        assert!(read(&host).unwrap().is_empty());
        for number in 0..600 {
            append(&host, &entry(number)).unwrap();
            shorten(&host).unwrap();
        }
        let bytes = read(&host).unwrap();
        assert!(bytes.len() < MAX_LEN && bytes.len() > MAX_LEN / 3, "{}", bytes.len());
        let (entries, others) = history::parse(&bytes);
        assert_eq!((entries.last(), others), (Some(&entry(599)), 0));
        // A torn line costs itself only.
        let mut file = std::fs::File::options().append(true).open(path(&host)).unwrap();
        io::Write::write_all(&mut file, b"{\"time").unwrap();
        append(&host, &entry(600)).unwrap();
        let (entries, others) = history::parse(&read(&host).unwrap());
        assert_eq!((entries.last(), others), (Some(&entry(600)), 1));
    }
}
