//! Where the host's files are: below `/`, or below a folder in which a copy of them is looked at.

use crate::host::bundle::read_bounded;
use crate::model::cause::in_words;
use crate::model::mounts;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The folder that stands for the host's `/`.
#[derive(Clone, Debug)]
pub(crate) struct HostRoot(PathBuf);

/// The most that is read of a file that the kernel makes up, whose length it does not tell.
const PROC_MAX: u64 = 4 * 1024 * 1024;

impl HostRoot {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The place of a file of the host; `path` is absolute.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// Reads a text of the host.
    ///
    /// # Errors
    /// A sentence that names the file and the cause.
    pub(crate) fn read(&self, path: &str) -> Result<String, String> {
        self.bytes(path).map_err(|error| self.unread(path, &error))
    }

    /// Reads a text of the host that need not be there. Only a file that is missing is none: one that
    /// cannot be reached may well be there.
    ///
    /// # Errors
    /// A sentence that names the file and the cause.
    pub(crate) fn read_if_there(&self, path: &str) -> Result<Option<String>, String> {
        match self.bytes(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unread(path, &error)),
        }
    }

    /// Whether there is a folder for a partition, and nothing is mounted on it: what is not found in it may
    /// well exist.
    pub(crate) fn lacks_mount(&self, point: &str) -> bool {
        let mounts = self.read("/proc/mounts").unwrap_or_default();
        self.path(point).is_dir() && !mounts::is_mount_point(&mounts, point)
    }

    fn bytes(&self, path: &str) -> io::Result<String> {
        let path = self.path(path);
        let bytes = if path.starts_with(self.path("/proc")) {
            read_made_up(&path)?
        } else {
            read_bounded(&path)?
        };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn unread(&self, path: &str, error: &io::Error) -> String {
        format!("read {:?}: {}", self.path(path), in_words(error))
    }
}

fn read_made_up(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(PROC_MAX + 1).read_to_end(&mut bytes)?;
    // Half of it would be believed.
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > PROC_MAX {
        return Err(io::Error::other(format!("it has more than {PROC_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn only_a_missing_file_is_none_and_half_a_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = HostRoot::new(folder.path().to_owned());
        assert_eq!(root.read_if_there("/a/b"), Ok(None));
        assert!(root.read("/a/b").unwrap_err().contains("a/b\": it is missing"));
        std::fs::create_dir_all(root.path("/proc/folder")).unwrap();
        std::fs::create_dir(root.path("/a")).unwrap();
        assert!(root.read_if_there("/a").unwrap_err().contains("not a regular file"));
        let most = usize::try_from(PROC_MAX).unwrap();
        let mut mounts = std::fs::File::create(root.path("/proc/mounts")).unwrap();
        mounts.write_all(&vec![b'x'; most]).unwrap();
        assert_eq!(root.read("/proc/mounts").unwrap().len(), most);
        mounts.write_all(b"x").unwrap();
        assert!(root.read("/proc/mounts").unwrap_err().contains("more than"));
    }
}
