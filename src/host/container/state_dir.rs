//! `<root>/<id>/state.json` and its lock. The lock is an flock(2) on the directory itself: it ends with
//! the processes that share it (a verb, its proxy and its guard) and leaves no file behind.

use crate::host::container::lock_holder;
use crate::host::os::atomic_file::{self, PREPARED};
use crate::host::os::directory;
use crate::host::os::flock;
use crate::host::os::read::read_limited;
use crate::host::os::trusted;
use crate::model::container::id::ContainerId;
use crate::model::container::proxy::Identity;
use crate::model::container::state::{Parsed, State};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const FILE: &str = "state.json";
/// The largest state that is read: that of a config.json of 16 MiB, whose parts it repeats.
const MAX_LEN: u64 = 64 * 1024 * 1024;
/// How many times a directory may disappear between two steps before something is wrong.
const ATTEMPTS: usize = 100;
/// How long the processes that a dead command started may take to end.
const DEATH_LIMIT: Duration = Duration::from_secs(2);
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory that holds one directory per container. Engines share it between several runtimes. It is used
/// only if nobody but root and this user can change it or replace it.
pub(crate) struct StateRoot {
    path: PathBuf,
    /// Opened and checked when it is first needed.
    directory: Mutex<Option<Arc<OwnedFd>>>,
}

/// A container's directory, locked.
pub(crate) struct LockedContainer {
    root: Arc<OwnedFd>,
    id: ContainerId,
    directory: OwnedFd,
    path: PathBuf,
    origin: DirectoryOrigin,
}

/// Whether the directory was there before it was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectoryOrigin {
    Found,
    /// This call made it, so it is empty.
    Made,
}

/// The state of a container, as far as it can be read.
#[derive(Debug)]
pub(crate) enum Loaded {
    Ours(Box<State>),
    /// There is no state, or it is another runtime's.
    Unknown,
    /// It is ours and cannot be read, except perhaps for the proxy.
    Damaged {
        path: PathBuf,
        why: String,
        proxy: Option<Identity>,
    },
}

/// Whether the lock was taken in time.
pub(crate) enum Locking {
    Locked(LockedContainer),
    Busy,
    Unknown,
}

/// A failure around the state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "cannot create the state directory {path:?} (is the state root writable, and the right one? --root names it)"
    )]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot open the state directory {path:?}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot lock the state directory {path:?}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove the state directory {path:?}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot list the state root {path:?}")]
    List { path: PathBuf, source: io::Error },
    #[error("container with given ID already exists: {id} ({path:?}); delete it first")]
    Exists { id: String, path: PathBuf },
    #[error("container with given ID already exists: {id}")]
    Taken { id: String, source: Box<Error> },
    #[error("the state directory {path:?} keeps changing")]
    Restless { path: PathBuf },
    #[error("cannot create the state directory {path:?}: the name is taken by something else")]
    NotADirectory { path: PathBuf },
    #[error("cannot use the state root {path:?} (--root names another)")]
    Root { path: PathBuf, source: trusted::Error },
    #[error("the state of container {id} is not trusted, and nothing was done")]
    Distrusted { id: String, source: trusted::Error },
    #[error("the state {path:?} belongs to container {found:?}, not to {id}; nothing was done")]
    OtherId { id: String, found: String, path: PathBuf },
    #[error(
        "cannot determine which runtime {path:?} belongs to: {why}; nothing was removed (if no runtime \
         needs its directory, remove that)"
    )]
    Unidentified { path: PathBuf, why: String },
}

impl Error {
    /// Whether the container, if there is one, may not be the caller's.
    pub(crate) fn is_of_another(&self) -> bool {
        matches!(
            self,
            Self::Exists { .. }
                | Self::Taken { .. }
                | Self::NotADirectory { .. }
                | Self::Root { .. }
                | Self::Distrusted { .. }
                | Self::OtherId { .. }
                | Self::Unidentified { .. }
        )
    }
}

