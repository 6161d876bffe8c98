//! A directory tree as a value: what a disk holds after a power cut. It is read from a directory, changed by the recorded
//! operations of a program, and written to a directory again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

/// The inode number of a file, directory or link.
pub(crate) type NodeId = u64;

/// What has an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File { bytes: Vec<u8>, mode: u32 },
    Folder { entries: BTreeMap<String, NodeId>, mode: u32 },
    Link { target: String },
}

/// One change of the tree.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write {
        file: NodeId,
        at: usize,
        bytes: Vec<u8>,
    },
    Resize {
        file: NodeId,
        len: usize,
    },
    Mode {
        node: NodeId,
        mode: u32,
    },
    /// A new name.
    Name {
        folder: NodeId,
        name: String,
        node: NodeId,
    },
    /// Both names at once.
    Rename {
        folder: NodeId,
        from: String,
        to: String,
        node: NodeId,
    },
    Remove {
        folder: NodeId,
        name: String,
    },
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaf {
    File { bytes: Vec<u8>, mode: u32 },
    Folder { mode: u32 },
    Link { target: String },
}

/// A tree, and nodes that may not have a name.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    top: NodeId,
    nodes: BTreeMap<NodeId, Node>,
}

impl Disk {
    /// Reads the tree below `path`.
    pub(crate) fn load(path: &Path) -> Self {
        let mut disk = Self { top: fs::metadata(path).unwrap().ino(), nodes: BTreeMap::new() };
        disk.read(path);
        disk
    }

    fn read(&mut self, path: &Path) {
        let node = read_node(path);
        if let Node::Folder { entries, .. } = &node {
            entries.keys().for_each(|name| self.read(&path.join(name)));
        }
        self.nodes.insert(fs::symlink_metadata(path).unwrap().ino(), node);
    }

    /// Adds a node that has no name yet.
    pub(crate) fn add(&mut self, id: NodeId, node: Node) {
        self.nodes.insert(id, node);
    }

    pub(crate) fn has(&self, id: NodeId) -> bool {
        self.nodes.contains_key(&id)
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, at, bytes } => {
                let content = self.content(*file);
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Change::Resize { file, len } => self.content(*file).resize(*len, 0),
            Change::Mode { node, mode: new } => match self.nodes.get_mut(node).unwrap() {
                Node::File { mode, .. } | Node::Folder { mode, .. } => *mode = *new,
                Node::Link { .. } => panic!("a link has no mode"),
            },
            Change::Name { folder, name, node } => {
                self.entries(*folder).insert(name.clone(), *node);
            }
            Change::Rename { folder, from, to, node } => {
                let entries = self.entries(*folder);
                if entries.get(from) == Some(node) {
                    entries.remove(from);
                }
                entries.insert(to.clone(), *node);
            }
            Change::Remove { folder, name } => {
                self.entries(*folder).remove(name);
            }
        }
    }

    /// The length of a file.
    pub(crate) fn len(&self, file: NodeId) -> usize {
        match &self.nodes[&file] {
            Node::File { bytes, .. } => bytes.len(),
            other => panic!("no file: {other:?}"),
        }
    }

    fn content(&mut self, file: NodeId) -> &mut Vec<u8> {
        match self.nodes.get_mut(&file).unwrap() {
            Node::File { bytes, .. } => bytes,
            other => panic!("no file: {other:?}"),
        }
    }

    fn entries(&mut self, folder: NodeId) -> &mut BTreeMap<String, NodeId> {
        match self.nodes.get_mut(&folder).unwrap() {
            Node::Folder { entries, .. } => entries,
            other => panic!("no directory: {other:?}"),
        }
    }

    /// What the paths below the top lead to.
    pub(crate) fn tree(&self) -> BTreeMap<String, Leaf> {
        let mut tree = BTreeMap::new();
        let mut left = vec![(String::new(), self.top)];
        while let Some((path, id)) = left.pop() {
            let leaf = match self.nodes[&id].clone() {
                Node::File { bytes, mode } => Leaf::File { bytes, mode },
                Node::Link { target } => Leaf::Link { target },
                Node::Folder { entries, mode } => {
                    left.extend(entries.into_iter().map(|(name, id)| {
                        (if path.is_empty() { name } else { format!("{path}/{name}") }, id)
                    }));
                    Leaf::Folder { mode }
                }
            };
            tree.insert(path, leaf);
        }
        tree
    }

    /// The content of the file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<Vec<u8>> {
        match self.tree().remove(path) {
            Some(Leaf::File { bytes, .. }) => Some(bytes),
            _ => None,
        }
    }
}

/// Reads one node; a directory without what is in its entries.
pub(crate) fn read_node(path: &Path) -> Node {
    let metadata = fs::symlink_metadata(path).unwrap();
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_symlink() {
        return Node::Link { target: fs::read_link(path).unwrap().to_str().unwrap().to_owned() };
    }
    if !metadata.is_dir() {
        return Node::File { bytes: fs::read(path).unwrap(), mode };
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let id = fs::symlink_metadata(entry.path()).unwrap().ino();
        (entry.file_name().to_str().unwrap().to_owned(), id)
    });
    Node::Folder { entries: entries.collect(), mode }
}

/// Writes a tree to `top`, instead of what is there.
pub(crate) fn write(tree: &BTreeMap<String, Leaf>, top: &Path) {
    drop(fs::remove_dir_all(top));
    // A directory comes before what is below it.
    for (path, leaf) in tree {
        let path = top.join(path);
        match leaf {
            Leaf::Folder { .. } => fs::create_dir(&path).unwrap(),
            Leaf::Link { target } => symlink(target, &path).unwrap(),
            Leaf::File { bytes, mode } => {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }
    for (path, leaf) in tree {
        if let Leaf::Folder { mode } = leaf {
            fs::set_permissions(top.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}
