//! Unpacks a layer as engines do, in memory: finds what they would refuse, and where each file would end
//! up. The steps are those of Moby's `pkg/archive` (`Unpack`, `createTarFile`, and the conversion of
//! whiteouts for overlayfs) in an empty directory as root, and the check of names in `tar-split`, through
//! which Moby reads every layer. `tests/engines` compares the result with dockerd.

use crate::check::rules::layer::{
    FAULTS_MAX, Fault, FaultKind, Member, MemberKind, NAME_MAX, PATH_MAX, Unpacked,
};
use crate::check::rules::tree::{
    Entry, EntryKind, Layer, OPAQUE, ROOT, WHITEOUT, Walk, Whiteout, clean, is_outside, join, split,
};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// The length of what an engine puts before each path.
const DATA_ROOT_LEN: usize = "/var/lib/docker/overlay2/".len() + 64 + "/diff/".len();
/// The longest name, and the longest value, of an attribute (xattr(7)).
const ATTRIBUTE_NAME_MAX: usize = 255;
const ATTRIBUTE_MAX: usize = 65_536;

/// A layer while it is unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacking {
    entries: BTreeMap<String, Entry>,
    /// The places of overlayfs whiteouts.
    hidden: BTreeSet<String>,
    opaque: BTreeSet<String>,
    /// The paths in the archive so far, in the spelling that `tar-split` compares.
    seen: BTreeSet<String>,
    /// The directories whose times are set at the end.
    directories: Vec<String>,
    leads_out: Option<String>,
    faults: Vec<Fault>,
    /// The bytes of all paths that were stored or followed through links: bounds memory and time.
    weight: Cell<usize>,
}

/// What exists at a path.
enum Node<'a> {
    Entry(&'a Entry),
    Whiteout,
}

/// Why a path cannot be followed to its end.
enum Blocked {
    Missing { last_link: Option<String> },
    Fault(FaultKind),
}

impl From<FaultKind> for Blocked {
    fn from(kind: FaultKind) -> Self {
        Self::Fault(kind)
    }
}

impl From<Blocked> for FaultKind {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::Fault(kind) => kind,
            Blocked::Missing { last_link: Some(at) } => Self::Behind { at },
            // Missing directories are made.
            Blocked::Missing { last_link: None } => Self::DirectoryGone,
        }
    }
}

impl Unpacking {
    /// Its memory, about. Grows also while links are followed.
    pub(crate) fn weight(&self) -> usize {
        self.weight.get()
    }

    fn add_weight(&self, bytes: usize) {
        self.weight.set(self.weight.get().saturating_add(bytes));
    }

