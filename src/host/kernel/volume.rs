//! Fills the volume of an image's kernel with a copy of the image's `/boot`. The initramfs boots from the volume, and
//! sees it before any engine runs.
//!
//! A marker says that a copy is not finished. It is durable before the first file is copied, and removed after the last
//! one is durable, so a power cut at any point leaves a volume that the next call empties and fills again.

use crate::host::os::directory::{self, open_beneath};
use crate::host::os::flock::try_lock;
use crate::host::os::sparse_copy::{self, Copied};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the marker, at the top of the volume.
pub(crate) const MARKER: &str = ".fabricating";
/// What a copy may need besides the content of the files, in bytes.
const SPARE: u64 = 1024 * 1024;
/// The unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;
const PAUSE: Duration = Duration::from_millis(50);

/// A volume to fill.
pub(crate) struct Fill<'a> {
    /// The image's `/boot`.
    pub(crate) boot: BorrowedFd<'a>,
    /// The directory of the volume's content.
    pub(crate) volume: BorrowedFd<'a>,
    /// Its path, for messages.
    pub(crate) path: &'a Path,
    /// Asked before each file.
    pub(crate) is_interrupted: &'a dyn Fn() -> bool,
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The volume was filled, without these special files.
    Now { skipped: Vec<PathBuf> },
    /// An earlier call has filled it.
    Before,
}

/// Why a volume was not filled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the image has /boot/{MARKER}, a name that marks a volume whose copy is not finished")]
    ShipsMarker,
    #[error("cannot read {path:?} in /boot of the image")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot lock the volume {path:?}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot read the volume {path:?}")]
    Look { path: PathBuf, source: io::Error },
    #[error(
        "the filesystem of the volume {path:?} has {free} bytes left, but the copy of the image's /boot needs {needed}"
    )]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    #[error("cannot write the marker {MARKER} in the volume {path:?}")]
    Mark { path: PathBuf, source: io::Error },
    #[error("cannot empty the volume {path:?}, which an interrupted call has left half filled")]
    Wipe { path: PathBuf, source: io::Error },
    #[error("cannot copy {path:?} from /boot of the image to the volume {volume:?}")]
    Copy { path: PathBuf, volume: PathBuf, source: io::Error },
    #[error("cannot remove the marker {MARKER} from the volume {path:?}")]
    Unmark { path: PathBuf, source: io::Error },
    #[error("interrupted while the volume {path:?} was filled")]
    Interrupted { path: PathBuf },
}

/// Whether a call has begun to fill the volume and not finished.
pub(crate) fn is_unfinished(volume: BorrowedFd<'_>) -> io::Result<bool> {
    has_marker(volume).map_err(io::Error::from)
}

