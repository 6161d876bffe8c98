//! Opens files and directories that no other user can change. Each component of a path is opened below the previous
//! one and checked on its descriptor, so the check applies to the file that was opened.
//! `model/container/ownership.rs` decides which owners and modes are trusted.

use crate::host::os::process;
use crate::model::container::ownership::{Distrust, Ownership};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
const COMPONENT: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const APPEND: OFlags = OFlags::WRONLY
    .union(OFlags::APPEND)
    .union(OFlags::CREATE)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path:?} {why}")]
    Distrusted { path: PathBuf, why: Distrust },
    #[error("cannot open {path:?}")]
    Open { path: PathBuf, source: io::Error },
}

impl Error {
    /// Whether the directory exists and is not trusted. False if it cannot be seen.
    pub(crate) fn is_of_the_path(&self) -> bool {
        match self {
            Self::Distrusted { .. } => true,
            Self::Open { source, .. } => {
                matches!(Errno::from_io_error(source), Some(Errno::NOTDIR | Errno::LOOP))
            }
        }
    }
}

/// The owner, group and mode of a file, as fstat(2) reports them.
pub(crate) fn ownership(stat: &Stat) -> Ownership {
    Ownership { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode }
}

/// Opens the directory at `path` (`O_PATH`), if it and all its parents belong to root or to this user, and
/// nobody else may exchange them. `None` if there is none. The error names the first component that is not trusted or
/// cannot be opened.
pub(crate) fn open_directory(path: &Path) -> Result<Option<OwnedFd>, Error> {
    let user = process::effective_user();
    let path = std::path::absolute(path)
        .map_err(|source| Error::Open { path: path.to_owned(), source })?;
    // The last component is the next one.
    let mut left = components(&path);
    let mut links = 0;
    let mut reached = PathBuf::from("/");
    let mut folder = top(user)?;
    while let Some(name) = left.pop() {
        let here = reached.join(&name);
        let next = match rustix::fs::openat(&folder, &name, COMPONENT, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(&here, error)),
        };
        let stat = rustix::fs::fstat(&next).map_err(|error| failed(&here, error))?;
        let distrusted = |why| Error::Distrusted { path: here.clone(), why };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                ownership(&stat).is_safe_parent_for(user).map_err(distrusted)?;
                folder = next;
                if name == ".." {
                    reached.pop();
                } else {
                    reached = here;
                }
            }
            FileType::Symlink => {
                ownership(&stat).is_made_by_root_or(user).map_err(distrusted)?;
                links += 1;
                if links > LINKS_MAX {
                    return Err(failed(&here, Errno::LOOP));
                }
                let target = rustix::fs::readlinkat(&next, "", Vec::new())
                    .map_err(|error| failed(&here, error))?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
                if target.is_absolute() {
                    folder = top(user)?;
                    reached = PathBuf::from("/");
                }
                left.extend(components(&target));
            }
            FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(failed(&here, Errno::NOTDIR)),
        }
    }
    Ok(Some(folder))
}

fn top(user: u32) -> Result<OwnedFd, Error> {
    let path = Path::new("/");
    let opened = rustix::fs::open(path, COMPONENT, Mode::empty());
    let folder = opened.map_err(|error| failed(path, error))?;
    let stat = rustix::fs::fstat(&folder).map_err(|error| failed(path, error))?;
    let safe = ownership(&stat).is_safe_parent_for(user);
    safe.map_err(|why| Error::Distrusted { path: path.to_owned(), why })?;
    Ok(folder)
}

/// The names in a path, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.collect()
}

/// Checks that an open file or directory can only be changed by this user.
pub(crate) fn check_own(file: impl AsFd, path: &Path) -> Result<Stat, Error> {
    let stat = rustix::fs::fstat(file).map_err(|error| failed(path, error))?;
    let own = ownership(&stat).is_of(process::effective_user());
    own.map_err(|why| Error::Distrusted { path: path.to_owned(), why })?;
    Ok(stat)
}

/// Opens a file for appending, without waiting, and creates it if need be. It is not one that another user has led
/// this call to: by a link on the way, a second name for another file, or a file of the user's own.
pub(crate) fn append(path: &Path) -> Result<File, Error> {
    let user = process::effective_user();
    let mode = Mode::from_raw_mode(0o644);
    let plain = rustix::fs::openat2(CWD, path, APPEND, mode, ResolveFlags::NO_SYMLINKS);
    let is_good = |file| rustix::fs::fstat(file).is_ok_and(|stat| is_plain(&stat, user));
    if plain.as_ref().is_ok_and(is_good) {
        return plain.map(File::from).map_err(|error| failed(path, error));
    }
    // Any other kind of file (a link, /dev/null, a FIFO) is accepted where no other user can have put it.
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(path, Errno::ISDIR));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let folder = open_directory(parent)?.ok_or_else(|| failed(path, Errno::NOENT))?;
    let distrusted = |why| Error::Distrusted { path: path.to_owned(), why };
    let is_shared = rustix::fs::fstat(&folder)
        .map_err(|error| failed(parent, error))
        .map(|stat| ownership(&stat).is_of_root_or(user).is_err())?;
    let mut flags = APPEND;
    match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_shared => {
            ownership(&stat).is_made_by_root_or(user).map_err(distrusted)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::RegularFile && stat.st_nlink > 1 {
                return Err(distrusted(Distrust::Names));
            }
        }
        Ok(_) => {}
        // Nobody else may create it as a link meanwhile.
        Err(_) => flags |= OFlags::NOFOLLOW,
    }
    let opened = rustix::fs::openat(&folder, name, flags, mode);
    opened.map(File::from).map_err(|error| failed(path, error))
}

