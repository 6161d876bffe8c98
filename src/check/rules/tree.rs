//! The files of an image as a listing, which the rules read. Layers are merged here, and links are
//! followed as the runtime follows them: as if the rootfs were `/`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most links on one path, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// The most names on one path, with the names of its links. Without a limit, a few links that expand
/// each other take hours.
const STEPS_MAX: usize = 1024;
/// The most memory for the entries of one input, in bytes, about.
pub(crate) const WEIGHT_MAX: usize = 512 * 1024 * 1024;
/// The memory of an entry without its path and its texts.
pub(super) const ENTRY_WEIGHT: usize = 256;
/// Begins the name of a file that removes another one from the layers below (OCI image-spec, layer.md).
pub(super) const WHITEOUT: &str = ".wh.";
/// Removes everything that the layers below have in its directory.
pub(super) const OPAQUE: &str = ".wh..wh..opq";
/// Begins the names of files that an old storage driver (aufs) kept for itself.
const BOOKKEEPING: &str = ".wh..wh.";

/// One file, directory, link or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryKind,
    /// The permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The type of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    File(Content),
    Link {
        target: String,
    },
    /// A character device 0/0 is a whiteout instead.
    Device,
    Fifo,
    Socket,
}

impl EntryKind {
    /// The type with its article, for messages.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File(_) => "a file",
            Self::Link { .. } => "a link",
            Self::Device => "a device",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
        }
    }
}

/// The facts about a file's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) size: u64,
    /// The first line of a script, the first bytes of an ELF file, or nothing.
    pub(crate) head: Vec<u8>,
    /// Whether a line near the beginning of a script ends in CR LF.
    pub(crate) has_cr_lf: bool,
    /// The dynamic loader that an ELF program names.
    pub(crate) loader: Option<String>,
    /// Only of files that may be a kernel.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The kernel release in a module's `vermagic`.
    pub(crate) module_release: Option<String>,
    /// Whether it has file capabilities (capabilities(7)).
    pub(crate) capable: bool,
    /// Whether the first line of a script is longer than the kernel reads.
    pub(crate) long_line: bool,
}

impl Entry {
    /// A directory that is not listed, but contains listed files.
    pub(crate) const fn implied() -> Self {
        Self { kind: EntryKind::Directory, mode: 0o755, uid: 0, gid: 0 }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == EntryKind::Directory
    }

    /// Its memory without its path, about.
    pub(super) fn weight(&self) -> usize {
        let target = self.target().map_or(0, str::len);
        ENTRY_WEIGHT + target + self.content().map_or(0, |content| content.head.len())
    }

    pub(crate) fn content(&self) -> Option<&Content> {
        if let EntryKind::File(content) = &self.kind { Some(content) } else { None }
    }

    /// The target of a link.
    pub(crate) fn target(&self) -> Option<&str> {
        if let EntryKind::Link { target } = &self.kind { Some(target) } else { None }
    }
}

/// The rootfs itself, which no layer lists.
pub(super) static ROOT: Entry = Entry::implied();

/// A rootfs that would take too much memory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many files for an extension, or paths that are too long; if the archive has several images, save fewer \
     at a time"
)]
pub(crate) struct TooMuch;

/// Removes a file of a lower layer, or of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whiteout {
    Of(String),
    /// Removes everything in this directory; the rootfs itself is the empty path.
    Opaque(String),
}

/// One layer: its entries, and its whiteouts apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) whiteouts: Vec<Whiteout>,
    /// Its memory in bytes, about.
    pub(crate) weight: usize,
}

impl Layer {
    /// Adds the entry at `path`, or the whiteout that its name stands for.
    pub(crate) fn add(&mut self, path: &str, entry: Entry) {
        let (directory, name) = split(path);
        if name == OPAQUE {
            self.add_whiteout(Whiteout::Opaque(directory.to_owned()));
        } else if name.starts_with(BOOKKEEPING) {
            // Not a part of the image.
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            self.add_whiteout(Whiteout::Of(join(directory, hidden)));
        } else {
            self.weight += path.len() + entry.weight();
            self.entries.insert(path.to_owned(), entry);
        }
    }

    pub(crate) fn add_whiteout(&mut self, whiteout: Whiteout) {
        let (Whiteout::Of(path) | Whiteout::Opaque(path)) = &whiteout;
        self.weight += path.len() + ENTRY_WEIGHT;
        self.whiteouts.push(whiteout);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.whiteouts.len()
    }
}

