//! Files whose content is complete at every instant, or which do not exist.

use crate::host::os::directory;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

/// The name of the file that `replace` prepares. Only a crash leaves it behind.
pub(crate) const PREPARED: &str = ".state.json.tmp";

/// Replaces `name` in `directory` by `bytes`: a reader sees the old content or the new content, also if this fails. The
/// caller holds the lock of the directory, so the name of the prepared file can be fixed.
pub(crate) fn replace(directory: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let prepared = Path::new(PREPARED);
    let written = create(directory, prepared, Mode::from_raw_mode(0o600), bytes)
        // Durable before the rename, or a power cut leaves an empty file under the name. On a tmpfs the call does
        // nothing and costs less than asking statfs(2) whether it is one.
        .and_then(|file| Ok(rustix::fs::fdatasync(file)?));
    finish(directory, prepared, Path::new(name), written)
}

/// Replaces `name` in `directory`; content and name are durable when this returns. `directory` is open for reading. The
/// caller holds a lock that keeps others from preparing the same file, `name.new`.
pub(crate) fn replace_durably(
    directory: BorrowedFd<'_>,
    name: &str,
    mode: Mode,
    bytes: &[u8],
) -> io::Result<()> {
    let prepared = format!("{name}.new");
    let prepared = Path::new(&prepared);
    let written =
        create(directory, prepared, mode, bytes).and_then(|file| Ok(rustix::fs::fsync(file)?));
    finish(directory, prepared, Path::new(name), written)?;
    Ok(rustix::fs::fsync(directory)?)
}

/// Replaces `name` in `directory` without a lock and without syncing. Of two calls that meet, one's content replaces
/// the other's, as if it had come later.
///
/// The file has no name until it is complete, so a kill leaves a whole file, if only under the name `prepared`, which
/// the next call takes over.
pub(crate) fn replace_unlocked(
    directory: BorrowedFd<'_>,
    prepared: &str,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let (prepared, name) = (Path::new(prepared), Path::new(name));
    let as_it_is = |_: &File| Ok(());
    replace_prepared(directory, (prepared, name), Mode::from_raw_mode(0o600), bytes, as_it_is)
}

/// Replaces the regular file at `path`, mode 0644 whatever the umask is. Its content is durable, so that a power cut
/// leaves the old content or the new content. While it is written, it has no name or one that begins with a dot and
/// ends with `.new`, or with that and the number of this process.
///
/// # Errors
/// The file has its old content. Anything but a regular file is left alone.
pub(crate) fn replace_published(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory = directory::open(parent)?;
    match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(_) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut prepared = OsString::from(".");
    prepared.push(name);
    prepared.push(".new");
    let mode = Mode::from_raw_mode(0o644);
    let complete = |file: &File| -> io::Result<()> {
        rustix::fs::fchmod(file, mode)?;
        Ok(rustix::fs::fdatasync(file)?)
    };
    let names = (Path::new(&prepared), Path::new(name));
    replace_prepared(directory.as_fd(), names, mode, bytes, complete)
}

