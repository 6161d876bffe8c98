//! Filesystems, as far as a look at them tells whether they serve.

use rustix::fs::{Access, StatVfsMountFlags};
use std::io;
use std::path::Path;

/// Free bytes for whoever is not root, and all bytes, of the filesystem that has `path`.
///
/// # Errors
/// statvfs(3)'s.
pub(crate) fn space(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    // A filesystem in user space may say anything.
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)))
}

/// Whether things can be made in a folder; nothing is made.
///
/// # Errors
/// Why not.
pub(crate) fn can_write(folder: &Path) -> io::Result<()> {
    if rustix::fs::statvfs(folder)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
    }
    Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
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
