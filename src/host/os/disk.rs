//! The free space of a filesystem, and whether it can be written to.

use rustix::fs::{Access, StatVfsMountFlags};
use std::io;
use std::path::Path;

/// The bytes of the filesystem of `path` that an unprivileged user can allocate, and its size.
pub(crate) fn space(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    // A filesystem in user space may return any number.
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)))
}

/// Checks that files could be created in a directory, without creating one.
pub(crate) fn can_write(directory: &Path) -> io::Result<()> {
    if rustix::fs::statvfs(directory)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
    }
    Ok(rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_can_be_written_and_a_missing_one_cannot() {
        let folder = tempfile::tempdir().unwrap();
        assert!(can_write(folder.path()).is_ok());
        assert!(can_write(&folder.path().join("missing")).is_err());
        let (free, all) = space(folder.path()).unwrap();
        assert!(free <= all && all > 0);
    }
}
