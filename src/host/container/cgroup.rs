//! The proxy's leaf cgroup, in every hierarchy that is mounted where systemd and every engine expect
//! it (cgroups(7)): v2 at `/sys/fs/cgroup`, or v1 with one directory per controller, or both.

use rustix::fs::CWD;
use rustix::io::Errno;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MOUNT: &str = "/sys/fs/cgroup";
/// CGROUP2_SUPER_MAGIC of statfs(2).
const VERSION_2: u32 = 0x6367_7270;
/// A new cpuset has no processors, so no process can enter it before an administrator fills it in.
const NEEDS_FILLING: &str = "cpuset";
/// A cgroup remains busy for a moment after its last process has exited.
const REMOVE_ATTEMPTS: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// A failure around a cgroup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot list the cgroup hierarchies")]
    List { source: io::Error },
    #[error("cannot create the cgroup {path:?} (linux.cgroupsPath)")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot move the proxy into the cgroup {path:?} (linux.cgroupsPath)")]
    Enter { path: PathBuf, source: io::Error },
    #[error("cannot remove the cgroup {path:?}")]
    Remove { path: PathBuf, source: io::Error },
}

/// The hierarchies in which the leaf already exists. We did not make it, so `remove` must keep it.
pub(crate) fn find(leaf: &str) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for root in hierarchies()? {
        let path = root.join(leaf);
        if path.try_exists().map_err(|source| Error::List { source })? {
            found.push(path);
        }
    }
    Ok(found)
}

/// Creates the leaf everywhere, moves `pid` into it, and returns where. Where no hierarchy is mounted,
/// nothing is done. An error may leave some of them, which `remove` removes.
pub(crate) fn enter(leaf: &str, pid: i32) -> Result<Vec<PathBuf>, Error> {
    let mut entered = Vec::new();
    for root in hierarchies()? {
        let path = root.join(leaf);
        std::fs::create_dir_all(&path)
            .map_err(|source| Error::Create { path: path.clone(), source })?;
        let procs = path.join("cgroup.procs");
        std::fs::OpenOptions::new()
            .write(true)
            .open(&procs)
            .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
            .map_err(|source| Error::Enter { path: path.clone(), source })?;
        entered.push(path);
    }
    Ok(entered)
}

/// Removes the leaf from every hierarchy except where it is in `spared`, and returns where it was. A missing leaf is
/// not an error. All are tried; the error is that of the first that could not be removed.
pub(crate) fn remove(leaf: &str, spared: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut first = Ok(());
    let mut removed = Vec::new();
    for root in again(hierarchies)? {
        let path = root.join(leaf);
        if spared.contains(&path) {
            continue;
        }
        match remove_leaf(&path) {
            Ok(Leaf::Removed) => removed.push(path),
            Ok(Leaf::Absent) => {}
            Err(source) => first = first.and(Err(Error::Remove { path, source })),
        }
    }
    first.map(|()| removed)
}

/// No other program removes a leaf that is left here, so a temporary failure must not leave one.
fn again<T, E>(mut action: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    action().or_else(|_| action()).or_else(|_| action())
}

/// What `remove_leaf` found.
enum Leaf {
    Removed,
    Absent,
}

fn remove_leaf(path: &Path) -> io::Result<Leaf> {
    let mut attempt = 0;
    loop {
        match again(|| rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::REMOVEDIR)) {
            Ok(()) => return Ok(Leaf::Removed),
            Err(Errno::NOENT) => return Ok(Leaf::Absent),
            Err(Errno::BUSY) if attempt < REMOVE_ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(REMOVE_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn hierarchies() -> Result<Vec<PathBuf>, Error> {
    let mount = Path::new(MOUNT);
    match rustix::fs::statfs(mount) {
        Ok(found) if u32::try_from(found.f_type).is_ok_and(|kind| kind == VERSION_2) => {
            return Ok(vec![mount.to_owned()]);
        }
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(Error::List { source: error.into() }),
    }
    let listed =
        std::fs::read_to_string("/proc/self/cgroup").map_err(|source| Error::List { source })?;
    let names = listed.lines().filter_map(|line| line.split(':').nth(1));
    let folders = names.filter_map(|controllers| match controllers {
        // The v2 hierarchy beside v1 ones, as systemd's hybrid layout mounts it.
        "" => Some("unified"),
        controllers if controllers.split(',').any(|name| name == NEEDS_FILLING) => None,
        controllers => Some(controllers.strip_prefix("name=").unwrap_or(controllers)),
    });
    let mut roots = Vec::new();
    for root in folders.map(|folder| mount.join(folder)) {
        if root.join("cgroup.procs").try_exists().map_err(|source| Error::List { source })? {
            roots.push(root);
        }
    }
    Ok(roots)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        List { source }, Create { path, source }, Enter { path, source }, Remove { path, source },
    }
}
