//! The recorder: runs a program under the tracer and writes down each change that it makes below a directory, and each
//! call that makes changes durable.
//!
//! What it has written down, carried out on the tree from before, must give the tree from after: so a call that it does
//! not know is noticed.

use crate::disk::{Change, Disk, Node, NodeId, read_node};
use crate::finished::Finished;
use crate::system_calls::{self, Call, name};
use crate::tracer::{Action, Stepped, When, trace};
use nix::libc::{AT_FDCWD, O_CREAT, O_TRUNC};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a call has done to the disk.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Change(Change),
    /// What was changed of this file or directory is durable.
    Sync(NodeId),
    /// The content of this file is durable, with its length.
    DataSync(NodeId),
    /// Everything is durable.
    SyncAll,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// For messages.
    pub(crate) call: String,
    pub(crate) effect: Effect,
}

/// A run of a program.
pub(crate) struct Recording {
    /// The tree before it, and without names all that it has made.
    pub(crate) before: Disk,
    pub(crate) operations: Vec<Operation>,
    pub(crate) finished: Finished,
}

/// Runs `command` and records what it does below `top`.
pub(crate) fn record(command: &mut Command, top: &Path) -> Result<Recording, String> {
    let before = Disk::load(top);
    let device = fs::metadata(top).unwrap().dev();
    let shown = format!("{}/", top.display());
    let mut recorder = Recorder { shown, disk: before, device, operations: Vec::new() };
    let mut observe = |pid: Pid, call: &Call, result: i64| recorder.observe(pid, call, result);
    let traced = trace(command, Stepped::Main, When::Never, Action::Observe(&mut observe));
    let Recorder { disk: before, operations, .. } = recorder;
    let recording = Recording { before, operations, finished: traced.finished };
    let (recorded, actual) = (recording.after().tree(), Disk::load(top).tree());
    match recorded == actual {
        true => Ok(recording),
        false => Err(format!("recorded {recorded:?}, but the program left {actual:?}")),
    }
}

impl Recording {
    /// The tree after the program.
    pub(crate) fn after(&self) -> Disk {
        let mut disk = self.before.clone();
        for operation in &self.operations {
            if let Effect::Change(change) = &operation.effect {
                disk.apply(change);
            }
        }
        disk
    }
}

struct Recorder {
    /// The path of the top, which messages leave out.
    shown: String,
    disk: Disk,
    device: u64,
    operations: Vec<Operation>,
}

impl Recorder {
    /// `pid` is paused at the end of `call`.
    fn observe(&mut self, pid: Pid, call: &Call, result: i64) {
        let Ok(result) = u64::try_from(result) else { return };
        let [first, second, third, fourth, ..] = call.arguments;
        match name(call.number).as_str() {
            "open" => self.opened(pid, call, (at_cwd(), first, second), result),
            "openat" => self.opened(pid, call, (first, second, third), result),
            "write" => self.written(pid, call, first, None, result),
            "pwrite64" => self.written(pid, call, first, Some(fourth), result),
            "sendfile" => self.written(pid, call, first, None, result),
            "copy_file_range" => {
                let at = number(pid, fourth).map(|end| end - result);
                self.written(pid, call, third, at, result);
            }
            "ftruncate" => {
                let len = usize::try_from(second).unwrap();
                self.of_file(pid, call, first, |file| Change::Resize { file, len });
            }
            "fchmod" => {
                let mode = u32::try_from(second).unwrap();
                self.of_file(pid, call, first, |node| Change::Mode { node, mode });
            }
            "fsync" => self.synced(pid, call, first, Effect::Sync),
            "fdatasync" => self.synced(pid, call, first, Effect::DataSync),
            "syncfs" => self.push(call, Effect::SyncAll),
            "mkdir" => self.named(pid, call, at_cwd(), first),
            "mkdirat" => self.named(pid, call, first, second),
            "symlinkat" => self.named(pid, call, second, third),
            "unlink" | "rmdir" => self.removed(pid, call, at_cwd(), first),
            "unlinkat" => self.removed(pid, call, first, second),
            "rename" => self.renamed(pid, call, [at_cwd(), first, at_cwd(), second]),
            "renameat" | "renameat2" => self.renamed(pid, call, [first, second, third, fourth]),
            _ => {}
        }
    }

    fn push(&mut self, call: &Call, effect: Effect) {
        self.operations.push(Operation { call: call.to_string().replace(&self.shown, ""), effect });
    }

