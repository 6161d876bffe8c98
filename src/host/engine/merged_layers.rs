//! The files that overlayfs shows of a stack of layers, read from the layers themselves: mounting them would need
//! privileges, and a mount namespace. The rules are those of the kernel's overlayfs without `redirect_dir`: a whiteout
//! (a device 0:0) and anything that is not a directory hide what is below; directories merge, down to an opaque one.

use crate::host::os::directory;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many links one path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;
const OPAQUE: &str = "trusted.overlay.opaque";
const REDIRECT: &str = "trusted.overlay.redirect";

/// A directory of one layer.
#[derive(Debug)]
pub(crate) struct LayerDirectory {
    /// The number of the layer.
    pub(crate) layer: usize,
    pub(crate) directory: OwnedFd,
}

/// What is at a path of the merged view.
#[derive(Debug)]
pub(crate) enum MergedEntry {
    Directory(Vec<LayerDirectory>),
    /// Anything else, its layer, and the directory that contains it.
    Other {
        layer: usize,
        folder: OwnedFd,
        name: CString,
        kind: FileType,
    },
}

/// One name in a merged directory.
pub(crate) struct MergedLookup {
    pub(crate) entry: Option<MergedEntry>,
    /// The layer that hides those below it.
    pub(crate) hidden_by: Option<usize>,
}

/// Looks up `name` in a merged directory, whose layers are in `stack`, the topmost first.
pub(crate) fn look_up(stack: &[LayerDirectory], name: &CStr) -> io::Result<MergedLookup> {
    let mut parts: Vec<LayerDirectory> = Vec::new();
    for LayerDirectory { layer, directory } in stack {
        let Some(stat) = stat(directory, name)? else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let directory = open_directory(directory, name)?;
            let is_opaque = is_opaque(directory.as_fd())?;
            parts.push(LayerDirectory { layer: *layer, directory });
            if !is_opaque {
                continue;
            }
        }
        let entry = match parts.is_empty() {
            false => Some(MergedEntry::Directory(parts)),
            true if is_whiteout(&stat) => None,
            true => {
                let (folder, name) = (directory.try_clone()?, name.to_owned());
                Some(MergedEntry::Other { layer: *layer, folder, name, kind })
            }
        };
        return Ok(MergedLookup { entry, hidden_by: Some(*layer) });
    }
    let entry = (!parts.is_empty()).then_some(MergedEntry::Directory(parts));
    Ok(MergedLookup { entry, hidden_by: None })
}

