//! `<root>/<id>/state.json` and its lock. The lock is an flock(2) on the folder itself: it goes with
//! the process, is shared with the proxy and the guard that a verb starts, and leaves no file behind.

use crate::host::container::lock_holder;
use crate::host::os::atomic_file::{self, PREPARED};
use crate::host::os::listing;
use crate::host::os::process;
use crate::host::os::trusted;
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::Status;
use crate::model::container::proxy::Identity;
use crate::model::container::state::{Parsed, ProxyIs, State};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const FILE: &str = "state.json";
/// The largest state that is read: that of a config.json of 16 MiB, whose parts it repeats.
const MAX_LEN: u64 = 64 * 1024 * 1024;
/// How often a folder may vanish between two steps before something is wrong.
const ATTEMPTS: usize = 100;
/// How long what a dead command has started may take to end.
const DEATH_LIMIT: Duration = Duration::from_secs(2);
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folder that holds one folder a container. Engines give it to several runtimes. It is used only if nobody
/// but root and this user can change it or put something else in its place.
pub(crate) struct StateRoot {
    path: PathBuf,
    /// Opened and checked when it is first needed.
    folder: Mutex<Option<Arc<OwnedFd>>>,
}

/// A container's folder, locked.
pub(crate) struct Held {
    root: Arc<OwnedFd>,
    id: ContainerId,
    folder: OwnedFd,
    path: PathBuf,
}

/// What is known of a container.
#[derive(Debug)]
pub(crate) enum Loaded {
    Ours(Box<State>),
    /// None, or another runtime's.
    Unknown,
    /// It is ours and cannot be read, but for the proxy perhaps.
    Damaged {
        path: PathBuf,
        why: String,
        proxy: Option<Identity>,
    },
}

/// Whether a lock was had in time.
pub(crate) enum Locked {
    Held(Held),
    Busy,
    Unknown,
}

/// A failure around the state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "create the state folder {path:?} (is the state root writable, and right? --root names it)"
    )]
    Create { path: PathBuf, source: io::Error },
    #[error("open the state folder {path:?}")]
    Open { path: PathBuf, source: io::Error },
    #[error("lock the state folder {path:?}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("remove the state folder {path:?}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("list the state root {path:?}")]
    List { path: PathBuf, source: io::Error },
    #[error("look for the proxy of the container in {path:?}")]
    Proxy { path: PathBuf, source: io::Error },
    #[error("container with given ID already exists: {id} ({path:?}); delete it first")]
    Exists { id: String, path: PathBuf },
    #[error("container with given ID already exists: {id}")]
    Taken { id: String, source: Box<Error> },
    #[error("the state folder {path:?} changes all the time")]
    Restless { path: PathBuf },
    #[error("cannot create the state folder {path:?}: the name is taken by something else")]
    InTheWay { path: PathBuf },
    #[error("cannot use the state root {path:?} (--root names another)")]
    Root { path: PathBuf, source: trusted::Error },
    #[error("the state of container {id} is not believed, and nothing was done")]
    Distrusted { id: String, source: trusted::Error },
    #[error("the state {path:?} is that of container {found:?}, not of {id}; nothing was done")]
    OtherId { id: String, found: String, path: PathBuf },
    #[error(
        "it cannot be told whose {path:?} is: {why}; nothing was removed (if no runtime needs its directory, remove that)"
    )]
    Unidentified { path: PathBuf, why: String },
}

