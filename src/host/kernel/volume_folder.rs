//! The directory in which an engine keeps a volume's content, and whether another path leads to the same directory.

use crate::host::engine::stored_containers::DataRoot;
use crate::host::os::host_root::HostRoot;
use crate::model::kernel::volume::BootVolume;
use rustix::fs::OFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An open directory of the host.
#[derive(Debug)]
pub(crate) struct HostFolder {
    folder: OwnedFd,
    /// For messages.
    pub(crate) path: PathBuf,
}

impl HostFolder {
    pub(crate) fn open(host: &HostRoot, path: &Path) -> io::Result<Self> {
        let folder = host.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self { folder, path: host.display_path(path) })
    }

    /// The content of a volume.
    pub(crate) fn of_volume(root: &DataRoot, volume: &BootVolume) -> io::Result<Self> {
        Self::open(&root.host, &volume_path(&root.path, volume))
    }

    /// Whether `path` leads to this directory.
    pub(crate) fn is_at(&self, host: &HostRoot, path: &Path) -> io::Result<bool> {
        let other = rustix::fs::fstat(host.open(path, OFlags::PATH)?)?;
        let own = rustix::fs::fstat(&self.folder)?;
        Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    }

    /// `DEVICE:INODE`, as `host/container/manager_call.rs` has it.
    pub(crate) fn identity(&self) -> io::Result<String> {
        let stat = rustix::fs::fstat(&self.folder)?;
        Ok(format!("{}:{}", stat.st_dev, stat.st_ino))
    }
}

impl AsFd for HostFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The path of a volume's content below the engine's data root.
pub(crate) fn volume_path(root: &Path, volume: &BootVolume) -> PathBuf {
    root.join("volumes").join(volume.as_str()).join("_data")
}
