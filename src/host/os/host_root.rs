//! Reads the files of the host: below `/`, or below a directory with a copy of them, such as the mounted disk of a
//! device that does not boot. In a copy every link is followed as if that directory were `/` (openat2(2),
//! RESOLVE_IN_ROOT); an absolute link would otherwise lead to this machine's own files.

use crate::host::os::directory;
use crate::host::os::read::{read_bounded_from, read_limited};
use crate::model::kernel::mounts;
use crate::model::text::cause::in_words;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The directory that stands for the host's `/`.
#[derive(Clone, Debug)]
pub(crate) struct HostRoot(PathBuf);

/// The size limit for a file of `/proc`, whose length stat(2) does not report.
const PROC_MAX: u64 = 4 * 1024 * 1024;
/// A program is searched in pieces of this size. Their number is limited, because a filesystem in user space can
/// have a file without an end.
const PIECE: u64 = 256 * 1024;
const PROGRAM_PIECES: usize = 1024;
/// The longest text that is certain to be found.
const PIECE_OVERLAP: usize = 1024;
/// These flags are safe for a FIFO and for a terminal.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl HostRoot {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The path of a file of the host, for messages only: if it is opened, a link in it can lead out of a copy. `path`
    /// is absolute.
    pub(crate) fn display_path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Opens a file of the host.
    pub(crate) fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if self.is_own() {
            return Ok(rustix::fs::open(path.as_ref(), flags, Mode::empty())?);
        }
        Ok(directory::open_in_root(directory::open(&self.0)?, path, flags)?)
    }

    /// The path by which this process can open a file of the host. It contains no links.
    pub(crate) fn find(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let found = self.open(path, OFlags::PATH)?;
        std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
    }

    /// The path by which a program of this machine reaches `path` of the host. It is unchanged if the host is this machine.
    pub(crate) fn reach(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        match self.is_own() {
            true => Ok(path.as_ref().to_owned()),
            false => self.find(path),
        }
    }

    /// Whether there is a directory at `path`.
    pub(crate) fn has_directory(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => Ok(true),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory of the host, sorted.
    pub(crate) fn names(&self, folder: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        let folder = self.open(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let names = directory::names(folder)?.into_iter();
        let mut names: Vec<_> = names.map(|name| OsString::from_vec(name.into_bytes())).collect();
        names.sort();
        Ok(names)
    }

    /// The target of a link of the host, as it is written.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let target = match rustix::fs::readlinkat(link, "", Vec::new()) {
            // What was opened is there.
            Err(rustix::io::Errno::NOENT) => return Err(io::Error::other("it is not a link")),
            read => read?,
        };
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Reads a regular file of the host. A very large one is an error.
    pub(crate) fn bytes(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let is_of_proc = path.as_ref().starts_with("/proc");
        let file = File::from(self.open(path, READ)?);
        if is_of_proc { read_limited(&file, 0, PROC_MAX) } else { read_bounded_from(&file) }
    }

    /// Reads a program of the host in pieces until `find` finds something. The pieces overlap by [`PIECE_OVERLAP`]
    /// bytes.
    pub(crate) fn search<T>(
        &self,
        path: impl AsRef<Path>,
        find: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut file = File::from(self.open(path, READ)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut piece = Vec::new();
        for _ in 0..PROGRAM_PIECES {
            piece.drain(..piece.len().saturating_sub(PIECE_OVERLAP));
            if file.by_ref().take(PIECE).read_to_end(&mut piece)? == 0 {
                return Ok(None);
            }
            if let Some(found) = find(&piece) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reads a text file of the host. The error names the file.
    pub(crate) fn read(&self, path: &str) -> Result<String, String> {
        self.text(path).map_err(|error| self.unread(path, &error))
    }

    /// Reads a text file of the host that may be missing. A file that cannot be reached is not missing but an error.
    pub(crate) fn read_if_there(&self, path: &str) -> Result<Option<String>, String> {
        match self.text(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.dangling(path) {
                Some(link) => Err(format!("{link:?} is a dangling link")),
                None => Ok(None),
            },
            Err(error) => Err(self.unread(path, &error)),
        }
    }

    /// The dangling link in the path of a missing file. Its target may exist on a partition that is not mounted.
    pub(crate) fn dangling(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = path.as_ref();
        let mut ways: Vec<&Path> = path.ancestors().collect();
        ways.reverse();
        let is_missing = |way: &&&Path| self.open(way, OFlags::PATH).is_err();
        let way = ways.iter().find(is_missing)?;
        self.link(way).is_ok().then(|| self.display_path(way))
    }

    /// Whether something is mounted on a directory of the host.
    pub(crate) fn is_mount_point(&self, folder: &str) -> Result<bool, String> {
        self.read("/proc/mounts").map(|mounts| mounts::is_mount_point(&mounts, folder))
    }

    /// Whether a partition has a mount point but may not be mounted there, so that its files are not visible.
    pub(crate) fn lacks_mount(&self, point: &str) -> bool {
        self.has_directory(point).unwrap_or(true) && !self.is_mount_point(point).unwrap_or(false)
    }

    fn is_own(&self) -> bool {
        self.0 == Path::new("/")
    }

    fn text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }

    fn unread(&self, path: &str, error: &io::Error) -> String {
        format!("cannot read {:?}: {}", self.display_path(path), in_words(error))
    }
}

/// Whether a file is certainly missing.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_missing_file_is_none_and_half_a_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = HostRoot::new(folder.path().to_owned());
        assert_eq!(root.read_if_there("/a/b"), Ok(None));
        assert!(root.read("/a/b").unwrap_err().contains("a/b\": missing"));
        std::fs::create_dir_all(root.display_path("/proc/folder")).unwrap();
        std::fs::create_dir(root.display_path("/a")).unwrap();
        assert!(root.read_if_there("/a").unwrap_err().contains("not a regular file"));
        let most = usize::try_from(PROC_MAX).unwrap();
        let mut mounts = File::create(root.display_path("/proc/mounts")).unwrap();
        mounts.write_all(&vec![b'x'; most]).unwrap();
        assert_eq!(root.read("/proc/mounts").unwrap().len(), most);
        mounts.write_all(b"x").unwrap();
        assert!(root.read("/proc/mounts").unwrap_err().contains("more than"));
    }

    #[test]
    fn no_link_leads_out_of_a_copy_of_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        File::create(outside.join("file")).unwrap().write_all(b"outside").unwrap();
        let root = HostRoot::new(folder.path().join("disk"));
        std::fs::create_dir_all(root.display_path("/etc")).unwrap();
        std::fs::create_dir_all(root.display_path(&outside)).unwrap();
        File::create(root.display_path(outside.join("file")))
            .unwrap()
            .write_all(b"inside")
            .unwrap();
        symlink(outside.join("file"), root.display_path("/etc/file")).unwrap();
        symlink(&outside, root.display_path("/folder")).unwrap();
        symlink("../../../outside", root.display_path("/etc/up")).unwrap();
        assert_eq!(root.read("/etc/file").unwrap(), "inside");
        assert_eq!(root.read("/folder/file").unwrap(), "inside");
        assert_eq!(root.names("/folder").unwrap(), ["file"]);
        let found = root.find("/folder/file").unwrap();
        assert_eq!(std::fs::read_to_string(found).unwrap(), "inside");
        assert_eq!(root.link("/etc/file").unwrap(), outside.join("file"));
        for path in ["/etc/up", "/etc/up/file"] {
            assert!(is_absence(&root.find(path).unwrap_err()), "{path}");
            let why = root.read_if_there(path).unwrap_err();
            assert!(why.contains("etc/up\" is a dangling link"), "{why}");
        }
    }

    #[test]
    fn the_hosts_own_links_are_followed_as_everybody_does() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("file")).unwrap().write_all(b"text").unwrap();
        symlink(folder.path().join("file"), folder.path().join("link")).unwrap();
        let root = HostRoot::new("/".into());
        let link = folder.path().join("link");
        assert_eq!(root.bytes(&link).unwrap(), b"text");
        assert_eq!(root.find(&link).unwrap(), folder.path().canonicalize().unwrap().join("file"));
    }
}
