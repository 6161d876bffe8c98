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
    /// Whose layer it is; members of the stack are numbered from the top.
    pub(crate) owner: usize,
    pub(crate) directory: OwnedFd,
}

/// A path that exists in the layers of one member and that another member hides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HiddenPath {
    /// It ends with `/` if it is a directory, which is hidden with all that is in it.
    pub(crate) path: String,
    pub(crate) by: usize,
    pub(crate) of: usize,
}

/// What is at a path of the merged view.
#[derive(Debug)]
pub(crate) enum MergedEntry {
    Directory(Vec<LayerDirectory>),
    /// Anything else, and the directory that contains it.
    Other {
        folder: OwnedFd,
        name: CString,
        kind: FileType,
    },
}

/// One name in a merged directory.
struct MergedLookup {
    entry: Option<MergedEntry>,
    /// The first layer that no longer counts, and the owner of the layer that hides it.
    hidden_from: Option<(usize, usize)>,
}

/// Looks up `name` in a merged directory, whose layers are in `stack`, the topmost first.
fn look_up(stack: &[LayerDirectory], name: &CStr) -> io::Result<MergedLookup> {
    let mut parts = Vec::new();
    for (at, layer) in stack.iter().enumerate() {
        let Some(stat) = stat(&layer.directory, name)? else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_whiteout = is_whiteout(&stat);
        if kind == FileType::Directory {
            let directory = open_directory(&layer.directory, name)?;
            let is_opaque = is_opaque(directory.as_fd())?;
            parts.push(LayerDirectory { owner: layer.owner, directory });
            if !is_opaque {
                continue;
            }
        }
        let first_hidden = at + 1;
        let (entry, hidden_from) = match parts.is_empty() {
            true if is_whiteout => (None, (first_hidden, layer.owner)),
            true => {
                let (folder, name) = (layer.directory.try_clone()?, name.to_owned());
                (Some(MergedEntry::Other { folder, name, kind }), (first_hidden, layer.owner))
            }
            // The file itself is hidden by the directory above it.
            false => {
                let is_file = kind != FileType::Directory && !is_whiteout;
                let by = match (is_file, parts.first()) {
                    (true, Some(top)) => (at, top.owner),
                    _ => (first_hidden, layer.owner),
                };
                (Some(MergedEntry::Directory(parts)), by)
            }
        };
        return Ok(MergedLookup { entry, hidden_from: Some(hidden_from) });
    }
    let entry = (!parts.is_empty()).then_some(MergedEntry::Directory(parts));
    Ok(MergedLookup { entry, hidden_from: None })
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
            Some(MergedEntry::Other { folder, name, kind: FileType::Symlink }) => {
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

fn names(stack: &[LayerDirectory]) -> io::Result<BTreeSet<CString>> {
    let mut all = BTreeSet::new();
    for layer in stack {
        // Another handle, because reading moves the position of this one.
        all.extend(directory::names(open_directory(&layer.directory, c".")?)?);
    }
    Ok(all)
}

/// The paths of `stack` that a layer of another member hides, in their order.
pub(crate) fn hidden(stack: Vec<LayerDirectory>) -> io::Result<Vec<HiddenPath>> {
    let mut found = Vec::new();
    // The directories on the way to the current one, and the names in them that are still to be looked up.
    let mut way = vec![(String::new(), names(&stack)?.into_iter(), stack)];
    while let Some((folder, names_left, stack)) = way.last_mut() {
        let Some(name) = names_left.next() else {
            way.pop();
            continue;
        };
        let path = format!("{folder}/{}", name.to_string_lossy());
        let MergedLookup { entry, hidden_from } = look_up(stack, &name)?;
        if let Some((first, by)) = hidden_from {
            for layer in stack.get(first..).unwrap_or_default() {
                let there = stat(&layer.directory, &name)?.filter(|stat| !is_whiteout(stat));
                let Some(stat) = there.filter(|_| layer.owner != by) else { continue };
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                let path = if is_directory { format!("{path}/") } else { path.clone() };
                found.push(HiddenPath { path, by, of: layer.owner });
            }
        }
        // Where there is one member only, nothing is hidden.
        let several = |parts: &[LayerDirectory]| {
            parts.iter().any(|part| Some(part.owner) != parts.first().map(|top| top.owner))
        };
        match entry {
            Some(MergedEntry::Directory(parts)) if several(&parts) => {
                way.push((path, names(&parts)?.into_iter(), parts));
            }
            _ => {}
        }
    }
    found.sort();
    // A member may have the path in several layers.
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode as NodeMode, SFlag, mknod};
    use std::fs::{File, create_dir_all};
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// Layers, the topmost first.
    struct Layers(tempfile::TempDir);

    impl Layers {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, layer: &str, name: &str) -> PathBuf {
            let path = self.0.path().join(layer).join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        fn file(&self, layer: &str, name: &str) {
            File::create(self.path(layer, name)).unwrap();
        }

        fn folder(&self, layer: &str, name: &str) {
            create_dir_all(self.path(layer, name)).unwrap();
        }

        fn link(&self, layer: &str, name: &str, target: &str) {
            symlink(target, self.path(layer, name)).unwrap();
        }

        fn whiteout(&self, layer: &str, name: &str) {
            mknod(&self.path(layer, name), SFlag::S_IFCHR, NodeMode::empty(), 0).unwrap();
        }

        fn opaque(&self, layer: &str, name: &str) {
            self.folder(layer, name);
            let folder = File::open(self.path(layer, name)).unwrap();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(folder, OPAQUE, b"y", flags).unwrap();
        }

        fn stack(&self, layers: &[(usize, &str)]) -> Vec<LayerDirectory> {
            let open = |(owner, name): &(usize, &str)| {
                let directory = File::open(self.0.path().join(name)).unwrap().into();
                LayerDirectory { owner: *owner, directory }
            };
            layers.iter().map(open).collect()
        }

        fn hidden(&self, layers: &[(usize, &str)]) -> Vec<(String, usize, usize)> {
            let found = hidden(self.stack(layers)).unwrap().into_iter();
            found.map(|hidden| (hidden.path, hidden.by, hidden.of)).collect()
        }
    }

    fn expected(all: &[(&str, usize, usize)]) -> Vec<(String, usize, usize)> {
        all.iter().map(|(path, by, of)| ((*path).to_owned(), *by, *of)).collect()
    }

    #[test]
    fn what_is_not_a_directory_hides_what_is_below_and_directories_merge() {
        let layers = Layers::new();
        layers.file("a", "etc/both");
        layers.file("a", "etc/only-a");
        layers.file("a", "file-over-folder");
        layers.folder("a", "folder-over-file");
        layers.file("b", "etc/both");
        layers.file("b", "etc/only-b");
        layers.file("b", "file-over-folder/x");
        layers.file("b", "folder-over-file");
        let found = layers.hidden(&[(0, "a"), (1, "b")]);
        let all = [("/etc/both", 0, 1), ("/file-over-folder/", 0, 1), ("/folder-over-file", 0, 1)];
        assert_eq!(found, expected(&all));
        assert_eq!(layers.hidden(&[(0, "a"), (0, "b")]), [], "the layers of one image");
    }

    #[test]
    fn whiteouts_and_opaque_directories_of_an_image_hide_the_files_of_others_too() {
        let layers = Layers::new();
        layers.whiteout("a1", "etc/gone");
        layers.opaque("a1", "opt");
        layers.file("a2", "etc/gone");
        layers.file("a2", "opt/x");
        layers.file("b", "etc/gone");
        layers.file("b", "opt/y");
        layers.whiteout("b", "etc/other");
        layers.file("os", "etc/gone");
        layers.file("os", "etc/other");
        let found = layers.hidden(&[(0, "a1"), (0, "a2"), (1, "b"), (2, "os")]);
        let all = [("/etc/gone", 0, 1), ("/etc/gone", 0, 2), ("/etc/other", 1, 2), ("/opt/", 0, 1)];
        assert_eq!(found, expected(&all));
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
            let stack = layers.stack(&[(0, "a"), (0, "b")]);
            assert_eq!(kind(find(stack, path)), expected, "{path:?}");
        }
        let names = entries(&layers.stack(&[(0, "a"), (0, "b")])).unwrap();
        let names: Vec<_> = names.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["absolute", "dangling", "lib", "loop", "up", "usr"]);
    }
}
