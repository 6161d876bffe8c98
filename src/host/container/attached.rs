//! Enters the mount namespace of process 1 and takes the rootfs along, for a hook whose engine has a namespace
//! of its own. The guard (`host/container/guard.rs`) does so before the hook begins: it clones the mounts that
//! process 1 does not have, enters, and attaches the clones below a tmpfs of its own.
//!
//! The tmpfs and the clones are private: a mount that is attached to a shared mount also appears in every
//! namespace with a slave view of the host (`docker run -v /:/host:ro,rslave`), writable, and the root of
//! that container could rewrite the next hook. Such a namespace does get a copy of the tmpfs itself, before the
//! tmpfs becomes private; therefore its filesystem is read-only by then.

use crate::host::os::directory;
use crate::host::os::system_call::step;
use crate::model::container::environment::VOLUME_PREFIX;
use crate::model::text::system_call::RefusedCall;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Each rootfs has a mount point below this directory while its hook runs.
pub(crate) const FOLDER: &str = "/run/balena-extension-runtime-rootfs";
const BASE: &str = "/run";
const NAME: &str = "balena-extension-runtime-rootfs";
/// The rootfs below its mount point.
const ROOTFS: &str = "rootfs";
/// A file name has at most 255 bytes; the rest of it is a number and a dash.
const ID_MAX: usize = 200;
/// How many stacked mounts are removed from one mount point.
const COPIES_MAX: usize = 64;

/// The name of the mount point of a container: unique, since only one process holds `lock`.
pub(crate) fn name(id: &str, lock: BorrowedFd<'_>) -> io::Result<String> {
    let id: String = id.chars().take(ID_MAX).collect();
    Ok(format!("{id}-{}", rustix::fs::fstat(lock)?.st_ino))
}

/// Where a hook finds the rootfs that was brought along under `name`.
pub(crate) fn rootfs_path(name: &str) -> String {
    format!("{FOLDER}/{name}/{ROOTFS}")
}

/// The mounts that are taken along, and where the hook will find them.
pub(crate) struct Luggage<'a> {
    /// The name of the mount point.
    pub(crate) name: &'a str,
    /// The rootfs, unless process 1 has it at the same path.
    pub(crate) rootfs: Option<OwnedFd>,
    /// The mount namespace that has the rootfs and the volumes, if it is not this process's.
    pub(crate) home: Option<OwnedFd>,
    /// The working directory.
    pub(crate) folder: &'a str,
}

/// The mounts of a hook in the mount namespace of process 1. They are removed when this is dropped.
pub(crate) struct Attached {
    parent: OwnedFd,
    name: String,
}

/// Enters the mount namespace of process 1. In `environment`, a volume that process 1 does not have gets
/// the path at which it is attached.
///
/// # Errors
/// The system call that failed. Nothing is mounted then, but the namespace may have been entered.
pub(crate) fn enter(
    luggage: Luggage<'_>,
    environment: &mut [String],
) -> Result<Option<Attached>, RefusedCall> {
    let host = Host::open()?;
    let folder = rustix::fs::stat(luggage.folder).ok();
    if let Some(home) = &luggage.home {
        join(home, "enter the mount namespace that has the rootfs")?;
    }
    let mut clones = Vec::new();
    if let Some(rootfs) = luggage.rootfs {
        clones.push(Tree::of(rootfs.as_fd(), ROOTFS.to_owned(), "the rootfs")?);
    }
    for variable in environment.iter_mut() {
        clones.extend(bring_volume(&host, variable, luggage.name, clones.len())?);
    }
    join(&host.namespace, "enter the mount namespace of process 1")?;
    let purpose = "enter the root directory of process 1";
    step("fchdir", purpose, rustix::process::fchdir(&host.root))?;
    step("chroot", purpose, rustix::process::chroot("."))?;
    let attached = match clones.as_slice() {
        [] => None,
        [..] => Some(attach(luggage.name, &clones)?),
    };
    let same = folder.is_some_and(|folder| is_same(&folder, rustix::fs::stat(luggage.folder)));
    let folder = if same { luggage.folder } else { "/" };
    step("chdir", format!("enter {folder:?}"), rustix::process::chdir(folder))?;
    Ok(attached)
}

