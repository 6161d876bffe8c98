//! The records of deploys, one file a container, written by the runtime and read by the manager. They are
//! in `/run`: what they tell of ends with the boot. What is in them is decided in `model/deploy.rs`.

use crate::host::atomic_file;
use crate::host::bundle::read_bounded;
use crate::host::listing;
use crate::model::container_id::ContainerId;
use crate::model::deploy::Record;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where they are. Not in a state root: engines give each its own, and do not tell which.
pub(crate) const FOLDER: &str = "/run/balena-extension-runtime-deploys";
/// How many are kept. A container that is made anew at every failure must not fill the memory; but of a
/// container without a record it is not known any more that its hooks ran. A silent one takes a page.
const KEPT: usize = 512;

/// A record that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read the record {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("read the record {path:?}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("write a record into {folder:?}")]
    Write { folder: PathBuf, source: io::Error },
}

/// Reads the record of a container.
///
/// # Errors
/// It is there and cannot be read.
pub(crate) fn load(folder: &Path, id: &ContainerId) -> Result<Option<Record>, Error> {
    let path = folder.join(name(id));
    match read_bounded(&path) {
        Ok(bytes) => {
            Record::parse(&bytes).map(Some).map_err(|source| Error::Parse { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// The ids of all containers that have a record, sorted.
///
/// # Errors
/// The folder is there and cannot be listed.
pub(crate) fn ids(folder: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let mut ids = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
        ids.extend(id.filter(|id| ContainerId::parse(id).is_ok()).map(str::to_owned));
    }
    ids.sort();
    Ok(ids)
}

/// Replaces the record of a container: a reader sees the old one or the new. Nothing is synced, since no
/// record outlives the boot.
///
/// # Errors
/// The record is as it was.
pub(crate) fn save(folder: &Path, id: &ContainerId, record: &Record) -> Result<(), Error> {
    let failed = |source| Error::Write { folder: folder.to_owned(), source };
    let bytes = record.to_bytes().map_err(io::Error::other).map_err(failed)?;
    let folder = make(folder).map_err(failed)?;
    replace(folder.as_fd(), id, &bytes).map_err(failed)?;
    prune(folder.as_fd()).map_err(failed)
}

/// Removes the record of a container, if there is one.
pub(crate) fn remove(folder: &Path, id: &ContainerId) {
    // One that stays is overwritten by the next, or ends with the boot.
    for name in [name(id), prepared(id)] {
        let _ = rustix::fs::unlink(folder.join(name));
    }
}

fn name(id: &ContainerId) -> String {
    format!("{id}.json")
}

/// The name that a record has for an instant, before it replaces another.
fn prepared(id: &ContainerId) -> String {
    format!(".{id}.tmp")
}

fn make(folder: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

/// The file has no name until it is complete, so a kill leaves a whole record, if under the wrong name,
/// which the next one takes over. Two calls for one container may meet here: one's record replaces the
/// other's, as if it had come later.
fn replace(folder: BorrowedFd<'_>, id: &ContainerId, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, ".", flags, Mode::from_raw_mode(0o600))?);
    file.write_all(bytes)?;
    let prepared = PathBuf::from(prepared(id));
    let mut linked = atomic_file::link(&file, folder, &prepared);
    if linked == Err(Errno::EXIST) {
        let _ = rustix::fs::unlinkat(folder, &prepared, AtFlags::empty());
        linked = atomic_file::link(&file, folder, &prepared);
    }
    linked?;
    match rustix::fs::renameat(folder, &prepared, folder, name(id)) {
        // Not there any more: the other call has given it its name.
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => {
            let _ = rustix::fs::unlinkat(folder, &prepared, AtFlags::empty());
            Err(error.into())
        }
    }
}

/// Removes the oldest records above the number that is kept.
fn prune(folder: BorrowedFd<'_>) -> io::Result<()> {
    let names = listing::names(folder)?;
    let Some(excess) = names.len().checked_sub(KEPT).filter(|&excess| excess > 0) else {
        return Ok(());
    };
    let age = |name: CString| {
        // One that vanishes meanwhile has been pruned by another call.
        let found = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(((found.st_mtime, found.st_mtime_nsec), name))
    };
    let mut records: Vec<_> = names.into_iter().filter_map(age).collect();
    records.sort();
    for (_, name) in records.into_iter().take(excess) {
        let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::deploy::Step;

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(text).unwrap()
    }

    fn record(text: &str) -> Record {
        let step = Step {
            verb: "create".to_owned(),
            time: String::new(),
            error: Some("no".to_owned()),
            refused: None,
            warnings: Vec::new(),
            hooks: Vec::new(),
        };
        Record::after(None, text, step)
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_is_gone_when_removed() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("deploys");
        assert!(load(&folder, &id("x")).unwrap().is_none());
        save(&folder, &id("x"), &record("x")).unwrap();
        save(&folder, &id("x"), &record("x")).unwrap();
        assert_eq!(load(&folder, &id("x")).unwrap().unwrap(), record("x"));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing beside it");
        // As a kill leaves it.
        std::fs::copy(folder.join("x.json"), folder.join(".x.tmp")).unwrap();
        assert_eq!(ids(&folder).unwrap(), ["x"]);
        save(&folder, &id("x"), &record("y")).unwrap();
        assert_eq!(load(&folder, &id("x")).unwrap().unwrap(), record("y"));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "the old one is taken over");
        std::fs::copy(folder.join("x.json"), folder.join(".x.tmp")).unwrap();
        remove(&folder, &id("x"));
        assert!(load(&folder, &id("x")).unwrap().is_none());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        File::create(folder.join("x.json")).unwrap();
        assert!(matches!(load(&folder, &id("x")), Err(Error::Parse { .. })));
    }

    #[test]
    fn only_so_many_are_kept_the_newest() {
        let base = tempfile::tempdir().unwrap();
        for number in 0..KEPT + 5 {
            save(base.path(), &id(&format!("c{number}")), &record("c")).unwrap();
        }
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), KEPT);
        assert!(load(base.path(), &id(&format!("c{}", KEPT + 4))).unwrap().is_some());
        assert!(load(base.path(), &id("c0")).unwrap().is_none());
    }
}