/// A whole rootfs. Its paths have no leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileTree {
    entries: BTreeMap<String, Entry>,
    /// Of every layer, also those that had a file of the image to remove.
    whiteouts: BTreeSet<Whiteout>,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved<'a> {
    /// The path is empty if it is the rootfs itself.
    Found {
        path: String,
        entry: &'a Entry,
    },
    Missing,
    /// Too many links or names.
    Loop,
}

impl<'a> Resolved<'a> {
    pub(crate) fn found(self) -> Option<(String, &'a Entry)> {
        if let Self::Found { path, entry } = self { Some((path, entry)) } else { None }
    }
}

/// A walk along a path, name by name, that follows links inside the rootfs.
pub(crate) struct Walk {
    ahead: VecDeque<String>,
    /// The way so far, without links.
    pub(crate) here: String,
    links: usize,
    steps: usize,
}

impl Walk {
    pub(crate) fn along(path: &str) -> Self {
        let ahead = path.split('/').map(str::to_owned).collect();
        Self { ahead, here: String::new(), links: 0, steps: 0 }
    }

    /// The next name. `None` at the end of the path, and if the walk is too long.
    pub(crate) fn next_name(&mut self) -> Option<String> {
        while !self.is_too_long() {
            let name = self.ahead.pop_front()?;
            self.steps += 1;
            if !matches!(name.as_str(), "" | ".") {
                return Some(name);
            }
        }
        None
    }

    pub(crate) fn is_too_long(&self) -> bool {
        self.links > LINKS_MAX || self.steps > STEPS_MAX
    }

    /// Follows `..`, which does not leave the rootfs.
    pub(crate) fn go_up(&mut self) {
        self.here = split(&self.here).0.to_owned();
    }

    /// Follows a link in the directory `here`.
    pub(crate) fn follow(&mut self, target: &str) {
        self.links += 1;
        if target.starts_with('/') {
            self.here.clear();
        }
        for part in target.rsplit('/') {
            self.ahead.push_front(part.to_owned());
        }
    }
}

impl FileTree {
    /// Puts `layer` on top: applies its whiteouts, then adds its entries.
    pub(crate) fn add_layer(&mut self, layer: Layer) {
        for whiteout in &layer.whiteouts {
            match whiteout {
                Whiteout::Of(path) => self.remove(path),
                Whiteout::Opaque(directory) => self.remove_below(directory),
            }
        }
        self.whiteouts.extend(layer.whiteouts);
        for (path, entry) in layer.entries {
            let replaced = self.entries.get(&path);
            if replaced.is_some_and(Entry::is_directory) && !entry.is_directory() {
                self.remove_below(&path);
            }
            self.add_parents(&path);
            self.entries.insert(path, entry);
        }
    }

    fn add_parents(&mut self, path: &str) {
        let mut parent = split(path).0;
        while !parent.is_empty() && !self.entries.get(parent).is_some_and(Entry::is_directory) {
            self.entries.insert(parent.to_owned(), Entry::implied());
            parent = split(parent).0;
        }
    }

    fn remove(&mut self, path: &str) {
        self.entries.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, directory: &str) {
        let paths: Vec<String> = self.below(directory).map(|(path, _)| path.to_owned()).collect();
        for path in paths {
            self.entries.remove(&path);
        }
    }

    /// All entries, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// All entries in `directory` at any depth, sorted. The empty path is the rootfs itself.
    pub(crate) fn below(&self, directory: &str) -> impl Iterator<Item = (&str, &Entry)> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let start = self.entries.range(prefix.clone()..);
        start
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// The entry at exactly this path. Links are not followed.
    pub(crate) fn at(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(crate) fn whiteouts(&self) -> impl ExactSizeIterator<Item = &Whiteout> {
        self.whiteouts.iter()
    }

    /// Follows `path`, and every link on the way, inside the rootfs.
    pub(crate) fn resolve(&self, path: &str) -> Resolved<'_> {
        let at = |path: &str| self.entries.get(path).unwrap_or(&ROOT);
        let mut walk = Walk::along(path);
        let mut entry = &ROOT;
        while let Some(name) = walk.next_name() {
            if !entry.is_directory() {
                return Resolved::Missing;
            }
            if name == ".." {
                walk.go_up();
                entry = at(&walk.here);
                continue;
            }
            let next = join(&walk.here, &name);
            let Some(found) = self.entries.get(&next) else { return Resolved::Missing };
            if let Some(target) = found.target() {
                walk.follow(target);
                entry = at(&walk.here);
            } else {
                walk.here = next;
                entry = found;
            }
        }
        if walk.is_too_long() { Resolved::Loop } else { Resolved::Found { path: walk.here, entry } }
    }
}

