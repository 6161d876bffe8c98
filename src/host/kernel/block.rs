//! The file of the boot environment block: read under a shared lock, and changed in place under an exclusive one. A
//! write that a power cut interrupted is completed from its record (`block_redo.rs`) before anything is decided.
//! `model/kernel/block.rs` has the format.

use crate::host::kernel::block_redo::BlockRedo;
use crate::host::kernel::boot_file;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::block::{Block, InvalidBlock, NoRoom};
use crate::model::kernel::records::BlockValues;
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where the partition with the block is mounted. A device that keeps its boot partition encrypted has the block on
/// another one, which its OS names when it builds this program.
pub(crate) const BOOT_MOUNT: &str = match option_env!("BALENA_BOOT_MOUNT") {
    Some(directory) => directory,
    None => "/mnt/boot",
};
const _: () = assert!(matches!(BOOT_MOUNT.as_bytes(), [b'/', ..]), "BALENA_BOOT_MOUNT is no path");
const NAME: &str = "bootenv";

/// `grub-editenv` takes no lock: it truncates the block and then writes it. A block that does not begin or end as one is read
/// again for so long, with this pause, before it counts as damaged.
const SETTLING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// The block of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockFile<'a> {
    host: &'a HostRoot,
}

/// Whether a change wrote the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockWrite {
    Done,
    /// There was nothing to change.
    NotNeeded,
}

/// What became of a write that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockRepair {
    /// No write was interrupted.
    NotNeeded,
    /// The block had a part of the old content and a part of the new one. It has the new one now.
    Completed,
    /// The block had one of the two contents, or another program has written it since.
    RecordRemoved,
}

/// Why the block cannot be read or changed. It has its old content, or its new one, or the next change completes it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the boot partition is not mounted at {directory:?}, so the boot environment cannot be read"
    )]
    NotMounted { directory: PathBuf },
    #[error(
        "cannot read the boot environment {path:?}: the target of the link {link:?} is missing"
    )]
    Dangling { path: PathBuf, link: PathBuf },
    #[error(transparent)]
    File(#[from] boot_file::Error),
    #[error("the boot environment {path:?} is damaged")]
    Invalid { path: PathBuf, source: InvalidBlock },
    #[error("cannot change the boot environment {path:?}")]
    NoRoom { path: PathBuf, source: NoRoom },
    #[error("cannot write the boot environment {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path:?}, the record of an interrupted change of the boot environment")]
    ReadRedo { path: PathBuf, source: io::Error },
    #[error("cannot record a change of the boot environment in {path:?}")]
    SaveRedo { path: PathBuf, source: io::Error },
    #[error(
        "cannot remove {path:?}, the record of a change of the boot environment that is complete"
    )]
    RemoveRedo { path: PathBuf, source: io::Error },
}

/// Reads the block. `None` if the host does not have one.
///
/// # Errors
/// The block may exist, and its content is unknown.
pub(crate) fn read(host: &HostRoot) -> Result<Option<Block>, Error> {
    BlockFile::find(host)?.map(|file| file.read()).transpose()
}

impl<'a> BlockFile<'a> {
    /// Finds the block. `None` if the host has none, and therefore no kernel overrides.
    pub(crate) fn find(host: &'a HostRoot) -> Result<Option<Self>, Error> {
        if host.lacks_mount(BOOT_MOUNT) {
            return Err(Error::NotMounted { directory: host.display_path(BOOT_MOUNT) });
        }
        let file = Self { host };
        match host.open(path(), OFlags::PATH) {
            Ok(_) => Ok(Some(file)),
            Err(error) if is_absence(&error) => match host.dangling(path()) {
                Some(link) => Err(Error::Dangling { path: file.shown(), link }),
                None => Ok(None),
            },
            Err(source) => Err(boot_file::Error::Read { path: file.shown(), source }.into()),
        }
    }

    /// Reads the block, as it will be when an interrupted write is completed.
    pub(crate) fn read(&self) -> Result<Block, Error> {
        let redo = self.redo()?;
        let read = || {
            let missing = || boot_file::Error::Read {
                path: self.shown(),
                source: io::Error::from(io::ErrorKind::NotFound),
            };
            boot_file::read(self.host, &path())?.ok_or_else(missing)
        };
        self.settled(read, redo.as_ref()).map(|(block, _)| block)
    }