/// The namespace and the root directory of process 1, opened while their paths lead there.
struct Host {
    namespace: OwnedFd,
    root: OwnedFd,
}

impl Host {
    fn open() -> Result<Self, RefusedCall> {
        let opening = |path: &str| format!("open {path} to run the hook there");
        let (path, flags) = ("/proc/1/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC);
        let namespace = rustix::fs::open(path, flags, Mode::empty());
        let namespace = step("open", opening(path), namespace)?;
        let path = "/proc/1/root";
        Ok(Self { namespace, root: step("open", opening(path), directory::open(path))? })
    }

    /// What process 1 has at `path`.
    fn look(&self, path: &str) -> rustix::io::Result<Stat> {
        rustix::fs::fstat(directory::open_in_root(&self.root, path, OFlags::PATH)?)
    }
}

/// A mount that is attached nowhere yet.
struct Tree {
    mount: OwnedFd,
    /// Its name below the mount point.
    name: String,
    kind: FileType,
}

impl Tree {
    fn of(file: BorrowedFd<'_>, name: String, what: impl Display) -> Result<Self, RefusedCall> {
        let purpose = format!("clone {what} for the mount namespace of process 1");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let stat = step("fstat", &purpose, rustix::fs::fstat(file))?;
        let mount = step("open_tree", purpose, rustix::mount::open_tree(file, "", flags))?;
        Ok(Self { mount, name, kind: FileType::from_raw_mode(stat.st_mode) })
    }
}

/// Clones the volume that `variable` names, unless process 1 has it at the same path, and puts the path of
/// the clone in its place. A source that is missing stays as it is, as it would in one namespace.
fn bring_volume(
    host: &Host,
    variable: &mut String,
    mount_point: &str,
    number: usize,
) -> Result<Option<Tree>, RefusedCall> {
    let Some((label, path)) = variable.split_once('=') else { return Ok(None) };
    if !label.starts_with(VOLUME_PREFIX) || !path.starts_with('/') {
        return Ok(None);
    }
    let file = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        opened => step("open", format!("open the volume {path:?}"), opened)?,
    };
    let stat = step("fstat", format!("open the volume {path:?}"), rustix::fs::fstat(&file))?;
    if is_same(&stat, host.look(path)) {
        return Ok(None);
    }
    let name = format!("volume-{number}");
    let clone = Tree::of(file.as_fd(), name.clone(), format_args!("the volume {path:?}"))?;
    *variable = format!("{label}={FOLDER}/{mount_point}/{name}");
    Ok(Some(clone))
}