/// The directory and the name of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The path of `name` in `directory`, which may be empty: the rootfs itself.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Spells a path as Go's `filepath.Clean` does: keeps a leading slash, and `..` at the start of a relative
/// path.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Whether a path that [`clean`] has spelled is outside the directory that it is relative to.
pub(super) fn is_outside(path: &str) -> bool {
    path == ".." || path.starts_with("../")
}

/// Whether a link at `path` leads out of the rootfs, judged by its text alone.
pub(crate) fn leads_out(path: &str, target: &str) -> bool {
    let from_root = match target.starts_with('/') {
        true => target.trim_start_matches('/').to_owned(),
        false => join(split(path).0, target),
    };
    is_outside(&clean(&from_root))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn file(mode: u32, head: &[u8]) -> Entry {
        let size = u64::try_from(head.len()).unwrap();
        let content = Content { size, ..Content::of_head(head) };
        Entry { kind: EntryKind::File(content), mode, uid: 0, gid: 0 }
    }

    pub(crate) fn directory() -> Entry {
        Entry::implied()
    }

    pub(crate) fn link(target: &str) -> Entry {
        Entry { kind: EntryKind::Link { target: target.to_owned() }, mode: 0o777, uid: 0, gid: 0 }
    }

    fn layer(entries: &[(&str, Entry)]) -> Layer {
        let mut layer = Layer::default();
        for (path, entry) in entries {
            layer.add(path, entry.clone());
        }
        layer
    }

    pub(crate) fn tree(entries: &[(&str, Entry)]) -> FileTree {
        let mut tree = FileTree::default();
        tree.add_layer(layer(entries));
        tree
    }

    fn paths(tree: &FileTree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn directories_that_are_not_listed_are_implied() {
        let tree = tree(&[("a/b/c", file(0o644, b"")), ("d", directory())]);
        assert_eq!(paths(&tree), ["a", "a/b", "a/b/c", "d"]);
    }

    #[test]
    fn upper_layers_hide_and_replace_what_lower_ones_have() {
        let low = [("a/x", file(0o644, b"1")), ("a/y", file(0o644, b"")), ("b/z", directory())];
        let mut tree = tree(&low);
        let plain = file(0o644, b"");
        tree.add_layer(layer(&[("a/.wh.x", plain.clone()), ("a/new", plain.clone())]));
        assert_eq!(paths(&tree), ["a", "a/new", "a/y", "b", "b/z"]);
        // A whiteout does not touch its own layer, whatever comes first in the archive.
        tree.add_layer(layer(&[("a/own", plain.clone()), ("a/.wh..wh..opq", plain.clone())]));
        assert_eq!(paths(&tree), ["a", "a/own", "b", "b/z"]);
        tree.add_layer(layer(&[("b", plain.clone()), ("x/.wh..wh.plnk", plain.clone())]));
        assert_eq!(paths(&tree), ["a", "a/own", "b"]);
        tree.add_layer(layer(&[("b/z", plain)]));
        assert!(tree.at("b").unwrap().is_directory());
        assert_eq!(
            tree.whiteouts().cloned().collect::<Vec<_>>(),
            [Whiteout::Of("a/x".to_owned()), Whiteout::Opaque("a".to_owned())]
        );
    }

    #[test]
    fn links_are_followed_as_if_the_rootfs_were_the_root() {
        let tree = tree(&[
            ("bin/tool", file(0o755, b"")),
            ("up", link("../../../bin/tool")),
            ("absolute", link("/bin")),
            ("usr/inner", link("../bin")),
            ("nowhere", link("/missing/x")),
            ("ring", link("ring")),
            ("through/file", link("/bin/tool/..")),
        ]);
        for path in ["bin/tool", "up", "absolute/tool", "/usr/inner/./tool", "usr/../up"] {
            let Resolved::Found { path: found, .. } = tree.resolve(path) else { panic!("{path}") };
            assert_eq!(found, "bin/tool");
        }
        assert_eq!(tree.resolve("nowhere"), Resolved::Missing);
        assert_eq!(tree.resolve("bin/tool/x"), Resolved::Missing);
        assert_eq!(tree.resolve("through/file"), Resolved::Missing);
        assert_eq!(tree.resolve("ring"), Resolved::Loop);
        assert_eq!(tree.resolve("usr/.."), Resolved::Found { path: String::new(), entry: &ROOT });
    }

    #[test]
    fn a_link_leads_out_when_it_has_more_dots_than_directories() {
        for (path, target, expected) in [
            ("a/b", "../x", false),
            ("a/b", "../../x", true),
            ("a", "..", true),
            ("a", "/..", true),
            ("a", "/b/../c", false),
            ("a/b", "../c/../../x", true),
        ] {
            assert_eq!(leads_out(path, target), expected, "{path} -> {target}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct TooMuch;
}
