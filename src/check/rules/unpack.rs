//! Unpacks a layer as engines do, without a disk: what they would refuse is found here, and where each
//! file would end up. The steps are those of Moby's `pkg/archive` (`Unpack`, `createTarFile`, and the
//! conversion of whiteouts for overlayfs) in an empty folder that is its root, together with the check
//! of names in `tar-split`, through which it reads every layer. `tests/engines` compares with dockerd.

use crate::check::rules::layer::{
    FAULTS_MAX, Fault, Member, NAME_MAX, PATH_MAX, Unpacked, What, Why,
};
use crate::check::rules::tree::{Entry, Kind, Layer, STEPS_MAX, Whiteout, join, split};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What an engine puts before each path: its data root, `overlay2`, the name of the layer, `diff`.
const DATA_ROOT_LEN: usize = "/var/lib/docker/overlay2/".len() + 64 + "/diff/".len();
/// How many links the kernel follows on one way.
const LINKS_MAX: usize = 40;
/// The longest name, and the longest value, of an attribute (xattr(7)).
const ATTRIBUTE_NAME_MAX: usize = 255;
const ATTRIBUTE_MAX: usize = 65_536;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// How far links are followed in all; in an image that is no trap, some megabytes.
const WALKED_MAX: usize = 1 << 30;
/// A layer while it is unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacking {
    entries: BTreeMap<String, Entry>,
    /// Where there is a whiteout of overlayfs instead of an entry.
    hidden: BTreeSet<String>,
    opaque: BTreeSet<String>,
    /// The paths that have stood in the archive, in the spelling that `tar-split` compares.
    seen: BTreeSet<String>,
    /// Their times are set when all is unpacked.
    folders: Vec<String>,
    climbs: Option<String>,
    faults: Vec<Fault>,
    weight: usize,
    /// How many bytes of names were followed through links, to bound the time that takes.
    walked: Cell<usize>,
}

/// What stands at a path.
enum Node<'a> {
    Root,
    Entry(&'a Entry),
    Whiteout,
}

/// Why a way ends before its last name.
enum Blocked {
    Missing { last_link: Option<String> },
    Why(Why),
}

impl Unpacking {
    /// How much memory it takes, about, to bound that.
    pub(crate) fn weight(&self) -> usize {
        if self.walked.get() > WALKED_MAX { usize::MAX / 2 } else { self.weight }
    }

