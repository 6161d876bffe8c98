//! Where the host's files are: below `/`, or below a folder in which a copy of them is looked at.

use crate::host::bundle::read_bounded;
use crate::model::cause::in_words;
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
        let path = self.path(path);
        let failed = |error: std::io::Error| format!("read {path:?}: {}", in_words(&error));
        let bytes = if path.starts_with(self.path("/proc")) {
            read_made_up(&path).map_err(failed)?
        } else {
            read_bounded(&path).map_err(failed)?
        };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn read_made_up(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(PROC_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