impl Error {
    /// Whether the container, if it is one, may be somebody else's.
    pub(crate) fn is_of_another(&self) -> bool {
        match self {
            Self::Exists { .. }
            | Self::Taken { .. }
            | Self::InTheWay { .. }
            | Self::Root { .. }
            | Self::Distrusted { .. }
            | Self::OtherId { .. }
            | Self::Unidentified { .. } => true,
            Self::Create { .. }
            | Self::Open { .. }
            | Self::Lock { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Remove { .. }
            | Self::List { .. }
            | Self::Proxy { .. }
            | Self::Restless { .. } => false,
        }
    }
}

impl StateRoot {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, folder: Mutex::default() }
    }

    /// Checks that the root may be used; one that is not there yet may.
    ///
    /// # Errors
    /// Whose it is.
    pub(crate) fn check(&self) -> Result<(), trusted::Error> {
        self.open().map(drop)
    }

    fn open(&self) -> Result<Option<Arc<OwnedFd>>, trusted::Error> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if folder.is_none() {
            *folder = trusted::open_directory(&self.path)?.map(Arc::new);
        }
        Ok(folder.clone())
    }

    fn opened(&self) -> Result<Option<Arc<OwnedFd>>, Error> {
        self.open().map_err(|source| self.refused(source))
    }

    /// The error of a root that failed its check.
    pub(crate) fn refused(&self, source: trusted::Error) -> Error {
        Error::Root { path: self.path.clone(), source }
    }

    /// Opens the folder of a container, which must be this user's alone. `None` if there is none.
    fn open_folder(&self, id: &ContainerId) -> Result<Option<(Arc<OwnedFd>, OwnedFd)>, Error> {
        let path = self.folder(id);
        let Some(root) = self.opened()? else { return Ok(None) };
        match rustix::fs::openat(&root, id.as_str(), FOLDER, Mode::empty()) {
            Ok(folder) => {
                trusted::check_own(&folder, &path)
                    .map_err(|source| Error::Distrusted { id: id.to_string(), source })?;
                Ok(Some((root, folder)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(Error::Open { path, source: error.into() }),
        }
    }

    fn folder(&self, id: &ContainerId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// Makes the folder of a new container and locks it. One that a dead `create`, or an interrupted
    /// `delete`, left behind is taken over; its state is returned. Of several callers one wins.
    ///
    /// # Errors
    /// The id is taken, or the folder cannot be made; nothing has changed.
    pub(crate) fn reserve(&self, id: &ContainerId) -> Result<(Held, Option<Box<State>>), Error> {
        let path = self.folder(id);
        for _ in 0..ATTEMPTS {
            let Some(root) = self.opened()? else {
                self.make_root()?;
                continue;
            };
            let made = match rustix::fs::mkdirat(&root, id.as_str(), Mode::from_raw_mode(0o711)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                // The root has been removed.
                Err(Errno::NOENT) => {
                    self.forget();
                    continue;
                }
                Err(error) => return Err(Error::Create { path, source: error.into() }),
            };
            // Made here or found, it may be another caller's by now, or even its container.
            match self.lock(id, Duration::ZERO) {
                Ok(Locked::Held(held)) => return take_over(id, held, made),
                Ok(Locked::Busy) if self.is_at_work(id)? => return Err(exists(id, path)),
                // Whoever took the lock is dead; its proxy or guard is about to follow.
                Ok(Locked::Busy) => match self.lock(id, DEATH_LIMIT)? {
                    Locked::Held(held) => return take_over(id, held, made),
                    Locked::Busy => return Err(exists(id, path)),
                    Locked::Unknown => {}
                },
                Ok(Locked::Unknown) if self.has_no_folder_at(&root, id) => {
                    return Err(Error::InTheWay { path });
                }
                Ok(Locked::Unknown) => {}
                Err(error) => {
                    if made {
                        let _ = rustix::fs::unlinkat(&root, id.as_str(), AtFlags::REMOVEDIR);
                    }
                    return Err(error);
                }
            }
        }
        Err(Error::Restless { path })
    }

    /// Whether a file, or a link, has the name of a container's folder.
    fn has_no_folder_at(&self, root: &OwnedFd, id: &ContainerId) -> bool {
        rustix::fs::statat(root, id.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory)
    }

    fn forget(&self) {
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_at_work(&self, id: &ContainerId) -> Result<bool, Error> {
        let path = self.folder(id);
        lock_holder::is_at_work(id.as_str(), &path).map_err(|source| Error::Lock { path, source })
    }

    fn make_root(&self) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.path)
            .map_err(|source| Error::Create { path: self.path.clone(), source })
    }

    /// Locks the folder of a container, waiting for at most `patience`.
    ///
    /// # Errors
    /// The folder cannot be opened or locked.
    pub(crate) fn lock(&self, id: &ContainerId, patience: Duration) -> Result<Locked, Error> {
        let path = self.folder(id);
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(50);
        loop {
            let Some((root, folder)) = self.open_folder(id)? else { return Ok(Locked::Unknown) };
            match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let held = Held { root, id: id.clone(), folder, path: path.clone() };
                    if held.is_in_place()? {
                        return Ok(Locked::Held(held));
                    }
                    // It was deleted, and perhaps made anew, between open and lock.
                }
                Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => return Ok(Locked::Busy),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
                Err(error) => return Err(Error::Lock { path, source: error.into() }),
            }
        }
    }

    /// Reads the state without the lock: a reader sees the old or the new one, always whole.
    ///
    /// # Errors
    /// The file is there and cannot be read, or not believed.
    pub(crate) fn load(&self, id: &ContainerId) -> Result<Loaded, Error> {
        match self.open_folder(id)? {
            Some((_, folder)) => load(folder.as_fd(), id, &self.folder(id)),
            None => Ok(Loaded::Unknown),
        }
    }

    /// Whether there is a folder for a container, be it with or without a state.
    ///
    /// # Errors
    /// That cannot be seen, or the folder is not believed.
    pub(crate) fn has_folder(&self, id: &ContainerId) -> Result<bool, Error> {
        Ok(self.open_folder(id)?.is_some())
    }

    /// The ids under the root, sorted; another runtime's containers among them.
    ///
    /// # Errors
    /// The root is there and cannot be listed.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        let failed = |error: Errno| Error::List { path: self.path.clone(), source: error.into() };
        let Some(root) = self.opened()? else { return Ok(Vec::new()) };
        let folder = rustix::fs::openat(&root, ".", FOLDER, Mode::empty()).map_err(failed)?;
        let mut ids = Vec::new();
        for name in listing::names(folder.as_fd()).map_err(failed)? {
            ids.extend(name.to_str().ok().and_then(|name| ContainerId::parse(name).ok()));
        }
        ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(ids)
    }

    /// The folder of a container, for whoever looks for the holder of its lock.
    pub(crate) fn folder_path(&self, id: &ContainerId) -> PathBuf {
        self.folder(id)
    }
}

