//! `<root>/<id>/state.json` and its lock. The lock is an flock(2) on the folder itself: it goes with
//! the process, is shared with the proxy and the guard that a verb starts, and leaves no file behind.

use crate::host::atomic_file::{self, PREPARED};
use crate::host::{listing, operator, process};
use crate::model::container_id::ContainerId;
use crate::model::lifecycle::Status;
use crate::model::state::{Parsed, ProxyIs, State};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILE: &str = "state.json";
/// How often a folder may vanish between two steps before something is wrong.
const ATTEMPTS: usize = 100;
/// How long what a dead command has started may take to end.
const DEATH_LIMIT: Duration = Duration::from_secs(2);
const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folder that holds one folder a container. Engines give it to several runtimes.
pub(crate) struct StateRoot {
    path: PathBuf,
}

/// A container's folder, locked.
pub(crate) struct Held {
    folder: OwnedFd,
    path: PathBuf,
}

/// What is known of a container.
#[derive(Debug)]
pub(crate) enum Loaded {
    Ours(Box<State>),
    /// None, or another runtime's.
    Unknown,
    /// It is ours and cannot be read.
    Damaged {
        path: PathBuf,
        why: String,
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
    #[error("the state folder {path:?} changes all the time")]
    Restless { path: PathBuf },
}

impl StateRoot {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
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
            let made = match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o711)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(Errno::NOENT) => {
                    self.make_root()?;
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
                Ok(Locked::Unknown) => {}
                Err(error) => {
                    if made {
                        let _ = rustix::fs::rmdir(&path);
                    }
                    return Err(error);
                }
            }
        }
        Err(Error::Restless { path })
    }

    fn is_at_work(&self, id: &ContainerId) -> Result<bool, Error> {
        let path = self.folder(id);
        operator::is_at_work(id.as_str(), &path).map_err(|source| Error::Lock { path, source })
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
            let folder = match rustix::fs::open(&path, FOLDER, Mode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
                    return Ok(Locked::Unknown);
                }
                Err(error) => return Err(Error::Open { path, source: error.into() }),
            };
            match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let held = Held { folder, path: path.clone() };
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
    /// The file is there and cannot be read.
    pub(crate) fn load(&self, id: &ContainerId) -> Result<Loaded, Error> {
        let path = self.folder(id);
        match rustix::fs::open(&path, FOLDER, Mode::empty()) {
            Ok(folder) => load(folder.as_fd(), &path),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
                Ok(Loaded::Unknown)
            }
            Err(error) => Err(Error::Open { path, source: error.into() }),
        }
    }

    /// The ids under the root, sorted; another runtime's containers among them.
    ///
    /// # Errors
    /// The root is there and cannot be listed.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        let failed = |error: Errno| Error::List { path: self.path.clone(), source: error.into() };
        let folder = match rustix::fs::open(&self.path, FOLDER, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
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
        match rustix::fs::lstat(&self.path) {
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
        load(self.folder.as_fd(), &self.path)
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
        match rustix::fs::rmdir(&self.path) {
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
    let loaded = held.load().inspect_err(|_| {
        // While it is locked, so that it is taken from nobody.
        if made {
            let _ = rustix::fs::rmdir(&held.path);
        }
    })?;
    match loaded {
        Loaded::Unknown if made || held.is_empty()? => Ok((held, None)),
        Loaded::Ours(state) if state.phase.is_way_out() || held.died_in_create(&state)? => {
            Ok((held, Some(state)))
        }
        Loaded::Unknown | Loaded::Ours(_) | Loaded::Damaged { .. } => {
            Err(exists(id, held.path.clone()))
        }
    }
}

fn load(folder: BorrowedFd<'_>, path: &Path) -> Result<Loaded, Error> {
    let path = path.join(FILE);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Loaded::Unknown),
        Err(error) => return Err(Error::Read { path, source: error.into() }),
    };
    let mut bytes = Vec::new();
    let read = File::from(file).read_to_end(&mut bytes);
    read.map_err(|source| Error::Read { path: path.clone(), source })?;
    Ok(match State::parse(&bytes) {
        Parsed::Ours(state) => Loaded::Ours(state),
        Parsed::Foreign => Loaded::Unknown,
        Parsed::Damaged { why } => Loaded::Damaged { path, why },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lifecycle::Phase;

    fn created(id: &str) -> State {
        State { id: id.to_owned(), ..crate::model::state::tests::created() }
    }

    fn root() -> (tempfile::TempDir, StateRoot, ContainerId) {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::new(folder.path().join("a/b"));
        (folder, root, ContainerId::parse("x").unwrap())
    }

    #[test]
    fn one_container_has_an_id_and_it_is_free_again_afterwards() {
        let (_folder, root, id) = root();
        let (held, left) = root.reserve(&id).unwrap();
        assert!(left.is_none());
        assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })), "locked");
        held.save(&created("x")).unwrap();
        drop(held);
        assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })), "created");
        let Locked::Held(held) = root.lock(&id, Duration::ZERO).unwrap() else { panic!() };
        held.remove().unwrap();
        assert!(matches!(root.load(&id).unwrap(), Loaded::Unknown));
        assert!(root.reserve(&id).is_ok());
    }

    #[test]
    fn what_a_dead_create_left_is_taken_over_and_what_another_runtime_keeps_is_not() {
        let (_folder, root, id) = root();
        let (held, _) = root.reserve(&id).unwrap();
        drop(held);
        let (held, _) = root.reserve(&id).expect("an empty folder");
        held.save(&State { status: Status::Creating, ..created("x") }).unwrap();
        drop(held);
        let (held, left) = root.reserve(&id).expect("a dead create");
        assert_eq!(left.unwrap().status, Status::Creating);
        held.save(&State { phase: Phase::Deleting, ..created("x") }).unwrap();
        drop(held);
        let (held, _) = root.reserve(&id).expect("an interrupted delete");
        held.save(&State { phase: Phase::Completing, pid: i32::MAX, ..created("x") }).unwrap();
        drop(held);
        let (held, _) =
            root.reserve(&id).expect("a create that died with its proxy at the very end");
        let path = held.path.join(FILE);
        drop(held);
        let mut file = File::create(&path).unwrap();
        io::Write::write_all(&mut file, br#"{"id":"x","init_process_pid":1}"#).unwrap();
        assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })));
        assert!(matches!(root.load(&id).unwrap(), Loaded::Unknown));
        file.set_len(9).unwrap();
        assert!(matches!(root.load(&id).unwrap(), Loaded::Damaged { .. }));
        assert!(matches!(root.reserve(&id), Err(Error::Exists { .. })));
    }

    #[test]
    fn of_many_that_reserve_one_id_at_once_one_wins() {
        let (_folder, root, id) = root();
        for _ in 0..50 {
            let barrier = std::sync::Barrier::new(8);
            let winners: usize = std::thread::scope(|scope| {
                let tries: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            let reserved = root.reserve(&id);
                            if let Ok((held, _)) = &reserved {
                                held.save(&created("x")).unwrap();
                            }
                            usize::from(reserved.is_ok())
                        })
                    })
                    .collect();
                tries.into_iter().map(|handle| handle.join().unwrap()).sum()
            });
            assert_eq!(winners, 1);
            let Locked::Held(held) = root.lock(&id, Duration::ZERO).unwrap() else { panic!() };
            held.remove().unwrap();
        }
    }
}