    /// Whether there is a file at `path`.
    pub(crate) fn has_file(&self, path: &str) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.content().is_some())
    }

    /// Where there is something that is not a folder.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let files = self.entries.iter().filter(|(_, entry)| !entry.is_folder());
        files.map(|(path, _)| path.as_str())
    }

    /// Unpacks the next entry. What goes wrong is kept, and the rest goes on without it.
    pub(crate) fn add(&mut self, member: Member) {
        let name = clean(&member.name);
        let given = name.trim_start_matches('/').to_owned();
        self.weight += 2 * name.len() + 64;
        if !self.seen.insert(name.clone()) {
            self.fault(&given, Why::Twice);
        }
        if matches!(member.what, What::Global) {
            return;
        }
        if name.starts_with("..") && self.climbs.is_none() && leaves(&name) {
            self.climbs = Some(name.clone());
        }
        if let Err(why) = self.unpack(&name, member) {
            self.fault(&given, why);
        }
    }

    /// What is no layer at all.
    pub(crate) fn unreadable(why: String) -> Unpacked {
        let mut unpacking = Self::default();
        unpacking.fault("", Why::Unreadable(why));
        unpacking.finish()
    }

    /// Keeps a fault, if it is not one too many.
    pub(crate) fn fault(&mut self, path: &str, why: Why) {
        if self.faults.len() < FAULTS_MAX {
            let path = Some(path.to_owned()).filter(|path| !path.is_empty());
            self.faults.push(Fault { path, why });
        }
    }

    /// What it has become.
    pub(crate) fn finish(mut self) -> Unpacked {
        for folder in std::mem::take(&mut self.folders) {
            if self.resolve(&folder).is_err() {
                self.fault(&folder, Why::FolderGone);
            }
        }
        // Names like `.wh..wh.plnk` are the book-keeping of an old storage driver.
        let of_image = |path: &String| !split(path).1.starts_with(WHITEOUT);
        let whiteouts = self.hidden.into_iter().filter(of_image).map(Whiteout::Of);
        let whiteouts = whiteouts.chain(self.opaque.into_iter().map(Whiteout::Opaque)).collect();
        let layer = Layer::of(self.entries, whiteouts, self.weight);
        Unpacked { layer, faults: self.faults, climbs: self.climbs }
    }

    fn unpack(&mut self, name: &str, member: Member) -> Result<(), Why> {
        let path = from_root(name);
        self.make_parents(split(&path).0)?;
        let place = self.place(&path);
        if let Ok(place) = &place {
            let is_folder = match self.node(place) {
                Some(Node::Root) => true,
                Some(Node::Entry(entry)) => entry.is_folder(),
                Some(Node::Whiteout) | None => false,
            };
            if is_folder && name == "." {
                return Ok(());
            }
            if !(is_folder && matches!(member.what, What::Folder)) {
                self.remove(place)?;
            }
        }
        let (folder, base) = split(&path);
        if base == OPAQUE {
            return self.make_opaque(folder);
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT) {
            return self.make_whiteout(&from_root(&join(folder, hidden)));
        }
        self.create(&path, place?, member)
    }

    fn create(&mut self, path: &str, place: String, member: Member) -> Result<(), Why> {
        let Member { mode, uid, gid, .. } = member;
        let entry = |kind| Entry { kind, mode, uid, gid };
        let mut made = match member.what {
            What::File(content) => entry(Kind::File(content)),
            What::Folder => {
                self.weight += path.len();
                self.folders.push(path.to_owned());
                entry(Kind::Folder)
            }
            What::Link { target } if target.is_empty() || target.len() > PATH_MAX => {
                return Err(Why::Target);
            }
            What::Link { target } => entry(Kind::Link { target }),
            What::HardLink { target } => {
                let source = self.source(&target)?;
                match self.entries.get_mut(&source) {
                    // Both names have the permissions that stand with the second.
                    Some(shared) => {
                        if !matches!(shared.kind, Kind::Link { .. }) {
                            (shared.mode, shared.uid, shared.gid) = (mode, uid, gid);
                        }
                        shared.clone()
                    }
                    None => {
                        self.hidden.insert(place);
                        return Ok(());
                    }
                }
            }
            What::Device { whiteout: true } => {
                self.weight += place.len();
                self.hidden.insert(place);
                return Ok(());
            }
            What::Device { whiteout: false } => entry(Kind::Device),
            What::Fifo => entry(Kind::Fifo),
            What::Global => return Ok(()),
            What::Unknown { flag: b'S' } => return Err(Why::Sparse),
            What::Unknown { flag } => return Err(Why::Unknown { flag }),
        };
        let is_folder = made.is_folder();
        let mut refused = None;
        for (name, value) in &member.attributes {
            if !is_taken(name, value) {
                refused.get_or_insert_with(|| Why::Attribute { name: name.clone() });
            }
            if let Kind::File(content) = &mut made.kind {
                content.capable |= name == "security.capability";
            }
            if is_folder && name.ends_with(".overlay.opaque") && value == b"y" {
                self.opaque.insert(place.clone());
            }
        }
        self.weight += place.len() + made.weight();
        if !place.is_empty() {
            self.entries.insert(place, made);
        }
        refused.map_or(Ok(()), Err)
    }

    /// The file that a hard link is to.
    fn source(&self, target: &str) -> Result<String, Why> {
        let missing = || Why::HardLink { target: target.to_owned() };
        let source = self.place(&from_root(target)).map_err(|_| missing())?;
        match self.node(&source) {
            None => Err(missing()),
            Some(Node::Root) => Err(Why::HardLinkToFolder { target: target.to_owned() }),
            Some(Node::Entry(entry)) if entry.is_folder() => {
                Err(Why::HardLinkToFolder { target: target.to_owned() })
            }
            Some(Node::Entry(_) | Node::Whiteout) => Ok(source),
        }
    }

    /// The folder may be reached through links, and may be a file, which then is marked in vain.
    fn make_opaque(&mut self, folder: &str) -> Result<(), Why> {
        let place = self.resolve(folder).map_err(why)?;
        let is_folder = match self.node(&place) {
            Some(Node::Entry(entry)) => entry.is_folder(),
            Some(Node::Root) => true,
            Some(Node::Whiteout) | None => false,
        };
        if is_folder {
            self.weight += place.len() + 64;
            self.opaque.insert(place);
        }
        Ok(())
    }

    fn make_whiteout(&mut self, path: &str) -> Result<(), Why> {
        let place = self.place(path)?;
        if self.node(&place).is_some() {
            return Err(Why::OwnWhiteout);
        }
        self.weight += place.len() + 64;
        self.hidden.insert(place);
        Ok(())
    }

    /// Makes the folder that something is to lie in, if it is not there. What hinders it is found again
    /// when the file itself is made, with the exception of links to nothing.
    fn make_parents(&mut self, folder: &str) -> Result<(), Why> {
        if !self.is_missing(folder) {
            return Ok(());
        }
        let mut path = String::new();
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            path = join(&path, name);
            match self.resolve(&path) {
                Ok(_) => {}
                Err(Blocked::Missing { last_link: None }) => {
                    let place = self.place(&path)?;
                    self.weight += place.len() + Entry::implied().weight();
                    self.entries.insert(place, Entry::implied());
                }
                Err(blocked) => return Err(why(blocked)),
            }
        }
        Ok(())
    }

    /// Whether nothing stands at `path`, a link at its end not followed. Of a way that ends at something
    /// else that is not known.
    fn is_missing(&self, path: &str) -> bool {
        let (folder, name) = split(path);
        if name.is_empty() {
            return false;
        }
        match self.folder(folder) {
            Ok(folder) => checked(name, path).is_ok() && self.node(&join(&folder, name)).is_none(),
            Err(Blocked::Missing { .. }) => true,
            Err(Blocked::Why(_)) => false,
        }
    }

    /// Where a file of this path would be made, the links on the way followed.
    fn place(&self, path: &str) -> Result<String, Why> {
        let (folder, name) = split(path);
        if name.is_empty() {
            return Ok(String::new());
        }
        Ok(join(&self.folder(folder).map_err(why)?, checked(name, path)?))
    }

    /// The folder at `path`, and nothing else.
    fn folder(&self, path: &str) -> Result<String, Blocked> {
        let place = self.resolve(path)?;
        match self.node(&place) {
            Some(Node::Root) => Ok(place),
            Some(Node::Entry(entry)) if entry.is_folder() => Ok(place),
            found => Err(Blocked::Why(Why::Below { at: place, what: noun(found.as_ref()) })),
        }
    }

    /// Follows `path` as the kernel does.
    fn resolve(&self, path: &str) -> Result<String, Blocked> {
        // What has an entry of its own is reached through no link.
        match self.node(path) {
            Some(Node::Entry(entry)) if matches!(entry.kind, Kind::Link { .. }) => {}
            Some(_) => return Ok(path.to_owned()),
            None => {}
        }
        let mut ahead: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut here = String::new();
        let (mut links, mut steps) = (0, 0);
        let mut last_link = None;
        while let Some(name) = ahead.pop_front() {
            steps += 1;
            self.walked.set(self.walked.get().saturating_add(here.len() + name.len()));
            if steps > STEPS_MAX {
                return Err(Blocked::Why(Why::Loop));
            }
            if name.is_empty() || name == "." {
                continue;
            }
            match self.node(&here) {
                Some(Node::Root) => {}
                Some(Node::Entry(entry)) if entry.is_folder() => {}
                found => {
                    let what = noun(found.as_ref());
                    return Err(Blocked::Why(Why::Below { at: here, what }));
                }
            }
            if name == ".." {
                here = split(&here).0.to_owned();
                continue;
            }
            let next = join(&here, checked(&name, "").map_err(Blocked::Why)?);
            match self.node(&next) {
                None => return Err(Blocked::Missing { last_link }),
                Some(Node::Entry(Entry { kind: Kind::Link { target }, .. })) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Blocked::Why(Why::Loop));
                    }
                    last_link = Some(next);
                    if target.starts_with('/') {
                        here = String::new();
                    }
                    for part in target.rsplit('/') {
                        ahead.push_front(part.to_owned());
                    }
                }
                Some(_) => here = next,
            }
        }
        Ok(here)
    }

    fn node(&self, place: &str) -> Option<Node<'_>> {
        if place.is_empty() {
            return Some(Node::Root);
        }
        match self.entries.get(place) {
            Some(entry) => Some(Node::Entry(entry)),
            None => self.hidden.contains(place).then_some(Node::Whiteout),
        }
    }

    fn remove(&mut self, place: &str) -> Result<(), Why> {
        if place.is_empty() {
            return Err(Why::Root);
        }
        self.hidden.remove(place);
        self.opaque.remove(place);
        if self.entries.remove(place).is_some_and(|entry| entry.is_folder()) {
            let prefix = format!("{place}/");
            for gone in below(self.entries.range(prefix.clone()..).map(|(path, _)| path), &prefix) {
                self.entries.remove(&gone);
            }
            for set in [&mut self.hidden, &mut self.opaque] {
                for gone in below(set.range(prefix.clone()..), &prefix) {
                    set.remove(&gone);
                }
            }
        }
        Ok(())
    }
}