/// Replaces the second of `names`. `complete` is called when the file has its content.
fn replace_prepared(
    directory: BorrowedFd<'_>,
    (prepared, name): (&Path, &Path),
    mode: Mode,
    bytes: &[u8],
    complete: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let link = || -> io::Result<()> {
        let file = unnamed(directory, mode, bytes)?;
        complete(&file)?;
        let mut linked = link(&file, directory, prepared);
        if linked == Err(Errno::EXIST) {
            let _ = rustix::fs::unlinkat(directory, prepared, AtFlags::empty());
            linked = link(&file, directory, prepared);
        }
        Ok(linked?)
    };
    if link().is_err() {
        // An overlay, or an old filesystem, has no unnamed files. Another call must not complete this one's file, so
        // its name is unique to this process. If this process is killed, the file remains.
        let mut unique = prepared.as_os_str().to_owned();
        unique.push(format!(".{}", std::process::id()));
        let unique = Path::new(&unique);
        let written = create(directory, unique, mode, bytes).and_then(|file| complete(&file));
        return finish(directory, unique, name, written);
    }
    match finish(directory, prepared, name, Ok(())) {
        // The other call has renamed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Creates or replaces the file at `path`, mode 0644. A new file has no name until it is complete, so that not even a
/// crash leaves a second name behind. If this fails, the path is unchanged.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory = directory::open(parent)?;
    let (directory, mode) = (directory.as_fd(), Mode::from_raw_mode(0o644));
    // Some filesystems have no unnamed files, or cannot give every file a name.
    if let Ok(file) = unnamed(directory, mode, bytes) {
        if link(&file, directory, Path::new(name)).is_ok() {
            return Ok(());
        }
    }
    let mut prepared = OsString::from(".");
    prepared.push(name);
    replace_named(directory, Path::new(&prepared), Path::new(name), mode, bytes)
}

/// Makes a file without a name.
fn unnamed(directory: BorrowedFd<'_>, mode: Mode, bytes: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, ".", flags, mode)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// Gives a file of [`unnamed`] a name that is not used yet.
fn link(file: &File, directory: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, directory, name, AtFlags::SYMLINK_FOLLOW)
}

fn replace_named(
    directory: BorrowedFd<'_>,
    prepared: &Path,
    name: &Path,
    mode: Mode,
    bytes: &[u8],
) -> io::Result<()> {
    finish(directory, prepared, name, create(directory, prepared, mode, bytes).map(drop))
}

/// Creates a new file. An existing entry of that name is removed without being opened: an earlier call left it, or
/// another user wants this call to write through it (a link) or to wait for it (a FIFO).
fn create(directory: BorrowedFd<'_>, name: &Path, mode: Mode, bytes: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(directory, name, flags, mode);
    let opened = match open() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            open()
        }
        opened => opened,
    };
    let mut file = File::from(opened?);
    file.write_all(bytes)?;
    Ok(file)
}

/// Renames `prepared` to `name` if it was `written`. If either fails, it removes `prepared`.
fn finish(
    directory: BorrowedFd<'_>,
    prepared: &Path,
    name: &Path,
    written: io::Result<()>,
) -> io::Result<()> {
    let renamed =
        written.and_then(|()| Ok(rustix::fs::renameat(directory, prepared, directory, name)?));
    if renamed.is_err() {
        let _ = rustix::fs::unlinkat(directory, prepared, AtFlags::empty());
    }
    renamed
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
    fn a_file_that_has_a_name_from_its_beginning_replaces_one_that_was_left_half_written() {
        let directory = tempfile::tempdir().unwrap();
        let folder = File::open(directory.path()).unwrap();
        File::create(directory.path().join(".x")).unwrap();
        for text in ["1", "22"] {
            let (prepared, mode) = (Path::new(".x"), Mode::from_raw_mode(0o600));
            replace_named(folder.as_fd(), prepared, Path::new("x"), mode, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(directory.path().join("x")).unwrap(), text);
            assert_eq!(names(directory.path()), ["x"]);
        }
    }

    #[test]
    fn only_a_regular_file_is_replaced_and_everybody_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.prom");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        // As a kill leaves it.
        File::create(directory.path().join(".x.prom.new")).unwrap();
        for text in ["1", "22"] {
            replace_published(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!((names(directory.path()), mode()), (vec!["x.prom".to_owned()], 0o644));
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        let fifo = FileType::Fifo;
        let plant: [&dyn Fn(); 3] = [
            &|| std::os::unix::fs::symlink("/dev/null", &path).unwrap(),
            &|| rustix::fs::mknodat(CWD, &path, fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
            &|| std::fs::create_dir(&path).unwrap(),
        ];
        for plant in plant {
            plant();
            let before = std::fs::symlink_metadata(&path).unwrap().file_type();
            let error = replace_published(&path, b"1").unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file");
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().file_type(), before);
            assert_eq!(names(directory.path()), ["x.prom"]);
            let _ = std::fs::remove_file(&path);
        }
        assert!(replace_published(Path::new("/"), b"1").is_err());
        assert!(replace_published(&directory.path().join("missing/x.prom"), b"1").is_err());
    }

    #[test]
    fn a_file_that_cannot_get_a_name_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let folder = File::open(directory.path()).unwrap();
        let replaced = replace_unlocked(folder.as_fd(), "missing/prepared", "x", b"1");
        assert_eq!(replaced.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(names(directory.path()), [""; 0]);
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