fn stat(directory: impl AsFd, name: &CStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn open_directory(folder: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// Whether a directory of a layer hides those below. Only a process with CAP_SYS_ADMIN can see that.
fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    if attribute(directory, REDIRECT)?.is_some() {
        return Err(io::Error::other(
            "a directory has another name in the layers below (redirect_dir)",
        ));
    }
    Ok(attribute(directory, OPAQUE)? == Some(b'y'))
}

/// The first byte of an extended attribute.
fn attribute(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<u8>> {
    let mut value = [0; 256];
    match rustix::fs::fgetxattr(directory, name, &mut value) {
        Ok(_) => Ok(value.first().copied()),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(Errno::RANGE) => Ok(Some(0)),
        Err(error) => Err(error.into()),
    }
}

/// Finds `path` in the merged view of `stack`. Links are followed as if the view were `/`; `None` if nothing is there.
pub(crate) fn find(stack: Vec<LayerDirectory>, path: &str) -> io::Result<Option<MergedEntry>> {
    let parts = |path: &str| -> VecDeque<String> {
        path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
    };
    let (mut way, mut rest, mut links) = (vec![stack], parts(path), 0);
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let name = CString::new(part)?;
        let current = way.last().map(Vec::as_slice).unwrap_or_default();
        match look_up(current, &name)?.entry {
            None => return Ok(None),
            Some(MergedEntry::Directory(parts)) => way.push(parts),
            Some(MergedEntry::Other { folder, name, kind: FileType::Symlink, .. }) => {
                links += 1;
                if links > LINKS_MAX {
                    return Ok(None);
                }
                let target = rustix::fs::readlinkat(&folder, &name, Vec::new())?;
                let target = target.to_string_lossy().into_owned();
                if target.starts_with('/') {
                    way.truncate(1);
                }
                let mut before = parts(&target);
                before.append(&mut rest);
                rest = before;
            }
            Some(other) => return Ok(rest.is_empty().then_some(other)),
        }
    }
    Ok(way.pop().map(MergedEntry::Directory))
}

/// The names in a merged directory and what they are, in their order.
pub(crate) fn entries(stack: &[LayerDirectory]) -> io::Result<Vec<(CString, MergedEntry)>> {
    let mut entries = Vec::new();
    for name in names(stack)? {
        if let Some(entry) = look_up(stack, &name)?.entry {
            entries.push((name, entry));
        }
    }
    Ok(entries)
}

pub(crate) fn names(stack: &[LayerDirectory]) -> io::Result<BTreeSet<CString>> {
    let mut all = BTreeSet::new();
    for layer in stack {
        // Another handle, because reading moves the position of this one.
        all.extend(directory::names(open_directory(&layer.directory, c".")?)?);
    }
    Ok(all)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::sys::stat::{Mode as NodeMode, SFlag, mknod};
    use std::fs::{File, create_dir_all};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// Layers, the topmost first.
    pub(crate) struct Layers(tempfile::TempDir);

    impl Layers {
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, layer: &str, name: &str) -> PathBuf {
            let path = self.0.path().join(layer).join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        pub(crate) fn file(&self, layer: &str, name: &str) {
            File::create(self.path(layer, name)).unwrap();
        }

        pub(crate) fn folder(&self, layer: &str, name: &str) {
            create_dir_all(self.path(layer, name)).unwrap();
        }

        fn link(&self, layer: &str, name: &str, target: &str) {
            symlink(target, self.path(layer, name)).unwrap();
        }

        pub(crate) fn whiteout(&self, layer: &str, name: &str) {
            mknod(&self.path(layer, name), SFlag::S_IFCHR, NodeMode::empty(), 0).unwrap();
        }

        pub(crate) fn opaque(&self, layer: &str, name: &str) {
            self.folder(layer, name);
            let folder = File::open(self.path(layer, name)).unwrap();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(folder, OPAQUE, b"y", flags).unwrap();
        }

        pub(crate) fn stack(&self, names: &[&str]) -> Vec<LayerDirectory> {
            let open = |(layer, name): (usize, &&str)| {
                let directory = File::open(self.0.path().join(name)).unwrap().into();
                LayerDirectory { layer, directory }
            };
            names.iter().enumerate().map(open).collect()
        }
    }

    fn kind(found: io::Result<Option<MergedEntry>>) -> &'static str {
        match found.unwrap() {
            None => "nothing",
            Some(MergedEntry::Directory(_)) => "directory",
            Some(MergedEntry::Other { .. }) => "other",
        }
    }

    #[test]
    fn links_are_followed_inside_the_view() {
        let layers = Layers::new();
        layers.link("a", "lib", "usr/lib");
        layers.link("a", "up", "../../../usr");
        layers.link("a", "absolute", "/usr/lib");
        layers.link("a", "loop", "loop");
        layers.link("a", "dangling", "none");
        layers.file("b", "usr/lib/modules/6.1.0/x");
        layers.folder("b", "usr/lib/modules/6.2.0");
        layers.whiteout("a", "usr/lib/modules/6.2.0");
        for (path, expected) in [
            ("lib/modules/6.1.0", "directory"),
            ("/usr//lib/./modules/6.1.0/x", "other"),
            ("up/lib/modules/6.1.0", "directory"),
            ("absolute/modules/6.1.0/../../modules", "directory"),
            ("lib/modules/6.2.0", "nothing"),
            ("lib/modules/6.1.0/x/y", "nothing"),
            ("loop", "nothing"),
            ("dangling", "nothing"),
            ("", "directory"),
        ] {
            let stack = layers.stack(&["a", "b"]);
            assert_eq!(kind(find(stack, path)), expected, "{path:?}");
        }
        let names = entries(&layers.stack(&["a", "b"])).unwrap();
        let names: Vec<_> = names.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["absolute", "dangling", "lib", "loop", "up", "usr"]);
    }
}