fn below<'a>(paths: impl Iterator<Item = &'a String>, prefix: &str) -> Vec<String> {
    paths.take_while(|path| path.starts_with(prefix)).cloned().collect()
}

fn why(blocked: Blocked) -> Why {
    match blocked {
        Blocked::Why(why) => why,
        Blocked::Missing { last_link: Some(at) } => Why::Behind { at },
        // Folders that nobody listed are made.
        Blocked::Missing { last_link: None } => Why::FolderGone,
    }
}

fn noun(node: Option<&Node<'_>>) -> &'static str {
    match node {
        Some(Node::Root) => "the rootfs",
        Some(Node::Whiteout) => "a whiteout",
        None => "nothing",
        Some(Node::Entry(entry)) => match entry.kind {
            Kind::Folder => "a folder",
            Kind::File(_) => "a file",
            Kind::Link { .. } => "a link",
            Kind::Device => "a device",
            Kind::Fifo => "a FIFO",
            Kind::Socket => "a socket",
        },
    }
}

/// `name` as the last of `path`, if the kernel takes both.
fn checked<'a>(name: &'a str, path: &str) -> Result<&'a str, Why> {
    if name.len() > NAME_MAX || path.len() + DATA_ROOT_LEN > PATH_MAX {
        return Err(Why::TooLong);
    }
    Ok(name)
}