    /// Changes the block in one write. `decide` sees the values that the block has under the lock; `None`, or the same
    /// values, means that nothing is written.
    pub(crate) fn change(
        &self,
        decide: impl FnOnce(&BlockValues) -> Option<BlockValues>,
    ) -> Result<BlockWrite, Error> {
        let file = boot_file::lock(self.host, &path())?;
        let (block, _) = self.repaired(&file)?;
        let values = block.values();
        let Some(wanted) = decide(&values).filter(|wanted| *wanted != values) else {
            return Ok(BlockWrite::NotNeeded);
        };
        let (old, new) = (block.to_bytes(), block.with(&wanted));
        let new = new.map_err(|source| Error::NoRoom { path: self.shown(), source })?;
        if new == old {
            return Ok(BlockWrite::NotNeeded);
        }
        let failed = |source| Error::SaveRedo { path: BlockRedo::path(self.host), source };
        BlockRedo::save(self.host, &old, &new).map_err(failed)?;
        self.write(&file, &new)?;
        self.remove_redo()?;
        Ok(BlockWrite::Done)
    }

    /// Writes values that belong to other programs. Only `simulate` plays others.
    pub(crate) fn play(&self, values: &[(&str, String)]) -> Result<(), Error> {
        let file = boot_file::lock(self.host, &path())?;
        let (mut block, _) = self.repaired(&file)?;
        for (key, value) in values {
            block = block
                .with_value(key, value)
                .map_err(|source| Error::NoRoom { path: self.shown(), source })?;
        }
        self.write(&file, &block.to_bytes())
    }

    /// Completes a write that was interrupted. Each command that writes does this first.
    pub(crate) fn repair(&self) -> Result<BlockRepair, Error> {
        // A record without the lock may also be that of a write that is under way.
        if self.redo()?.is_none() {
            return Ok(BlockRepair::NotNeeded);
        }
        let file = boot_file::lock(self.host, &path())?;
        self.repaired(&file).map(|(_, repair)| repair)
    }

    /// The block, whole and without a record. A damaged one keeps its record: what it is cannot be seen.
    fn repaired(&self, file: &File) -> Result<(Block, BlockRepair), Error> {
        let redo = self.redo()?;
        let read = || boot_file::read_locked(file, &self.shown());
        let (block, repair) = self.settled(read, redo.as_ref())?;
        if repair == BlockRepair::Completed {
            self.write(file, &block.to_bytes())?;
        }
        if repair != BlockRepair::NotNeeded {
            self.remove_redo()?;
        }
        Ok((block, repair))
    }

    /// Reads until the content is a block, and what `redo` makes of it.
    fn settled(
        &self,
        read: impl Fn() -> Result<Vec<u8>, boot_file::Error>,
        redo: Option<&BlockRedo>,
    ) -> Result<(Block, BlockRepair), Error> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let found = read()?;
            let (bytes, repair) = match redo.map(|redo| redo.content_for(&found)) {
                None => (found.as_slice(), BlockRepair::NotNeeded),
                Some(Some(new)) => (new, BlockRepair::Completed),
                Some(None) => (found.as_slice(), BlockRepair::RecordRemoved),
            };
            match Block::parse(bytes) {
                Ok(block) => return Ok((block, repair)),
                Err(InvalidBlock::NoSignature | InvalidBlock::Cut) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(source) => return Err(Error::Invalid { path: self.shown(), source }),
            }
        }
    }

    /// Writes the whole block in place, and makes it durable.
    fn write(&self, file: &File, bytes: &[u8]) -> Result<(), Error> {
        let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_all());
        written.map_err(|source| Error::Write { path: self.shown(), source })
    }

    fn redo(&self) -> Result<Option<BlockRedo>, Error> {
        let failed = |source| Error::ReadRedo { path: BlockRedo::path(self.host), source };
        BlockRedo::load(self.host).map_err(failed)
    }

    fn remove_redo(&self) -> Result<(), Error> {
        let failed = |source| Error::RemoveRedo { path: BlockRedo::path(self.host), source };
        BlockRedo::remove(self.host).map_err(failed)
    }

    fn shown(&self) -> PathBuf {
        self.host.display_path(path())
    }
}

/// The path of the block.
pub(crate) fn path() -> String {
    format!("{BOOT_MOUNT}/{NAME}")
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        NotMounted { directory }, Dangling { path, link }, File(..), Invalid { path, source },
        NoRoom { path, source }, Write { path, source }, ReadRedo { path, source },
        SaveRedo { path, source }, RemoveRedo { path, source },
    }
}
