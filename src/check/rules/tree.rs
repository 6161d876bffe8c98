//! The files of an image as a listing: what the rules look at, however it was read. Layers are put
//! on top of each other here, and links are followed here, as the runtime follows them: as if the
//! rootfs were `/`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many links are followed, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How many names are followed on the way, links unfolded. No path of an image has so many; without
/// a limit a few links that unfold each other take hours.
pub(crate) const STEPS_MAX: usize = 1024;
/// How much the entries of one rootfs may weigh: about the bytes of memory that they take.
pub(crate) const WEIGHT_MAX: usize = 512 * 1024 * 1024;
/// What an entry weighs beside its names.
const ENTRY_WEIGHT: usize = 256;
/// What image layers put before the name of a file that the layers below have and that shall not be
/// there (OCI image-spec, layer.md).
const WHITEOUT: &str = ".wh.";
/// Hides everything that the layers below have in its folder.
const OPAQUE: &str = ".wh..wh..opq";
/// Names with this are book-keeping of an old storage driver.
const BOOKKEEPING: &str = ".wh..wh.";

/// One file, folder, link or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// The permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File(Content),
    Link {
        target: String,
    },
    /// The number of a character device 0/0 is that of an overlay whiteout.
    Device,
    Fifo,
    Socket,
}

/// What is known of a file's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) size: u64,
    /// The first line of a script, the first bytes of an ELF file, or nothing.
    pub(crate) head: Vec<u8>,
    /// Whether a line of a script's beginning ends in CR LF.
    pub(crate) line_ends: LineEnds,
    /// The dynamic loader that an ELF program names.
    pub(crate) loader: Option<String>,
    /// Only of files that may be a kernel.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The kernel release that a module was built for, as it says itself.
    pub(crate) module_release: Option<String>,
    /// Whether it has file capabilities (capabilities(7)).
    pub(crate) capable: bool,
    /// Whether the first line of a script is longer than the kernel reads.
    pub(crate) long_line: bool,
}

/// How the lines of a script end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LineEnds {
    #[default]
    Unix,
    Dos,
}

impl Entry {
    /// A folder that nobody listed, but that files are in.
    pub(crate) fn implied() -> Self {
        Self { kind: Kind::Folder, mode: 0o755, uid: 0, gid: 0 }
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    pub(crate) fn weight(&self) -> usize {
        ENTRY_WEIGHT
            + match &self.kind {
                Kind::Link { target } => target.len(),
                Kind::File(content) => content.head.len(),
                Kind::Folder | Kind::Device | Kind::Fifo | Kind::Socket => 0,
            }
    }

    pub(crate) fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(content) => Some(content),
            Kind::Folder | Kind::Link { .. } | Kind::Device | Kind::Fifo | Kind::Socket => None,
        }
    }
}

/// A path that leaves the rootfs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?} leads out of the rootfs")]
pub(crate) struct Outside {
    pub(crate) path: String,
}

/// A rootfs that would take too much memory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has too many files for an extension, or too long paths")]
pub(crate) struct TooMuch;

/// A file of a lower layer, or of the host, that is made to disappear.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whiteout {
    Of(String),
    /// Of all that lies below in this folder; the rootfs itself is the empty path.
    Opaque(String),
}

/// One layer as it is read: entries in any order, whiteouts apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    entries: BTreeMap<String, Entry>,
    whiteouts: Vec<Whiteout>,
    weight: usize,
}

impl Layer {
    /// A layer that was unpacked.
    pub(super) fn of(
        entries: BTreeMap<String, Entry>,
        whiteouts: Vec<Whiteout>,
        weight: usize,
    ) -> Self {
        Self { entries, whiteouts, weight }
    }

    /// Adds what stands at `path`, in any spelling.
    ///
    /// # Errors
    /// The path leads out of the rootfs.
    pub(crate) fn add(&mut self, path: &str, entry: Entry) -> Result<(), Outside> {
        let path = normal(path)?;
        let (folder, name) = split(&path);
        self.weight += path.len() + entry.weight();
        if name == OPAQUE {
            self.whiteouts.push(Whiteout::Opaque(folder.to_owned()));
        } else if name.starts_with(BOOKKEEPING) {
            // Says nothing about the image.
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            self.whiteouts.push(Whiteout::Of(join(folder, hidden)));
        } else if !path.is_empty() {
            self.entries.insert(path, entry);
        }
        Ok(())
    }