/// The path in the one spelling that Go's `filepath.Clean` gives it: a leading slash stays, and so does
/// `..` at the start of a path without one.
fn clean(path: &str) -> String {
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

/// The path below the root of the rootfs, which `..` does not leave.
pub(crate) fn from_root(path: &str) -> String {
    clean(&format!("/{path}")).trim_start_matches('/').to_owned()
}

fn leaves(clean: &str) -> bool {
    clean == ".." || clean.starts_with("../")
}

/// Whether the kernel takes an extended attribute (xattr(7)). What a filesystem does not permit, engines
/// leave out.
fn is_taken(name: &str, value: &[u8]) -> bool {
    let spaces = ["user.", "trusted.", "security.", "system."];
    let known =
        spaces.iter().any(|space| name.strip_prefix(space).is_some_and(|rest| !rest.is_empty()));
    let fits = name.len() <= ATTRIBUTE_NAME_MAX && value.len() <= ATTRIBUTE_MAX;
    let valid = match name {
        "security.capability" => is_capability(value),
        "system.posix_acl_access" | "system.posix_acl_default" => is_access_list(value),
        _ => true,
    };
    known && fits && valid
}

/// The two revisions of `struct vfs_cap_data` that setxattr(2) takes (linux/capability.h).
fn is_capability(value: &[u8]) -> bool {
    let revision = value.get(..4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    match revision.map(|word| u32::from_le_bytes(word) & 0xff00_0000) {
        Some(0x0200_0000) => value.len() == 20,
        Some(0x0300_0000) => value.len() == 24,
        Some(_) | None => false,
    }
}

/// A header with its version, and entries of 8 bytes (linux/posix_acl_xattr.h).
fn is_access_list(value: &[u8]) -> bool {
    value.is_empty() || value.starts_with(&[2, 0, 0, 0]) && value.len() % 8 == 4
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