fn is_plain(stat: &Stat, user: u32) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 1
        && ownership(stat).is_made_by_root_or(user).is_ok()
}

fn failed(path: &Path, error: Errno) -> Error {
    Error::Open { path: path.to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    fn folder(path: &Path, mode: u32) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> String {
        open_directory(path).unwrap_err().to_string()
    }

    #[test]
    fn every_parent_counts_and_the_first_bad_one_is_named() {
        let base = tempfile::tempdir().unwrap();
        let (outer, inner) = (base.path().join("outer"), base.path().join("outer/inner"));
        folder(&inner, 0o700);
        for (mode, safe) in [(0o700, true), (0o777, false), (0o1777, true), (0o755, true)] {
            folder(&outer, mode);
            assert_eq!(open_directory(&inner).is_ok(), safe, "{mode:o}");
        }
        assert!(open_directory(&outer.join("none")).unwrap().is_none());
        chown(&outer, Some(65534), None).unwrap();
        assert_eq!(refusal(&inner), format!("{outer:?} belongs to user 65534"));
        assert_eq!(refusal(&outer.join("none")), format!("{outer:?} belongs to user 65534"));
    }

    #[test]
    fn links_are_followed_if_they_are_roots_and_what_they_lead_to_is_checked() {
        let base = tempfile::tempdir().unwrap();
        let (target, link) = (base.path().join("a/b"), base.path().join("link"));
        folder(&target, 0o700);
        for to in ["a/b", "a/../a/./b", target.to_str().unwrap()] {
            symlink(to, &link).unwrap();
            let stat = rustix::fs::fstat(open_directory(&link).unwrap().unwrap()).unwrap();
            assert_eq!(stat.st_ino, rustix::fs::stat(&target).unwrap().st_ino, "{to}");
            lchown(&link, Some(65534), None).unwrap();
            assert_eq!(refusal(&link), format!("{link:?} belongs to user 65534"), "{to}");
            std::fs::remove_file(&link).unwrap();
        }
        symlink("link", &link).unwrap();
        assert!(open_directory(&link).unwrap_err().is_of_the_path());
        std::fs::remove_file(&link).unwrap();
        symlink("a/b", &link).unwrap();
        folder(&base.path().join("a"), 0o777);
        assert!(refusal(&link).contains("is writable by every user (mode 0777)"));
    }

    #[test]
    fn nothing_is_appended_where_another_user_leads() {
        let base = tempfile::tempdir().unwrap();
        let shared = base.path().join("shared");
        folder(&shared, 0o1777);
        let (log, other) = (shared.join("log"), base.path().join("other"));
        for _ in 0..2 {
            append(&log).expect("a file of its own");
        }
        std::fs::remove_file(&log).unwrap();
        std::fs::File::create(&other).unwrap();
        symlink(&other, &log).unwrap();
        append(&log).expect("a link of its own");
        lchown(&log, Some(65534), None).unwrap();
        let of_another = format!("{log:?} belongs to user 65534");
        assert_eq!(append(&log).unwrap_err().to_string(), of_another);
        std::fs::remove_file(&log).unwrap();
        std::fs::hard_link(&other, &log).unwrap();
        assert!(append(&log).unwrap_err().to_string().ends_with("has several hard links"));
        folder(&shared, 0o755);
        append(&log).expect("nobody else can have made the second name");
        folder(&shared, 0o1777);
        std::fs::remove_file(&log).unwrap();
        std::fs::File::create(&log).unwrap();
        chown(&log, Some(65534), None).unwrap();
        assert_eq!(append(&log).unwrap_err().to_string(), of_another);
        let link = base.path().join("link");
        symlink(&shared, &link).unwrap();
        append(&link.join("new")).expect("a link of its own on the way");
        lchown(&link, Some(65534), None).unwrap();
        assert!(append(&link.join("new")).is_err());
        append(Path::new("/dev/null")).expect("a device of the host's");
        assert!(append(&base.path().join("none/log")).is_err());
    }

    #[test]
    fn a_file_is_no_directory() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        std::fs::File::create(&file).unwrap();
        assert!(open_directory(&file).unwrap_err().is_of_the_path());
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Distrusted { path, why = Distrust::Names }, Open { path, source },
    }
}