    /// Adds the whiteout of overlayfs, a character device 0/0 in the place of what is hidden.
    pub(crate) fn add_overlay_whiteout(&mut self, path: &str) -> Result<(), Outside> {
        let path = normal(path)?;
        self.weight += path.len() + ENTRY_WEIGHT;
        self.whiteouts.push(Whiteout::Of(path));
        Ok(())
    }

    /// Marks the folder at `path` as hiding all that lies below it.
    pub(crate) fn add_opaque(&mut self, path: &str) -> Result<(), Outside> {
        let path = normal(path)?;
        self.weight += path.len() + ENTRY_WEIGHT;
        self.whiteouts.push(Whiteout::Opaque(path));
        Ok(())
    }

    /// How many entries there are, to bound them.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.whiteouts.len()
    }

    /// How much memory it takes, about, to bound that.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }
}

/// A whole rootfs, its paths without a leading slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
    /// Of every layer, also those that have done their work inside the image.
    whiteouts: BTreeSet<Whiteout>,
    weight: usize,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolved<'a> {
    /// The rootfs itself.
    Root,
    Found {
        path: String,
        entry: &'a Entry,
    },
    Missing,
    /// Too many links, or too long a way.
    Loop,
}

impl Tree {
    /// Puts `layer` on top: first what it hides, then what it brings.
    ///
    /// # Errors
    /// It is too much, and the tree is of no use any more.
    pub(crate) fn add_layer(&mut self, layer: Layer) -> Result<(), TooMuch> {
        self.weight += layer.weight;
        for whiteout in &layer.whiteouts {
            match whiteout {
                Whiteout::Of(path) => self.remove(path),
                Whiteout::Opaque(folder) => self.remove_below(folder),
            }
        }
        self.whiteouts.extend(layer.whiteouts);
        for (path, entry) in layer.entries {
            let replaced = self.entries.get(&path);
            if replaced.is_some_and(Entry::is_folder) && !entry.is_folder() {
                self.remove_below(&path);
            }
            self.make_parents(&path)?;
            self.entries.insert(path, entry);
        }
        if self.weight > WEIGHT_MAX { Err(TooMuch) } else { Ok(()) }
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    fn make_parents(&mut self, path: &str) -> Result<(), TooMuch> {
        let mut folder = split(path).0;
        while !folder.is_empty() {
            match self.entries.get(folder) {
                Some(entry) if entry.is_folder() => break,
                Some(_) | None => {
                    self.entries.insert(folder.to_owned(), Entry::implied());
                    self.weight += folder.len() + ENTRY_WEIGHT;
                    if self.weight > WEIGHT_MAX {
                        return Err(TooMuch);
                    }
                }
            }
            folder = split(folder).0;
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        self.entries.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, folder: &str) {
        let gone: Vec<String> = self.below(folder).map(|(path, _)| path.to_owned()).collect();
        for path in gone {
            self.entries.remove(&path);
        }
    }

    /// All entries, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// All that lies in `folder` at any depth, sorted; of the empty path everything.
    pub(crate) fn below(&self, folder: &str) -> impl Iterator<Item = (&str, &Entry)> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let start = self.entries.range(prefix.clone()..);
        start
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// What stands at exactly this path, links not followed.
    pub(crate) fn at(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(crate) fn whiteouts(&self) -> impl ExactSizeIterator<Item = &Whiteout> {
        self.whiteouts.iter()
    }

    /// Follows `path`, and every link on the way, inside the rootfs.
    pub(crate) fn resolve(&self, path: &str) -> Resolved<'_> {
        let mut ahead: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut here = String::new();
        let (mut links, mut steps) = (0, 0);
        let mut found = None;
        while let Some(name) = ahead.pop_front() {
            steps += 1;
            if steps > STEPS_MAX {
                return Resolved::Loop;
            }
            if name.is_empty() || name == "." {
                continue;
            }
            if found.is_some_and(|entry: &Entry| !entry.is_folder()) {
                return Resolved::Missing;
            }
            if name == ".." {
                here = split(&here).0.to_owned();
                found = self.entries.get(&here);
                continue;
            }
            let next = join(&here, &name);
            let Some(entry) = self.entries.get(&next) else { return Resolved::Missing };
            if let Kind::Link { target } = &entry.kind {
                links += 1;
                if links > LINKS_MAX {
                    return Resolved::Loop;
                }
                if target.starts_with('/') {
                    here = String::new();
                }
                found = self.entries.get(&here);
                for part in target.rsplit('/') {
                    ahead.push_front(part.to_owned());
                }
                continue;
            }
            here = next;
            found = Some(entry);
        }
        match found {
            Some(entry) => Resolved::Found { path: here, entry },
            None => Resolved::Root,
        }
    }
}

/// The folder and the name of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// A name in a folder, which may be the rootfs itself.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The one spelling of `path`: no leading slash, no `.`, no empty part.
///
/// # Errors
/// It leads out of the rootfs.
pub(crate) fn normal(path: &str) -> Result<String, Outside> {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(Outside { path: path.to_owned() });
    }
    Ok(parts.join("/"))
}

/// Whether a link at `path` climbs out of the rootfs, by its letters alone.
pub(crate) fn climbs_out(path: &str, target: &str) -> bool {
    let mut depth = match target.starts_with('/') {
        true => 0,
        false => split(path).0.split('/').filter(|part| !part.is_empty()).count(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn file(mode: u32, head: &[u8]) -> Entry {
        let size = u64::try_from(head.len()).unwrap();
        let content = Content { size, ..Content::of_head(head) };
        Entry { kind: Kind::File(content), mode, uid: 0, gid: 0 }
    }

    pub(crate) fn folder() -> Entry {
        Entry::implied()
    }

    pub(crate) fn link(target: &str) -> Entry {
        Entry { kind: Kind::Link { target: target.to_owned() }, mode: 0o777, uid: 0, gid: 0 }
    }

    fn layer(entries: &[(&str, Entry)]) -> Layer {
        let mut layer = Layer::default();
        for (path, entry) in entries {
            layer.add(path, entry.clone()).unwrap();
        }
        layer
    }

    pub(crate) fn tree(entries: &[(&str, Entry)]) -> Tree {
        let mut tree = Tree::default();
        tree.add_layer(layer(entries)).unwrap();
        tree
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn every_spelling_of_a_path_is_one_path_and_missing_folders_are_implied() {
        let tree = tree(&[("./a//b/./c", file(0o644, b"")), ("/d/", folder())]);
        assert_eq!(paths(&tree), ["a", "a/b", "a/b/c", "d"]);
        let error = Layer::default().add("a/../../etc/passwd", folder()).unwrap_err();
        assert_eq!(error.to_string(), r#"the path "a/../../etc/passwd" leads out of the rootfs"#);
    }

    #[test]
    fn upper_layers_hide_and_replace_what_lower_ones_have() {
        let low = [("a/x", file(0o644, b"1")), ("a/y", file(0o644, b"")), ("b/z", folder())];
        let mut tree = tree(&low);
        let plain = file(0o644, b"");
        tree.add_layer(layer(&[("a/.wh.x", plain.clone()), ("a/new", plain.clone())])).unwrap();
        assert_eq!(paths(&tree), ["a", "a/new", "a/y", "b", "b/z"]);
        // A whiteout does not touch its own layer, whatever comes first in the archive.
        tree.add_layer(layer(&[("a/own", plain.clone()), ("a/.wh..wh..opq", plain.clone())]))
            .unwrap();
        assert_eq!(paths(&tree), ["a", "a/own", "b", "b/z"]);
        tree.add_layer(layer(&[("b", plain.clone()), ("x/.wh..wh.plnk", plain.clone())])).unwrap();
        assert_eq!(paths(&tree), ["a", "a/own", "b"]);
        tree.add_layer(layer(&[("b/z", plain)])).unwrap();
        assert!(tree.at("b").unwrap().is_folder());
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
        assert_eq!(tree.resolve("usr/.."), Resolved::Root);
    }

    #[test]
    fn a_link_climbs_out_when_it_has_more_dots_than_folders() {
        for (path, target, expected) in [
            ("a/b", "../x", false),
            ("a/b", "../../x", true),
            ("a", "..", true),
            ("a", "/..", true),
            ("a", "/b/../c", false),
            ("a/b", "../c/../../x", true),
        ] {
            assert_eq!(climbs_out(path, target), expected, "{path} -> {target}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct Outside { path };
    struct TooMuch;
}