impl StateRoot {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, directory: Mutex::default() }
    }

    /// Checks that the root may be used. One that does not exist yet may.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.open().map(drop)
    }

    fn open(&self) -> Result<Option<Arc<OwnedFd>>, Error> {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        if directory.is_none() {
            let opened = trusted::open_directory(&self.path);
            let failed = |source| Error::Root { path: self.path.clone(), source };
            *directory = opened.map_err(failed)?.map(Arc::new);
        }
        Ok(directory.clone())
    }

    fn close(&self) {
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Opens the directory of a container, which only this user may be able to change. `None` if there is none.
    fn open_container(&self, id: &ContainerId) -> Result<Option<(Arc<OwnedFd>, OwnedFd)>, Error> {
        let path = self.path_of(id);
        let Some(root) = self.open()? else { return Ok(None) };
        match rustix::fs::openat(&root, id.as_str(), DIRECTORY, Mode::empty()) {
            Ok(directory) => {
                trusted::check_own(&directory, &path)
                    .map_err(|source| Error::Distrusted { id: id.to_string(), source })?;
                Ok(Some((root, directory)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(Error::Open { path, source: error.into() }),
        }
    }

    /// The path of a container's directory.
    pub(crate) fn path_of(&self, id: &ContainerId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// Makes the directory of a new container and locks it, or locks the one that is there and that no command
    /// works on. Of several callers one gets the lock; whether it may have the id is for the caller to decide. After
    /// an error nothing has changed.
    pub(crate) fn lock_or_make(&self, id: &ContainerId) -> Result<LockedContainer, Error> {
        let path = self.path_of(id);
        for _ in 0..ATTEMPTS {
            let Some(root) = self.open()? else {
                directory::make(&self.path, 0o711)
                    .map_err(|source| Error::Create { path: self.path.clone(), source })?;
                continue;
            };
            let origin = match rustix::fs::mkdirat(&root, id.as_str(), Mode::from_raw_mode(0o711)) {
                Ok(()) => DirectoryOrigin::Made,
                Err(Errno::EXIST) => DirectoryOrigin::Found,
                // The root has been removed.
                Err(Errno::NOENT) => {
                    self.close();
                    continue;
                }
                Err(error) => return Err(Error::Create { path, source: error.into() }),
            };
            // Even if this call made it, another caller may have locked it since, or created its container in it.
            let locking = match self.lock(id, Duration::ZERO) {
                Ok(Locking::Busy) if self.is_at_work(id)? => return Err(exists(id, path)),
                // The command that took the lock has died. Its proxy or guard shares the lock, and is about to exit.
                Ok(Locking::Busy) => self.lock(id, DEATH_LIMIT)?,
                Ok(settled) => settled,
                Err(error) => {
                    if origin == DirectoryOrigin::Made {
                        let _ = rustix::fs::unlinkat(&root, id.as_str(), AtFlags::REMOVEDIR);
                    }
                    return Err(error);
                }
            };
            match locking {
                Locking::Locked(mut locked) => {
                    locked.origin = origin;
                    return Ok(locked);
                }
                Locking::Busy => return Err(exists(id, path)),
                Locking::Unknown if self.is_not_a_directory(&root, id) => {
                    return Err(Error::NotADirectory { path });
                }
                Locking::Unknown => {}
            }
        }
        Err(Error::Restless { path })
    }

    /// Whether a file or a link has the name of a container's directory.
    fn is_not_a_directory(&self, root: &OwnedFd, id: &ContainerId) -> bool {
        rustix::fs::statat(root, id.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory)
    }

    fn is_at_work(&self, id: &ContainerId) -> Result<bool, Error> {
        let path = self.path_of(id);
        lock_holder::is_at_work(id.as_str(), &path).map_err(|source| Error::Lock { path, source })
    }

    /// Locks the directory of a container, waiting for at most `patience`.
    pub(crate) fn lock(&self, id: &ContainerId, patience: Duration) -> Result<Locking, Error> {
        let path = self.path_of(id);
        let failed = |source| Error::Lock { path: path.clone(), source };
        let deadline = Instant::now() + patience;
        loop {
            let Some((root, directory)) = self.open_container(id)? else {
                return Ok(Locking::Unknown);
            };
            let exclusive = FlockOperation::NonBlockingLockExclusive;
            if !flock::lock_until(&directory, exclusive, deadline).map_err(failed)? {
                return Ok(Locking::Busy);
            }
            let (id, path, origin) = (id.clone(), path.clone(), DirectoryOrigin::Found);
            let locked = LockedContainer { root, id, directory, path, origin };
            if locked.is_in_place()? {
                return Ok(Locking::Locked(locked));
            }
            // The container was deleted, and perhaps created again, between open and lock.
        }
    }

    /// Reads the state without the lock: a reader sees the old state or the new one, always whole.
    pub(crate) fn load(&self, id: &ContainerId) -> Result<Loaded, Error> {
        match self.open_container(id)? {
            Some((_, directory)) => load(directory.as_fd(), id, &self.path_of(id)),
            None => Ok(Loaded::Unknown),
        }
    }

    /// Whether there is a directory for a container, with or without a state.
    pub(crate) fn has_directory(&self, id: &ContainerId) -> Result<bool, Error> {
        Ok(self.open_container(id)?.is_some())
    }

    /// The ids under the root, sorted. Another runtime's containers are among them.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        let failed = |error: Errno| Error::List { path: self.path.clone(), source: error.into() };
        let Some(root) = self.open()? else { return Ok(Vec::new()) };
        let directory = rustix::fs::openat(&root, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut ids = Vec::new();
        for name in directory::names(directory.as_fd()).map_err(failed)? {
            ids.extend(name.to_str().ok().and_then(|name| ContainerId::parse(name).ok()));
        }
        ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(ids)
    }
}

impl LockedContainer {
    /// The lock, to share with a child.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Whether the path still leads to this directory.
    fn is_in_place(&self) -> Result<bool, Error> {
        let failed = |error: Errno| Error::Open { path: self.path.clone(), source: error.into() };
        let own = rustix::fs::fstat(&self.directory).map_err(failed)?;
        if own.st_nlink == 0 {
            return Ok(false);
        }
        match rustix::fs::statat(&self.root, self.id.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether the directory holds nothing, or only what a `create` that died at its very beginning leaves.
    pub(crate) fn is_empty(&self) -> Result<bool, Error> {
        if self.origin == DirectoryOrigin::Made {
            return Ok(true);
        }
        let failed = |error: Errno| Error::List { path: self.path.clone(), source: error.into() };
        let names = directory::names(self.directory.as_fd()).map_err(failed)?;
        Ok(names.iter().all(|name| name.to_bytes() == PREPARED.as_bytes()))
    }

    /// The error of a `create` whose id is taken.
    pub(crate) fn taken(&self) -> Error {
        exists(&self.id, self.path.clone())
    }

    /// Reads the state.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        load(self.directory.as_fd(), &self.id, &self.path)
    }

    /// Reads the state for a `create`. A directory that [`StateRoot::lock_or_make`] made is
    /// removed if that fails.
    pub(crate) fn load_for_create(&self) -> Result<Loaded, Error> {
        self.load().map_err(|error| {
            if self.origin == DirectoryOrigin::Made {
                // While it is locked, so that no other call uses it.
                let _ = rustix::fs::unlinkat(&self.root, self.id.as_str(), AtFlags::REMOVEDIR);
            }
            if matches!(error, Error::OtherId { .. } | Error::Unidentified { .. }) {
                return Error::Taken { id: self.id.to_string(), source: Box::new(error) };
            }
            error
        })
    }

    /// Replaces the state, atomically and durably. After an error the state is as it was.
    pub(crate) fn save(&self, state: &State) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.path.join(FILE), source };
        let bytes = state.to_bytes().map_err(|error| failed(io::Error::other(error)))?;
        atomic_file::replace(self.directory.as_fd(), FILE, &bytes).map_err(failed)
    }

    /// Removes the state and the directory. A directory without a state belongs to no container, so a crash in between
    /// leaves none.
    ///
    /// # Errors
    /// The state may be removed already while its directory is still there.
    pub(crate) fn remove(self) -> Result<(), Error> {
        let failed = |error: Errno| Error::Remove { path: self.path.clone(), source: error.into() };
        for name in [PREPARED, FILE] {
            match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        match rustix::fs::unlinkat(&self.root, self.id.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for LockedContainer {
    /// Unlocks at once, even if a child still has the descriptor open.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
    }
}

fn exists(id: &ContainerId, path: PathBuf) -> Error {
    Error::Exists { id: id.to_string(), path }
}

fn load(directory: BorrowedFd<'_>, id: &ContainerId, parent: &Path) -> Result<Loaded, Error> {
    let path = parent.join(FILE);
    let unidentified = |why: &str| Error::Unidentified { path: path.clone(), why: why.to_owned() };
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Loaded::Unknown),
        Err(Errno::LOOP) => return Err(unidentified("it is a link")),
        Err(Errno::NXIO | Errno::NODEV) => return Err(unidentified("it is not a regular file")),
        Err(error) => return Err(Error::Read { path, source: error.into() }),
    };
    let stat = trusted::check_own(&file, &path)
        .map_err(|source| Error::Distrusted { id: id.to_string(), source })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(unidentified("it is not a regular file"));
    }
    let len = u64::try_from(stat.st_size).unwrap_or_default();
    let bytes = match read_limited(&File::from(file), len, MAX_LEN) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(unidentified(&error.to_string()));
        }
        Err(source) => return Err(Error::Read { path, source }),
    };
    match State::parse(&bytes) {
        Parsed::Ours(state) if state.id != id.as_str() => {
            Err(Error::OtherId { id: id.to_string(), found: state.id, path })
        }
        Parsed::Ours(state) => Ok(Loaded::Ours(state)),
        Parsed::Foreign => Ok(Loaded::Unknown),
        Parsed::Damaged { why, proxy } => Ok(Loaded::Damaged { path, why, proxy }),
        Parsed::Unidentified { why } => {
            Err(unidentified(&format!("it is neither JSON nor recognizable as a state ({why})")))
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Create { path, source }, Open { path, source }, Lock { path, source }, Read { path, source },
        Write { path, source }, Remove { path, source }, List { path, source }, Restless { path },
        Exists { id, path }, Taken { id, source }, NotADirectory { path }, Root { path, source },
        Distrusted { id, source }, OtherId { id, found, path }, Unidentified { path, why },
    }
}