impl Held {
    /// The lock, to share with a child.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Whether the path still leads to this folder.
    fn is_in_place(&self) -> Result<bool, Error> {
        let failed = |error: Errno| Error::Open { path: self.path.clone(), source: error.into() };
        let own = rustix::fs::fstat(&self.folder).map_err(failed)?;
        if own.st_nlink == 0 {
            return Ok(false);
        }
        match rustix::fs::statat(&self.root, self.id.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether nothing but what a dead `create` may have left is in the folder.
    fn is_empty(&self) -> Result<bool, Error> {
        let failed = |error: Errno| Error::List { path: self.path.clone(), source: error.into() };
        let names = listing::names(self.folder.as_fd()).map_err(failed)?;
        Ok(names.iter().all(|name| name.to_bytes() == PREPARED.as_bytes()))
    }

    /// Whether the `create` of a container died before it was complete.
    fn died_in_create(&self, state: &State) -> Result<bool, Error> {
        if state.true_status(ProxyIs::Gone) != Status::Creating {
            return Ok(false);
        }
        let found = match state.proxy() {
            Some(identity) => process::find_proxy(&state.id, identity)
                .map_err(|source| Error::Proxy { path: self.path.clone(), source })?,
            None => None,
        };
        let proxy = if found.is_some() { ProxyIs::Alive } else { ProxyIs::Gone };
        Ok(state.true_status(proxy) == Status::Creating)
    }

    /// Reads the state.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        load(self.folder.as_fd(), &self.id, &self.path)
    }

    /// Replaces the state, atomically and durably.
    ///
    /// # Errors
    /// The state is as it was.
    pub(crate) fn save(&self, state: &State) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.path.join(FILE), source };
        let bytes = state.to_bytes().map_err(|error| failed(io::Error::other(error)))?;
        atomic_file::replace(self.folder.as_fd(), FILE, &bytes).map_err(failed)
    }

    /// Removes the state and the folder. A folder without a state is nobody's, so a crash in between
    /// leaves nothing that counts.
    ///
    /// # Errors
    /// The container may be forgotten already while its folder is still there.
    pub(crate) fn remove(self) -> Result<(), Error> {
        let failed = |error: Errno| Error::Remove { path: self.path.clone(), source: error.into() };
        for name in [PREPARED, FILE] {
            match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
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

impl Held {
    /// Removes a folder in which no container is recorded, unless it holds something else.
    ///
    /// # Errors
    /// The folder is still there.
    pub(crate) fn remove_if_empty(self) -> Result<(), Error> {
        if self.is_empty()? { self.remove() } else { Ok(()) }
    }
}

impl Drop for Held {
    /// Unlocks at once, also for a child that has not closed its share yet.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.folder, FlockOperation::Unlock);
    }
}

fn exists(id: &ContainerId, path: PathBuf) -> Error {
    Error::Exists { id: id.to_string(), path }
}

/// What nobody works on, and what is not a container any more or not one yet, may be had.
///
/// A folder that was `made` a moment ago has nobody's files in it.
fn take_over(
    id: &ContainerId,
    held: Held,
    made: bool,
) -> Result<(Held, Option<Box<State>>), Error> {
    let loaded = held.load().map_err(|error| {
        // While it is locked, so that it is taken from nobody.
        if made {
            let _ = rustix::fs::unlinkat(&held.root, held.id.as_str(), AtFlags::REMOVEDIR);
        }
        if matches!(error, Error::OtherId { .. } | Error::Unidentified { .. }) {
            return Error::Taken { id: id.to_string(), source: Box::new(error) };
        }
        error
    });
    match loaded? {
        Loaded::Unknown if made || held.is_empty()? => Ok((held, None)),
        Loaded::Ours(state) if state.phase.is_way_out() || held.died_in_create(&state)? => {
            Ok((held, Some(state)))
        }
        Loaded::Unknown | Loaded::Ours(_) | Loaded::Damaged { .. } => {
            Err(exists(id, held.path.clone()))
        }
    }
}

fn load(folder: BorrowedFd<'_>, id: &ContainerId, folder_path: &Path) -> Result<Loaded, Error> {
    let path = folder_path.join(FILE);
    let unidentified = |why: &str| Error::Unidentified { path: path.clone(), why: why.to_owned() };
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, FILE, flags, Mode::empty()) {
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
    let mut bytes = Vec::new();
    let read = File::from(file).take(MAX_LEN + 1).read_to_end(&mut bytes);
    let len = read.map_err(|source| Error::Read { path: path.clone(), source })?;
    if u64::try_from(len).unwrap_or(u64::MAX) > MAX_LEN {
        return Err(unidentified(&format!("it has more than {MAX_LEN} bytes")));
    }
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
#[path = "state_dir_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Create { path, source }, Open { path, source }, Lock { path, source }, Read { path, source },
        Write { path, source }, Remove { path, source }, List { path, source }, Restless { path },
        Proxy { path, source }, Exists { id, path }, Taken { id, source }, InTheWay { path },
        Root { path, source }, Distrusted { id, source }, OtherId { id, found, path }, Unidentified { path, why },
    }
}
