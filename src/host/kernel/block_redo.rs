//! The record of a write of the boot environment block: both contents and a checksum, durable before the write and
//! removed after it. The block has no checksum of its own, so a write that a power cut has torn is only seen with it.

use crate::host::kernel::override_store::STATE;
use crate::host::os::atomic_file;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::torn_write::is_torn;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// The record's name on the state partition.
const NAME: &str = "override-block-redo";
/// The first line of a record. A checksum follows, then the two contents, which have the same length.
const OPENING: &[u8] = b"override-block-redo 1\n";
const CHECKSUM_LEN: usize = 32;
/// Any user may read the block.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// A recorded write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BlockRedo {
    Write {
        old: Vec<u8>,
        new: Vec<u8>,
    },
    /// A record that is not whole. The write comes after the record, so it had not begun.
    Incomplete,
}

impl BlockRedo {
    /// Reads the record; `None` if no write was interrupted.
    pub(super) fn load(host: &HostRoot) -> io::Result<Option<Self>> {
        match host.bytes(Path::new(STATE).join(NAME)) {
            Ok(bytes) => Ok(Some(Self::parse(&bytes).unwrap_or(Self::Incomplete))),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a record durable. The caller holds the lock of the block.
    pub(super) fn save(host: &HostRoot, old: &[u8], new: &[u8]) -> io::Result<()> {
        atomic_file::replace_durably(state(host)?.as_fd(), NAME, MODE, &Self::to_bytes(old, new))
    }

    /// Removes the record durably. One that is missing is no error.
    pub(super) fn remove(host: &HostRoot) -> io::Result<()> {
        let state = state(host)?;
        match rustix::fs::unlinkat(&state, NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(rustix::fs::fsync(&state)?),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn path(host: &HostRoot) -> PathBuf {
        host.display_path(Path::new(STATE).join(NAME))
    }

    /// The content that the write would have had, if `found` is what it left when it was interrupted.
    pub(crate) fn content_for(&self, found: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Write { old, new } => is_torn(found, old, new).then_some(new),
            Self::Incomplete => None,
        }
    }

    pub(crate) fn to_bytes(old: &[u8], new: &[u8]) -> Vec<u8> {
        [OPENING, &checksum(&[old, new]), old, new].concat()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (recorded, contents) = bytes.strip_prefix(OPENING)?.split_at_checked(CHECKSUM_LEN)?;
        let (old, new) = contents.split_at(contents.len() / 2);
        let is_whole = old.len() == new.len() && checksum(&[old, new]) == recorded;
        is_whole.then(|| Self::Write { old: old.to_vec(), new: new.to_vec() })
    }
}

fn state(host: &HostRoot) -> io::Result<OwnedFd> {
    host.open(STATE, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn checksum(parts: &[&[u8]]) -> [u8; CHECKSUM_LEN] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_of_a_write_that_did_not_begin() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        let path = BlockRedo::path(&host);
        assert_eq!(BlockRedo::load(&host).unwrap(), None);
        assert!(BlockRedo::save(&host, b"old", b"new").is_err(), "there is no state partition");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // What a crash left of an earlier record.
        std::fs::File::create(path.with_extension("new")).unwrap();
        BlockRedo::save(&host, b"old", b"new").unwrap();
        let whole = BlockRedo::Write { old: b"old".to_vec(), new: b"new".to_vec() };
        assert_eq!(BlockRedo::load(&host).unwrap(), Some(whole));
        let bytes = std::fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(BlockRedo::parse(&bytes[..len]), None, "{len} bytes");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(BlockRedo::parse(&changed), None, "byte {at}");
        }
        std::fs::File::options().write(true).open(&path).unwrap().set_len(9).unwrap();
        assert_eq!(BlockRedo::load(&host).unwrap(), Some(BlockRedo::Incomplete));
        assert_eq!(BlockRedo::Incomplete.content_for(b"x"), None);
        for _ in 0..2 {
            BlockRedo::remove(&host).unwrap();
            assert_eq!(BlockRedo::load(&host).unwrap(), None);
        }
        std::fs::create_dir(&path).unwrap();
        assert!(BlockRedo::load(&host).is_err(), "it cannot be read");
    }
}