fn is_same(own: &Stat, other: rustix::io::Result<Stat>) -> bool {
    other.is_ok_and(|other| (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

fn join(namespace: &OwnedFd, purpose: &str) -> Result<(), RefusedCall> {
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|error| RefusedCall::new("setns", purpose, &error.into()))
}

fn attach(name: &str, clones: &[Tree]) -> Result<Attached, RefusedCall> {
    let tmpfs = tmpfs_with_mount_points(clones)?;
    let purpose = format!("attach the rootfs below {FOLDER}");
    let parent = parent_folder()?;
    make_mount_point(&parent, name)?;
    let attached = Attached { parent, name: name.to_owned() };
    move_mount(&tmpfs, &attached.parent, name, &purpose)?;
    step("fchdir", &purpose, rustix::process::fchdir(&tmpfs))?;
    make_private(".", &purpose)?;
    for clone in clones {
        move_mount(&clone.mount, &tmpfs, &clone.name, &purpose)?;
        make_private(&clone.name, &purpose)?;
    }
    Ok(attached)
}

/// A tmpfs with a mount point for each clone, and read-only from then on.
fn tmpfs_with_mount_points(clones: &[Tree]) -> Result<OwnedFd, RefusedCall> {
    use rustix::mount::{fsconfig_create, fsconfig_reconfigure};
    use rustix::mount::{fsconfig_set_flag, fsconfig_set_string};
    let purpose = "mount a tmpfs for the rootfs";
    let config = |result| step("fsconfig", purpose, result);
    let opened = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC);
    let context = step("fsopen", purpose, opened)?;
    config(fsconfig_set_string(&context, "source", NAME))?;
    config(fsconfig_set_string(&context, "mode", "0700"))?;
    config(fsconfig_create(&context))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mounted = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
    let tmpfs = step("fsmount", purpose, mounted)?;
    for clone in clones {
        let name = clone.name.as_str();
        if clone.kind == FileType::Directory {
            step("mkdir", purpose, rustix::fs::mkdirat(&tmpfs, name, Mode::RWXU))?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            step("open", purpose, rustix::fs::openat(&tmpfs, name, flags, Mode::RUSR))?;
        }
    }
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let context = step("fspick", purpose, rustix::mount::fspick(&tmpfs, "", flags))?;
    config(fsconfig_set_flag(&context, "ro"))?;
    config(fsconfig_reconfigure(&context))?;
    Ok(tmpfs)
}

/// Opens the directory of all mount points, and creates it if it is missing.
fn parent_folder() -> Result<OwnedFd, RefusedCall> {
    let purpose = format!("make {FOLDER}");
    let base = step("open", &purpose, directory::open(BASE))?;
    match rustix::fs::mkdirat(&base, NAME, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        made => step("mkdir", &purpose, made)?,
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    step("open", purpose, rustix::fs::openat(&base, NAME, flags, Mode::empty()))
}

/// Creates the mount point. If it exists, a guard that was killed left it, because only the holder of the lock uses
/// this name.
fn make_mount_point(parent: &OwnedFd, name: &str) -> Result<(), RefusedCall> {
    let purpose = format!("make the mount point {FOLDER}/{name}");
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => {
            step("fchdir", &purpose, rustix::process::fchdir(parent))?;
            step("umount2", &purpose, remove_mount_point(name))?;
            step("mkdir", purpose, rustix::fs::mkdirat(parent, name, Mode::RWXU))
        }
        made => step("mkdir", purpose, made),
    }
}

fn move_mount(from: &OwnedFd, to: &OwnedFd, name: &str, purpose: &str) -> Result<(), RefusedCall> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    step("move_mount", purpose, rustix::mount::move_mount(from, "", to, name, flags))
}

/// A clone is still of its original's peer group: a hook's mounts in it would appear there.
fn make_private(path: &str, purpose: &str) -> Result<(), RefusedCall> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("mount", purpose, rustix::mount::mount_change(path, flags))
}

impl Drop for Attached {
    /// Removes the mounts, including their copies in namespaces that were made meanwhile: rmdir(2) of a mount point
    /// also detaches the mounts on it in other namespaces. What cannot be removed is left for [`sweep`].
    fn drop(&mut self) {
        if rustix::process::fchdir(&self.parent).is_ok() {
            let _ = remove_mount_point(&self.name);
        }
    }
}

/// Removes the mount point `path`, with this namespace's mounts on it.
fn remove_mount_point(path: &str) -> rustix::io::Result<()> {
    for _ in 0..COPIES_MAX {
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Something is mounted on it here.
            Err(Errno::BUSY) => {
                rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::BUSY)
}

/// Removes the mounts that a guard left under `name` when it was killed. The caller holds the lock from which the
/// name was made, so no guard uses it.
pub(crate) fn sweep(name: &str) -> io::Result<()> {
    remove_mount_point(&format!("{FOLDER}/{name}"))?;
    // This may not be the namespace of process 1. A process that may not look there cannot have attached anything.
    match remove_mount_point(&format!("/proc/1/root{FOLDER}/{name}")) {
        Err(Errno::ACCESS | Errno::PERM) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
