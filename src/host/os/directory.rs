//! Directories: a handle on one, the names in one, and opening a path that must not lead out of one.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an open is repeated. Of two tries the second is rarely disturbed as well, even by a process that does
/// nothing but rename.
const LIMIT: Duration = Duration::from_secs(2);
/// The next tries are made after a pause. Without it, on a machine whose processors are all busy, a process that renames
/// on another processor disturbs more than a thousand tries in a row; with it, some tens.
const IMMEDIATE_TRIES: u32 = 16;
const PAUSE: Duration = Duration::from_micros(100);

/// A handle (`O_PATH`) on the directory at `path`.
pub(crate) fn open(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path.as_ref(), flags, Mode::empty())
}

/// The path at which an open directory is, without links.
pub(crate) fn path_of(directory: impl AsFd) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()))
}

/// Makes a directory with this `mode`, and its parents; those that exist remain as they are.
pub(crate) fn make(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// The names in a directory except `.` and `..`, in no order. The reader of std panics if the directory cannot be
/// closed, which would end a verb in the middle of its work.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// The numbers among the names in a directory of `/proc`, in no order.
pub(crate) fn numbers(path: &str) -> Result<Vec<i32>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = names(rustix::fs::open(path, flags, Mode::empty())?)?;
    Ok(names.iter().filter_map(|name| name.to_str().ok()?.parse().ok()).collect())
}

/// Opens `path` as if the directory `root` were `/`, so that neither links nor `..` lead out of it.
pub(crate) fn open_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
) -> Result<OwnedFd> {
    resolve(root, path.as_ref(), flags, ResolveFlags::IN_ROOT)
}

/// Opens the directory `path` as if `root` were `/`, to list it; `None` if nothing is there.
///
/// # Errors
/// Something else is there, such as a link that leads nowhere.
pub(crate) fn open_if_there(root: impl AsFd, path: &str) -> std::io::Result<Option<OwnedFd>> {
    match open_in_root(&root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => match open_in_root(&root, path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(_) => Err(std::io::Error::other("it is a dangling link")),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        },
        Err(Errno::NOTDIR) => Err(std::io::Error::other("it names a file")),
        Err(error) => Err(error.into()),
    }
}

/// Opens `path` in the directory `base`. The error is EXDEV if the path leads out of it.
pub(crate) fn open_beneath(base: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    resolve(base, path, flags, ResolveFlags::BENEATH)
}

/// Calls openat2(2) again while it is disturbed: the kernel cannot resolve a `..` safely while anything on the machine
/// is renamed or mounted, and reports EAGAIN. That is the error if the path was disturbed for two seconds.
fn resolve(base: impl AsFd, path: &Path, flags: OFlags, inside: ResolveFlags) -> Result<OwnedFd> {
    let (flags, inside) = (flags | OFlags::CLOEXEC, inside | ResolveFlags::NO_MAGICLINKS);
    let mut first_failure = None;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(&base, path, flags, Mode::empty(), inside) {
            Err(Errno::AGAIN)
                if first_failure.get_or_insert_with(Instant::now).elapsed() < LIMIT =>
            {
                tries += 1;
                if tries >= IMMEDIATE_TRIES {
                    std::thread::sleep(PAUSE);
                }
            }
            result => return result,
        }
    }
}