    /// The node at `path`, if it is below the top.
    fn known(&self, path: &Path) -> Option<NodeId> {
        let metadata = fs::metadata(path).ok().filter(|found| found.dev() == self.device)?;
        Some(metadata.ino()).filter(|id| self.disk.has(*id))
    }

    fn of_file(&mut self, pid: Pid, call: &Call, fd: u64, change: impl FnOnce(NodeId) -> Change) {
        if let Some(node) = self.known(&file(pid, fd)) {
            self.push(call, Effect::Change(change(node)));
        }
    }

    fn synced(&mut self, pid: Pid, call: &Call, fd: u64, effect: impl FnOnce(NodeId) -> Effect) {
        if let Some(node) = self.known(&file(pid, fd)) {
            self.push(call, effect(node));
        }
    }

    fn written(&mut self, pid: Pid, call: &Call, fd: u64, at: Option<u64>, len: u64) {
        let path = file(pid, fd);
        let Some(id) = self.known(&path).filter(|_| len > 0) else { return };
        let at = at.unwrap_or_else(|| position(pid, fd) - len);
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
        let at = usize::try_from(at).unwrap();
        self.push(call, Effect::Change(Change::Write { file: id, at, bytes }));
    }

    fn opened(&mut self, pid: Pid, call: &Call, at: (u64, u64, u64), fd: u64) {
        let flags = i32::try_from(at.2).unwrap();
        if flags & O_TRUNC != 0 {
            self.of_file(pid, call, fd, |file| Change::Resize { file, len: 0 });
        }
        if flags & O_CREAT != 0 && self.known(&file(pid, fd)).is_none() {
            self.named(pid, call, at.0, at.1);
        }
    }

    /// A new name in a directory.
    fn named(&mut self, pid: Pid, call: &Call, folder: u64, name: u64) {
        let path = path(pid, folder, name);
        let Some((folder, name)) = self.place(&path) else { return };
        let id = fs::symlink_metadata(&path).unwrap().ino();
        // Its content is written later, by calls of their own.
        let node = match read_node(&path) {
            Node::Folder { mode, .. } => Node::Folder { entries: Default::default(), mode },
            Node::File { mode, .. } => Node::File { bytes: Vec::new(), mode },
            link @ Node::Link { .. } => link,
        };
        assert!(!self.disk.has(id), "{call}: a second name of {path:?}");
        self.disk.add(id, node);
        self.push(call, Effect::Change(Change::Name { folder, name, node: id }));
    }

    fn removed(&mut self, pid: Pid, call: &Call, folder: u64, name: u64) {
        if let Some((folder, name)) = self.place(&path(pid, folder, name)) {
            self.push(call, Effect::Change(Change::Remove { folder, name }));
        }
    }

    fn renamed(&mut self, pid: Pid, call: &Call, [from, old, to, new]: [u64; 4]) {
        let new = path(pid, to, new);
        let (from, to) = (self.place(&path(pid, from, old)), self.place(&new));
        let (Some((folder, from)), Some((other, to))) = (&from, &to) else {
            assert!(from.is_none() && to.is_none(), "{call}: to another filesystem");
            return;
        };
        assert_eq!(folder, other, "{call}: to another directory");
        let (folder, from, to) = (*folder, from.clone(), to.clone());
        let node = fs::symlink_metadata(new).unwrap().ino();
        self.push(call, Effect::Change(Change::Rename { folder, from, to, node }));
    }

    /// The directory and the name of a path, if it is below the top.
    fn place(&self, path: &Path) -> Option<(NodeId, String)> {
        let folder = self.known(path.parent()?)?;
        Some((folder, path.file_name()?.to_str()?.to_owned()))
    }
}

fn at_cwd() -> u64 {
    u64::from_ne_bytes(i64::from(AT_FDCWD).to_ne_bytes())
}

fn file(pid: Pid, fd: u64) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
}

/// The path of an entry, as this process reaches it. The programs pass descriptors as 32 or as 64 bits.
fn path(pid: Pid, folder: u64, name: u64) -> PathBuf {
    let name = system_calls::text(pid, name).expect("the name of a file");
    let is_cwd = folder as i32 == AT_FDCWD;
    let folder = if is_cwd { format!("/proc/{pid}/cwd").into() } else { file(pid, folder) };
    folder.join(name)
}

/// The offset in an open file.
fn position(pid: Pid, fd: u64) -> u64 {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("pos:"));
    line.unwrap().trim().parse().unwrap()
}

/// The number at an address; `None` for the null pointer.
fn number(pid: Pid, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    (address != 0).then(|| memory.read_exact_at(&mut bytes, address).unwrap())?;
    Some(u64::from_ne_bytes(bytes))
}