    pub(crate) fn has_file(&self, path: &str) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.content().is_some())
    }

    /// The paths of everything but directories.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let files = self.entries.iter().filter(|(_, entry)| !entry.is_directory());
        files.map(|(path, _)| path.as_str())
    }

    /// Unpacks the next entry. A fault is kept, and the entry is skipped.
    pub(crate) fn add(&mut self, member: Member) {
        let name = clean(&member.name);
        let given = name.trim_start_matches('/').to_owned();
        self.add_weight(2 * name.len());
        if !self.seen.insert(name.clone()) {
            self.add_fault(&given, FaultKind::Twice);
        }
        if matches!(member.kind, MemberKind::Global) {
            return;
        }
        if self.leads_out.is_none() && is_outside(&name) {
            self.leads_out = Some(name.clone());
        }
        if let Err(kind) = self.unpack(&name, member) {
            self.add_fault(&given, kind);
        }
    }

    /// The result for a file that is not a layer.
    pub(crate) fn unreadable(why: String) -> Unpacked {
        let mut unpacking = Self::default();
        unpacking.add_fault("", FaultKind::Unreadable(why));
        unpacking.finish()
    }

    /// Keeps a fault, up to the limit.
    pub(crate) fn add_fault(&mut self, path: &str, kind: FaultKind) {
        if self.faults.len() < FAULTS_MAX {
            let path = Some(path.to_owned()).filter(|path| !path.is_empty());
            self.faults.push(Fault { path, kind });
        }
    }

    pub(crate) fn finish(mut self) -> Unpacked {
        for directory in std::mem::take(&mut self.directories) {
            if self.resolve(&directory).is_err() {
                self.add_fault(&directory, FaultKind::DirectoryGone);
            }
        }
        // Names like `.wh..wh.plnk` belong to an old storage driver (aufs).
        let of_image = |path: &String| !split(path).1.starts_with(WHITEOUT);
        let whiteouts = self.hidden.into_iter().filter(of_image).map(Whiteout::Of);
        let whiteouts = whiteouts.chain(self.opaque.into_iter().map(Whiteout::Opaque)).collect();
        let weight = self.weight.get();
        let layer = Layer { entries: self.entries, whiteouts, weight };
        Unpacked { layer, faults: self.faults, leads_out: self.leads_out }
    }

    fn unpack(&mut self, name: &str, member: Member) -> Result<(), FaultKind> {
        let path = from_root(name);
        self.make_parents(split(&path).0)?;
        let place = self.place(&path);
        if let Ok(place) = &place {
            let is_directory = self.is_directory(place);
            if is_directory && name == "." {
                return Ok(());
            }
            if !(is_directory && matches!(member.kind, MemberKind::Directory)) {
                self.remove(place)?;
            }
        }
        let (directory, base) = split(&path);
        if base == OPAQUE {
            return self.make_opaque(directory);
        }
        if let Some(hidden) = base.strip_prefix(WHITEOUT) {
            return self.make_whiteout(&from_root(&join(directory, hidden)));
        }
        self.create(&path, place?, member)
    }

    fn create(&mut self, path: &str, place: String, member: Member) -> Result<(), FaultKind> {
        let Member { mode, uid, gid, .. } = member;
        let entry = |kind| Entry { kind, mode, uid, gid };
        let mut made = match member.kind {
            MemberKind::File(content) => entry(EntryKind::File(content)),
            MemberKind::Directory => {
                self.directories.push(path.to_owned());
                entry(EntryKind::Directory)
            }
            MemberKind::Link { target } if target.is_empty() || target.len() > PATH_MAX => {
                return Err(FaultKind::Target);
            }
            MemberKind::Link { target } => entry(EntryKind::Link { target }),
            MemberKind::HardLink { target } => {
                let source = self.source(&target)?;
                match self.entries.get_mut(&source) {
                    // The permissions of the second name apply to both.
                    Some(shared) => {
                        if shared.target().is_none() {
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
            MemberKind::Device { whiteout: true } => {
                self.hidden.insert(place);
                return Ok(());
            }
            MemberKind::Device { whiteout: false } => entry(EntryKind::Device),
            MemberKind::Fifo => entry(EntryKind::Fifo),
            MemberKind::Global => return Ok(()),
            MemberKind::Unknown { flag: b'S' } => return Err(FaultKind::Sparse),
            MemberKind::Unknown { flag } => return Err(FaultKind::Unknown { flag }),
        };
        let is_directory = made.is_directory();
        let mut refused = None;
        for (name, value) in &member.attributes {
            if !is_accepted(name, value) {
                refused.get_or_insert_with(|| FaultKind::Attribute { name: name.clone() });
            }
            if let EntryKind::File(content) = &mut made.kind {
                content.capable |= name == "security.capability";
            }
            if is_directory && name.ends_with(".overlay.opaque") && value == b"y" {
                self.opaque.insert(place.clone());
            }
        }
        self.add_weight(made.weight());
        if !place.is_empty() {
            self.entries.insert(place, made);
        }
        refused.map_or(Ok(()), Err)
    }

    /// The target of a hard link.
    fn source(&self, target: &str) -> Result<String, FaultKind> {
        let missing = || FaultKind::HardLink { target: target.to_owned() };
        let source = self.place(&from_root(target)).map_err(|_| missing())?;
        if self.is_directory(&source) {
            return Err(FaultKind::HardLinkToDirectory { target: target.to_owned() });
        }
        if self.node(&source).is_some() { Ok(source) } else { Err(missing()) }
    }

    /// Marks a directory, which may be reached through links. Marking a file has no effect.
    fn make_opaque(&mut self, directory: &str) -> Result<(), FaultKind> {
        let place = self.resolve(directory)?;
        if self.is_directory(&place) {
            self.opaque.insert(place);
        }
        Ok(())
    }

    fn make_whiteout(&mut self, path: &str) -> Result<(), FaultKind> {
        let place = self.place(path)?;
        if self.node(&place).is_some() {
            return Err(FaultKind::OwnWhiteout);
        }
        self.hidden.insert(place);
        Ok(())
    }

    /// Makes the parent directories of an entry that are missing. Other obstacles than links to nothing are
    /// found when the entry itself is made.
    fn make_parents(&mut self, directory: &str) -> Result<(), FaultKind> {
        if !self.is_missing(directory) {
            return Ok(());
        }
        let mut path = String::new();
        for name in directory.split('/').filter(|name| !name.is_empty()) {
            path = join(&path, name);
            match self.resolve(&path) {
                Ok(_) => {}
                Err(Blocked::Missing { last_link: None }) => {
                    let place = self.place(&path)?;
                    self.add_weight(Entry::implied().weight());
                    self.entries.insert(place, Entry::implied());
                }
                Err(blocked) => return Err(blocked.into()),
            }
        }
        Ok(())
    }

    /// Whether nothing exists at `path`; a link at its end is not followed. False if something on the way is
    /// not a directory.
    fn is_missing(&self, path: &str) -> bool {
        let (directory, name) = split(path);
        if name.is_empty() {
            return false;
        }
        match self.directory(directory) {
            Ok(directory) => {
                checked(name, path).is_ok() && self.node(&join(&directory, name)).is_none()
            }
            Err(Blocked::Missing { .. }) => true,
            Err(Blocked::Fault(_)) => false,
        }
    }

    /// The place where a file with this path would be made: follows the links on the way.
    fn place(&self, path: &str) -> Result<String, FaultKind> {
        let (directory, name) = split(path);
        if name.is_empty() {
            return Ok(String::new());
        }
        Ok(join(&self.directory(directory)?, checked(name, path)?))
    }

    /// The place of the directory at `path`. Fails if something else exists there.
    fn directory(&self, path: &str) -> Result<String, Blocked> {
        let place = self.resolve(path)?;
        self.expect_directory(&place)?;
        Ok(place)
    }

    fn expect_directory(&self, place: &str) -> Result<(), FaultKind> {
        let what = match self.node(place) {
            Some(Node::Entry(entry)) if entry.is_directory() => return Ok(()),
            Some(Node::Entry(entry)) => entry.kind.noun(),
            Some(Node::Whiteout) => "a whiteout",
            None => "nothing",
        };
        Err(FaultKind::Below { at: place.to_owned(), what })
    }

    fn is_directory(&self, place: &str) -> bool {
        self.expect_directory(place).is_ok()
    }

    /// Follows `path` as the kernel does.
    fn resolve(&self, path: &str) -> Result<String, Blocked> {
        self.add_weight(path.len());
        // A path that is an entry leads through no link.
        match self.node(path) {
            Some(Node::Entry(entry)) if entry.target().is_some() => {}
            Some(_) => return Ok(path.to_owned()),
            None => {}
        }
        let mut walk = Walk::along(path);
        let mut last_link = None;
        while let Some(name) = walk.next_name() {
            self.add_weight(walk.here.len() + name.len());
            self.expect_directory(&walk.here)?;
            if name == ".." {
                walk.go_up();
                continue;
            }
            let next = join(&walk.here, checked(&name, "")?);
            match self.node(&next) {
                None => return Err(Blocked::Missing { last_link }),
                Some(Node::Entry(Entry { kind: EntryKind::Link { target }, .. })) => {
                    walk.follow(target);
                    last_link = Some(next);
                }
                Some(_) => walk.here = next,
            }
        }
        if walk.is_too_long() { Err(FaultKind::Loop.into()) } else { Ok(walk.here) }
    }

    fn node(&self, place: &str) -> Option<Node<'_>> {
        if place.is_empty() {
            return Some(Node::Entry(&ROOT));
        }
        match self.entries.get(place) {
            Some(entry) => Some(Node::Entry(entry)),
            None => self.hidden.contains(place).then_some(Node::Whiteout),
        }
    }

    fn remove(&mut self, place: &str) -> Result<(), FaultKind> {
        if place.is_empty() {
            return Err(FaultKind::Root);
        }
        self.hidden.remove(place);
        self.opaque.remove(place);
        if self.entries.remove(place).is_some_and(|entry| entry.is_directory()) {
            let prefix = format!("{place}/");
            for path in below(self.entries.range(prefix.clone()..).map(|(path, _)| path), &prefix) {
                self.entries.remove(&path);
            }
            for set in [&mut self.hidden, &mut self.opaque] {
                for path in below(set.range(prefix.clone()..), &prefix) {
                    set.remove(&path);
                }
            }
        }
        Ok(())
    }
}

fn below<'a>(paths: impl Iterator<Item = &'a String>, prefix: &str) -> Vec<String> {
    paths.take_while(|path| path.starts_with(prefix)).cloned().collect()
}

/// `name`, the last of `path`, if the kernel accepts both.
fn checked<'a>(name: &'a str, path: &str) -> Result<&'a str, FaultKind> {
    if name.len() > NAME_MAX || path.len() + DATA_ROOT_LEN > PATH_MAX {
        return Err(FaultKind::TooLong);
    }
    Ok(name)
}

/// The path inside the rootfs, which `..` does not leave.
pub(crate) fn from_root(path: &str) -> String {
    clean(&format!("/{path}")).trim_start_matches('/').to_owned()
}

/// Whether the kernel accepts an extended attribute (xattr(7)). Engines skip attributes that the filesystem
/// does not support.
fn is_accepted(name: &str, value: &[u8]) -> bool {
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

/// The two revisions of `struct vfs_cap_data` that setxattr(2) accepts (linux/capability.h).
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
