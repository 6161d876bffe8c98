//! The file with the record of the last cleanup. It is in `/run`, because a cleanup runs at every boot.
//! `model/engine/cleanup_record.rs` defines the content.

use crate::host::os::atomic_file;
use crate::host::os::clock;
use crate::host::os::host_root::HostRoot;
use crate::model::engine::cleanup_record::CleanupRecord;
use rustix::fs::OFlags;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

const DIRECTORY: &str = "/run";
const NAME: &str = "balena-extension-manager-cleanup.json";
/// The name that the file has for an instant, before it replaces another.
const PREPARED: &str = ".balena-extension-manager-cleanup.tmp";

/// A record that could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot record this cleanup in {path:?}")]
    Write { path: PathBuf, source: io::Error },
}

/// Records that a cleanup was completed now, with so many failures.
pub(crate) fn save(host: &HostRoot, failures: usize) -> Result<(), Error> {
    let record = CleanupRecord { time: clock::unix_seconds(), failures };
    let write = || -> io::Result<()> {
        let text = record.to_text()?;
        let directory = host.open(DIRECTORY, OFlags::RDONLY | OFlags::DIRECTORY)?;
        atomic_file::replace_unlocked(directory.as_fd(), PREPARED, NAME, text.as_bytes())
    };
    write().map_err(|source| Error::Write { path: host.display_path(DIRECTORY).join(NAME), source })
}

/// Reads the record; `None` if the host has booted since the last cleanup.
pub(crate) fn load(host: &HostRoot) -> Result<Option<CleanupRecord>, String> {
    let path = format!("{DIRECTORY}/{NAME}");
    let Some(text) = host.read_if_there(&path)? else { return Ok(None) };
    CleanupRecord::parse(&text)
        .map(Some)
        .map_err(|error| format!("cannot parse {:?}: {error}", host.display_path(&path)))
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Write { path, source },
    }
}
