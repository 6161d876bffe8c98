//! Files whose content is complete at every instant, or which do not exist.

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;

/// The name of the file that `replace` prepares. Only a crash leaves it behind.
pub(crate) const PREPARED: &str = ".state.json.tmp";

/// Replaces `name` in `directory` by `bytes`: a reader sees the old content or the new content. The caller holds the
/// lock of the directory, so the name of the prepared file can be fixed.
///
/// # Errors
/// The file is unchanged.
pub(crate) fn replace(directory: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut prepared = create(directory, Path::new(PREPARED), Mode::from_raw_mode(0o600))?;
    let written = prepared
        .write_all(bytes)
        // Durable before the rename, or a power cut leaves an empty file under the name. On a tmpfs the call does
        // nothing and costs less than asking statfs(2) whether it is one.
        .and_then(|()| rustix::fs::fdatasync(&prepared).map_err(io::Error::from))
        .and_then(|()| {
            rustix::fs::renameat(directory, PREPARED, directory, name).map_err(io::Error::from)
        });
    if written.is_err() {
        let _ = rustix::fs::unlinkat(directory, PREPARED, AtFlags::empty());
    }
    written
}

/// Creates a new file. An existing entry of that name is removed without being opened: an earlier call left it, or
/// another user wants this call to write through it (a link) or to wait for it (a FIFO).
///
/// # Errors
/// The file does not exist.
pub(crate) fn create(directory: BorrowedFd<'_>, name: &Path, mode: Mode) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(directory, name, flags, mode);
    let opened = match open() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            open()
        }
        opened => opened,
    };
    Ok(File::from(opened?))
}

/// Creates or replaces the file at `path`, mode 0644. A new file has no name until it is complete, so that not even a
/// crash leaves a second name behind.
///
/// # Errors
/// The path is unchanged.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let path_only = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, path_only, Mode::empty())?;
    let mode = Mode::from_raw_mode(0o644);
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    // Some filesystems have no such files, and cannot give every file a name.
    if let Ok(file) = rustix::fs::openat(&directory, ".", flags, mode) {
        let mut file = File::from(file);
        file.write_all(bytes)?;
        if link(&file, directory.as_fd(), Path::new(name)).is_ok() {
            return Ok(());
        }
    }
    replace_named(directory.as_fd(), Path::new(name), bytes)
}

/// Gives a file of `O_TMPFILE` a name that is not used yet.
pub(crate) fn link(file: &File, directory: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, directory, name, AtFlags::SYMLINK_FOLLOW)
}

fn replace_named(directory: BorrowedFd<'_>, name: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut prepared = std::ffi::OsString::from(".");
    prepared.push(name);
    let prepared = Path::new(&prepared);
    let mut file = create(directory, prepared, Mode::from_raw_mode(0o644))?;
    let written = file.write_all(bytes).and_then(|()| {
        rustix::fs::renameat(directory, prepared, directory, name).map_err(io::Error::from)
    });
    if written.is_err() {
        let _ = rustix::fs::unlinkat(directory, prepared, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn publish_creates_and_replaces_and_leaves_no_other_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        for text in ["1", "22"] {
            publish(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(names(directory.path()), ["pid"]);
        }
    }

    #[test]
    fn a_file_that_another_user_has_planted_is_neither_opened_nor_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let folder = File::open(directory.path()).unwrap();
        let (path, other) = (directory.path().join("pid"), directory.path().join("other"));
        std::io::Write::write_all(&mut File::create(&other).unwrap(), b"theirs").unwrap();
        let fifo = |path: &Path| {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        };
        let plant: [&dyn Fn(&Path); 3] = [
            &|path| std::fs::hard_link(&other, path).unwrap(),
            &|path| std::os::unix::fs::symlink("other", path).unwrap(),
            &fifo,
        ];
        for plant in plant {
            plant(&path);
            plant(&directory.path().join(".pid"));
            publish(&path, b"1").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "1");
            plant(&directory.path().join(PREPARED));
            replace(folder.as_fd(), "pid", b"2").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "2");
            assert_eq!(std::fs::read_to_string(&other).unwrap(), "theirs");
            assert_eq!(names(directory.path()), ["other", "pid"]);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_content_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let folder = File::open(directory.path()).unwrap();
        replace(folder.as_fd(), "state.json", b"old").unwrap();
        // A directory in place of the prepared file makes the next replacement fail.
        std::fs::create_dir(directory.path().join(PREPARED)).unwrap();
        assert!(replace(folder.as_fd(), "state.json", b"new").is_err());
        assert_eq!(std::fs::read(directory.path().join("state.json")).unwrap(), b"old");
    }
}