impl Fill<'_> {
    /// Fills the volume, unless an earlier call has done so. The lock on the volume's directory keeps others out.
    ///
    /// # Errors
    /// The volume is as it was, or has the marker.
    pub(crate) fn run(&self) -> Result<Filled, Error> {
        let top = Path::new(".");
        if has_marker(self.boot).map_err(|error| reading(top, error))? {
            return Err(Error::ShipsMarker);
        }
        self.lock()?;
        let looking = |error: Errno| Error::Look { path: self.path(), source: error.into() };
        let names = directory::names(self.open(self.volume, top).map_err(looking)?);
        if has_marker(self.volume).map_err(looking)? {
            let wiped = wipe(self.volume);
            wiped.map_err(|error| Error::Wipe { path: self.path(), source: error.into() })?;
        } else if !names.map_err(looking)?.is_empty() {
            return Ok(Filled::Before);
        }
        self.check_room()?;
        self.mark().map_err(|error| Error::Mark { path: self.path(), source: error.into() })?;
        let skipped = self.copy()?;
        let unmarked = rustix::fs::unlinkat(self.volume, MARKER, AtFlags::empty())
            .and_then(|()| rustix::fs::fsync(self.volume));
        unmarked.map_err(|error| Error::Unmark { path: self.path(), source: error.into() })?;
        Ok(Filled::Now { skipped })
    }

    fn path(&self) -> PathBuf {
        self.path.to_owned()
    }

    fn go_on(&self) -> Result<(), Error> {
        match (self.is_interrupted)() {
            true => Err(Error::Interrupted { path: self.path() }),
            false => Ok(()),
        }
    }

    fn lock(&self) -> Result<(), Error> {
        let operation = FlockOperation::NonBlockingLockExclusive;
        let failed = |source| Error::Lock { path: self.path(), source };
        while !try_lock(self.volume, operation).map_err(failed)? {
            self.go_on()?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn open(&self, top: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
        open_beneath(top, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    }

    /// Fails if the filesystem has no room for the copy.
    fn check_room(&self) -> Result<(), Error> {
        let mut needed = SPARE;
        let mut left = vec![PathBuf::from(".")];
        while let Some(path) = left.pop() {
            self.go_on()?;
            let failed = |error| reading(&path, error);
            let folder = self.open(self.boot, &path).map_err(failed)?;
            for name in directory::names(&folder).map_err(failed)? {
                let below = path.join(as_path(&name));
                let stat = look(folder.as_fd(), &name).map_err(|error| reading(&below, error))?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                if matches!(kind, FileType::RegularFile | FileType::Directory) {
                    let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
                    needed = needed.saturating_add(blocks.saturating_mul(BLOCK));
                }
                if kind == FileType::Directory {
                    left.push(below);
                }
            }
        }
        let looking = |error: Errno| Error::Look { path: self.path(), source: error.into() };
        let stat = rustix::fs::fstatvfs(self.volume).map_err(looking)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        match free < needed {
            true => Err(Error::NoRoom { path: self.path(), needed, free }),
            false => Ok(()),
        }
    }

    /// Makes the marker, durably. One that is there may not be durable yet.
    fn mark(&self) -> rustix::io::Result<()> {
        // What stands there may be a FIFO, whose reader would be waited for.
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let marker = rustix::fs::openat(self.volume, MARKER, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fsync(marker)?;
        rustix::fs::fsync(self.volume)
    }

    /// Copies the tree, directory by directory, and returns what is neither a file, a directory nor a link. Each
    /// directory is opened by its path, so that no tree is too deep.
    fn copy(&self) -> Result<Vec<PathBuf>, Error> {
        let (mut left, mut skipped) = (vec![PathBuf::from(".")], Vec::new());
        while let Some(path) = left.pop() {
            let from = self.open(self.boot, &path).map_err(|error| reading(&path, error))?;
            let writing = |source| self.copying(&path, source);
            let to = self.open(self.volume, &path).map_err(|error| writing(error.into()))?;
            let mut names = directory::names(&from).map_err(|error| reading(&path, error))?;
            names.sort();
            for name in names {
                self.go_on()?;
                let below = path.join(as_path(&name));
                match self.copy_one(from.as_fd(), to.as_fd(), &name) {
                    Ok(One::Copied) => {}
                    Ok(One::Directory) => left.push(below),
                    Ok(One::Skipped) => skipped.push(shown(&below)),
                    Ok(One::Interrupted) => return Err(Error::Interrupted { path: self.path() }),
                    Err(source) => return Err(self.copying(&below, source)),
                }
            }
            // Not before its content is there: the mode may forbid to write. The volume's own mode is the engine's.
            if path != Path::new(".") {
                let mode = rustix::fs::fstat(&from).map(|stat| mode(&stat));
                let kept = mode.and_then(|mode| rustix::fs::fchmod(&to, mode));
                kept.map_err(|error| writing(error.into()))?;
            }
            rustix::fs::fsync(&to).map_err(|error| writing(error.into()))?;
        }
        Ok(skipped)
    }

    fn copying(&self, path: &Path, source: io::Error) -> Error {
        Error::Copy { path: shown(path), volume: self.path(), source }
    }

    fn copy_one(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<One> {
        let kind = FileType::from_raw_mode(look(from, name)?.st_mode);
        match kind {
            FileType::RegularFile => self.copy_file(from, to, name),
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                Ok(One::Directory)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                Ok(One::Copied)
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Ok(One::Skipped),
        }
    }

    fn copy_file(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<One> {
        // It may be another kind of file by now.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let from = rustix::fs::openat(from, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(One::Skipped);
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        match sparse_copy::copy(from.as_fd(), to.as_fd(), self.is_interrupted)? {
            Copied::InPart => return Ok(One::Interrupted),
            Copied::Whole => {}
        }
        rustix::fs::fchmod(&to, mode(&stat))?;
        rustix::fs::fsync(&to)?;
        Ok(One::Copied)
    }
}

/// How the copy of one entry ended.
enum One {
    Copied,
    /// Made, and to be filled.
    Directory,
    Skipped,
    Interrupted,
}

fn has_marker(folder: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match rustix::fs::statat(folder, MARKER, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes everything in the volume except the marker.
fn wipe(volume: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let top = Path::new(".");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    // Each directory comes after its parent.
    let mut directories = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = directories.get(next).cloned() {
        next += 1;
        let folder = open_beneath(volume, &path, flags)?;
        for name in directory::names(&folder)? {
            if path == top && name.to_bytes() == MARKER.as_bytes() {
                continue;
            }
            match rustix::fs::unlinkat(&folder, &name, AtFlags::empty()) {
                Err(Errno::ISDIR) => directories.push(path.join(as_path(&name))),
                removed => removed?,
            }
        }
    }
    for path in directories.iter().skip(1).rev() {
        rustix::fs::unlinkat(volume, path, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn look(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Stat> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn as_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

fn reading(path: &Path, error: Errno) -> Error {
    Error::Read { path: shown(path), source: error.into() }
}

/// A path below `/boot` without the `.` that it begins with.
fn shown(path: &Path) -> PathBuf {
    let below = path.strip_prefix(".").unwrap_or(path);
    if below.as_os_str().is_empty() { PathBuf::from(".") } else { below.to_owned() }
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        ShipsMarker, Read { path, source }, Lock { path, source }, Look { path, source },
        NoRoom { path, needed, free }, Mark { path, source }, Wipe { path, source },
        Copy { path, volume, source }, Unmark { path, source }, Interrupted { path },
    }
}
