//! The records of deploys, one file per container, written by the runtime and read by the manager. They are in
//! `/run`, because their contents are void after a reboot. `model/container/deploy_record.rs` defines the contents.

use crate::host::os::atomic_file;
use crate::host::os::directory;
use crate::host::os::process;
use crate::host::os::read::read_bounded_from;
use crate::host::os::trusted;
use crate::model::container::deploy_record::DeployRecord;
use crate::model::container::id::ContainerId;
use crate::model::container::ownership::Distrust;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The directory of the records. Not a state root: each engine has its own, and the manager cannot find them.
pub(crate) const FOLDER: &str = "/run/balena-extension-runtime-deploys";
/// How many records are kept. A container that is created again after every failure must not fill the memory; but
/// without its record it is unknown whether the hooks of a container ran. A record without output takes a page.
const KEPT: usize = 512;
const RECORD: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A record that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the record {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot parse the record {path:?}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("{path:?} {why}, so nothing is read from it or written to it")]
    Distrusted { path: PathBuf, why: Distrust },
    #[error("cannot write a record into {folder:?}")]
    Write { folder: PathBuf, source: io::Error },
}

/// Reads the record of a container; `None` if there is none.
pub(crate) fn load(folder: &Path, id: &ContainerId) -> Result<Option<DeployRecord>, Error> {
    let path = folder.join(name(id));
    let failed = |error: Errno| Error::Read { path: path.clone(), source: error.into() };
    let Some(opened) = open(folder)? else { return Ok(None) };
    let flags = RECORD | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::openat(&opened, name(id), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    check(&file, &path)?;
    let bytes =
        read_bounded_from(&file).map_err(|source| Error::Read { path: path.clone(), source })?;
    DeployRecord::parse(&bytes).map(Some).map_err(|source| Error::Parse { path, source })
}

/// The ids of all containers that have a record, sorted.
pub(crate) fn ids(folder: &Path) -> Result<Vec<String>, Error> {
    let failed = |error: Errno| Error::Read { path: folder.to_owned(), source: error.into() };
    let mut ids = Vec::new();
    let Some(opened) = open(folder)? else { return Ok(ids) };
    for name in directory::names(&opened).map_err(failed)? {
        let id = name.to_str().ok().and_then(|name| name.strip_suffix(".json"));
        ids.extend(id.filter(|id| ContainerId::parse(id).is_ok()).map(str::to_owned));
    }
    ids.sort();
    Ok(ids)
}

/// Replaces the record of a container: a reader sees the old one or the new. Nothing is synced, since no
/// record outlives the boot.
pub(crate) fn save(folder: &Path, id: &ContainerId, record: &DeployRecord) -> Result<(), Error> {
    let failed = |source| Error::Write { folder: folder.to_owned(), source };
    let bytes = record.to_bytes().map_err(io::Error::other).map_err(failed)?;
    directory::make(folder, 0o700).map_err(failed)?;
    let Some(opened) = open(folder)? else { return Err(failed(Errno::NOENT.into())) };
    let folder = opened.as_fd();
    let is_new = rustix::fs::statat(folder, name(id), AtFlags::SYMLINK_NOFOLLOW).is_err();
    atomic_file::replace_unlocked(folder, &prepared(id), &name(id), &bytes).map_err(failed)?;
    // Listing hundreds of records takes longer than all else. A record that is replaced adds none.
    if is_new { prune(folder).map_err(failed) } else { Ok(()) }
}

/// Removes the record of a container, if there is one.
pub(crate) fn remove(folder: &Path, id: &ContainerId) {
    let Ok(Some(folder)) = open(folder) else { return };
    // A record that is left is replaced by the next one, or lost at reboot.
    for name in [name(id), prepared(id)] {
        let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
    }
}

fn name(id: &ContainerId) -> String {
    format!("{id}.json")
}

/// The name that a record has for an instant, before it replaces another.
fn prepared(id: &ContainerId) -> String {
    format!(".{id}.tmp")
}

/// Opens the directory of the records, which only root or this user may have made and may change. `None` if it is
/// missing.
fn open(folder: &Path) -> Result<Option<OwnedFd>, Error> {
    match rustix::fs::open(folder, RECORD | OFlags::DIRECTORY, Mode::empty()) {
        Ok(opened) => check(&opened, folder).map(|()| Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Error::Read { path: folder.to_owned(), source: error.into() }),
    }
}

fn check(file: impl AsFd, path: &Path) -> Result<(), Error> {
    let failed = |error: Errno| Error::Read { path: path.to_owned(), source: error.into() };
    let stat = rustix::fs::fstat(file).map_err(failed)?;
    let trusted = trusted::ownership(&stat).is_of_root_or(process::effective_user());
    trusted.map_err(|why| Error::Distrusted { path: path.to_owned(), why })
}

/// Removes the oldest records above the number that is kept.
fn prune(folder: BorrowedFd<'_>) -> io::Result<()> {
    let names = directory::names(folder)?;
    let Some(excess) = names.len().checked_sub(KEPT).filter(|&excess| excess > 0) else {
        return Ok(());
    };
    let age = |name: CString| {
        // A record that vanishes meanwhile was pruned by another call.
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
    use crate::model::container::deploy_record::RecordedCall;

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(text).unwrap()
    }

    fn record(text: &str) -> DeployRecord {
        let step = RecordedCall {
            verb: "create".to_owned(),
            time: String::new(),
            error: Some("no".to_owned()),
            refused: None,
            warnings: Vec::new(),
            hooks: Vec::new(),
        };
        DeployRecord::after(None, text, step)
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
    fn what_others_may_have_written_is_neither_believed_nor_written_to() {
        use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("deploys");
        let file = folder.join("x.json");
        save(&folder, &id("x"), &record("x")).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let distrusted = |path: &Path| {
            let loaded = load(&folder, &id("x"));
            assert!(
                matches!(&loaded, Err(Error::Distrusted { path: named, .. }) if named == path),
                "{loaded:?}"
            );
        };
        mode(&file, 0o666);
        distrusted(&file);
        mode(&file, 0o600);
        chown(&file, Some(65534), None).unwrap();
        distrusted(&file);
        for bad in [0o777, 0o1777, 0o770] {
            mode(&folder, bad);
            distrusted(&folder);
            assert!(save(&folder, &id("y"), &record("y")).is_err());
            remove(&folder, &id("x"));
        }
        mode(&folder, 0o700);
        chown(&folder, Some(65534), None).unwrap();
        assert!(ids(&folder).is_err());
        assert!(save(&folder, &id("y"), &record("y")).is_err());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let link = base.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(load(&link, &id("x")).is_err() && save(&link, &id("y"), &record("y")).is_err());
        chown(&folder, Some(0), None).unwrap();
        std::fs::remove_file(&file).unwrap();
        symlink("/etc/hostname", &file).unwrap();
        assert!(matches!(load(&folder, &id("x")), Err(Error::Read { .. })));
        std::fs::remove_file(&file).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &file, fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(matches!(load(&folder, &id("x")), Err(Error::Read { .. })));
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

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Read { path, source }, Parse { path, source }, Distrusted { path, why = Distrust::Names },
        Write { folder, source },
    }
}
