//! A root filesystem made of layers, in a mount namespace of its own: an overlay, with the mounts of the host on it,
//! read-only. When the last process in the namespace has ended, the kernel removes it, and no file was made anywhere.
//!
//! It is made by process 1 of a PID namespace (`host/os/view_process.rs`), which has its own `/proc`.

use crate::host::os::directory;
use crate::host::os::system_call::step;
use crate::model::kernel::mount_table::{self, MountEntry};
use crate::model::text::system_call::RefusedCall;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// Where the view is made: every process has it, and the view gets its own.
const BASE: &str = "/proc";
/// In the base: the mount point of the view, and the directories of its overlay. Layers are links with numbers.
const VIEW: &str = "view";
const BASE_OF_VIEW: &str = "/proc/view";
const HOST: &str = "host";
const HOST_LINK: &str = "host-link";
const EMPTY: &str = "empty";
const UPPER: &str = "upper";
const WORK: &str = "work";
/// A new one of each is mounted in the view.
const PROC: &str = "/proc";
const IN_MEMORY: [&str; 2] = ["/tmp", "/dev/shm"];
/// OVERLAYFS_SUPER_MAGIC of linux/magic.h.
const OVERLAY_MAGIC: rustix::fs::FsWord = 0x794C_7630;
/// The flags that a mount keeps, besides those about times, which the kernel keeps by itself.
const KEPT: [(&str, MountFlags); 4] = [
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("nosymfollow", MountFlags::NOSYMFOLLOW),
];

/// A layer of the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ViewLayer {
    Directory(PathBuf),
    /// The host's root filesystem, without the mounts on it.
    HostRoot,
}

/// What becomes of changes in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ViewChanges {
    Refused,
    /// They end with the view.
    InMemory,
}

/// Why a view cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    #[error("{call}")]
    Refused { call: RefusedCall },
    #[error("cannot read the mount table /proc/self/mountinfo")]
    Table { source: io::Error },
    #[error(
        "cannot mount the overlay: the layer {path:?} is on another overlay, and the kernel stacks at most two"
    )]
    Stacked { path: PathBuf },
    #[error("the root directory of this process is not the root of a mount (is this a chroot?)")]
    NoRoot,
}

impl From<RefusedCall> for ViewError {
    fn from(call: RefusedCall) -> Self {
        Self::Refused { call }
    }
}

/// A mount of the host that is not in the view, and why not.
#[derive(Debug)]
pub(crate) struct HiddenMount {
    pub(crate) point: String,
    pub(crate) why: String,
}

/// Makes a view of `layers`, the topmost first, and makes it the root of this process. Returns the mounts of the host that
/// are not in it.
///
/// # Errors
/// This process may be in a mount namespace of its own by then, from which it must not go on.
pub(crate) fn enter(
    layers: &[ViewLayer],
    changes: ViewChanges,
) -> Result<Vec<HiddenMount>, ViewError> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|error| {
        RefusedCall::new("unshare", "make a mount namespace for the view", &error.into())
    })?;
    let purpose = "make the mounts of the view private";
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("mount", purpose, rustix::mount::mount_change("/", flags))?;
    let mut table =
        File::open("/proc/self/mountinfo").map_err(|source| ViewError::Table { source })?;
    let mounts = read(&mut table)?;
    mount_table::root(&mounts).ok_or(ViewError::NoRoot)?;
    let mut hidden = Vec::new();
    let clones = clone_mounts(&mounts, &mut hidden);

    let base = tmpfs("0700", MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    let purpose = "attach the base of the view to /proc";
    move_mount(&base, &step("open", purpose, directory::open(BASE))?, purpose)?;
    step("fchdir", purpose, rustix::process::fchdir(&base))?;
    for name in [VIEW, HOST, EMPTY, UPPER, WORK] {
        let purpose = "make the directories of the view";
        step("mkdir", purpose, rustix::fs::mkdirat(&base, name, Mode::from_raw_mode(0o755)))?;
    }
    mount_overlay(layers, changes)?;
    let view = step("open", "open the view", directory::open(VIEW))?;

    attach(clones, &view, &mut hidden)?;
    make_read_only(&read(&mut table)?)?;
    for point in IN_MEMORY {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        attach_at(&tmpfs("1777", attributes)?, &view, point, &mut hidden)?;
    }
    attach_at(&proc()?, &view, PROC, &mut hidden)?;
    become_root(&view)?;
    Ok(hidden)
}

/// The mounts directly on the root filesystem, each with all that is mounted below it, detached.
fn clone_mounts(mounts: &[MountEntry], hidden: &mut Vec<HiddenMount>) -> Vec<(String, OwnedFd)> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    let is_replaced = |point: &str| {
        let mut replaced = IN_MEMORY.iter().chain([&PROC]);
        replaced.any(|new| point == *new || mount_table::is_inside(point, new))
    };
    let mut clones = Vec::new();
    for mount in mount_table::on_root(mounts).into_iter().filter(|it| !is_replaced(&it.point)) {
        match rustix::mount::open_tree(CWD, mount.point.as_str(), flags) {
            Ok(clone) => clones.push((mount.point.clone(), clone)),
            Err(error) => {
                let call = RefusedCall::new("open_tree", "clone the mount", &error.into());
                hidden.push(HiddenMount { point: mount.point.clone(), why: call.to_string() });
            }
        }
    }
    clones
}

/// Mounts the overlay. The options have one page for the paths of all layers, so each is a link with a short name in the
/// current directory.
fn mount_overlay(layers: &[ViewLayer], changes: ViewChanges) -> Result<(), ViewError> {
    let purpose = "name the layers of the view";
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        names.push(match layer {
            ViewLayer::Directory(path) => {
                let name = number.to_string();
                step("symlink", purpose, rustix::fs::symlinkat(path, CWD, &name))?;
                name
            }
            // The kernel refuses a layer that lies in another one, as those of an engine do in the root filesystem if
            // that has no partition of its own for them. An overlay over it is another filesystem.
            ViewLayer::HostRoot => {
                step("symlink", purpose, rustix::fs::symlinkat("/", CWD, HOST_LINK))?;
                let options = format!("lowerdir={HOST_LINK}:{EMPTY}");
                overlay(HOST, &options, MountFlags::RDONLY, "mount the host's root filesystem")?;
                HOST.to_owned()
            }
        });
    }
    // An overlay needs two.
    names.push(EMPTY.to_owned());
    let (options, flags) = match changes {
        ViewChanges::Refused => (String::new(), MountFlags::RDONLY),
        ViewChanges::InMemory => (format!(",upperdir={UPPER},workdir={WORK}"), MountFlags::empty()),
    };
    let purpose = format!("mount an overlay of {} layers", layers.len());
    let mounted = overlay(VIEW, &format!("lowerdir={}{options}", names.join(":")), flags, &purpose);
    // The kernel only logs the reason.
    mounted.map_err(|call| match layers.iter().find_map(on_overlay) {
        Some(path) if call.errno == Errno::INVAL.raw_os_error() => ViewError::Stacked { path },
        Some(_) | None => ViewError::Refused { call },
    })
}

fn on_overlay(layer: &ViewLayer) -> Option<PathBuf> {
    let ViewLayer::Directory(path) = layer else { return None };
    let found = rustix::fs::statfs(path).ok()?;
    (found.f_type == OVERLAY_MAGIC).then(|| path.clone())
}

fn overlay(
    point: &str,
    options: &str,
    flags: MountFlags,
    purpose: &str,
) -> Result<(), RefusedCall> {
    let options = CString::new(options)
        .map_err(|error| RefusedCall::new("mount", purpose, &io::Error::other(error)))?;
    let mounted = rustix::mount::mount("overlay", point, "overlay", flags, options.as_c_str());
    step("mount", purpose, mounted)
}

fn attach(
    clones: Vec<(String, OwnedFd)>,
    view: &OwnedFd,
    hidden: &mut Vec<HiddenMount>,
) -> Result<(), RefusedCall> {
    clones.iter().try_for_each(|(point, clone)| attach_at(clone, view, point, hidden))
}

/// Attaches a mount to a path of the view, if that exists there.
fn attach_at(
    mount: &OwnedFd,
    view: &OwnedFd,
    point: &str,
    hidden: &mut Vec<HiddenMount>,
) -> Result<(), RefusedCall> {
    let purpose = format!("attach the mount of {point:?} to the view");
    let opened = directory::open_in_root(view, point, OFlags::PATH);
    let missing = |why: &str| HiddenMount { point: point.to_owned(), why: why.to_owned() };
    let target = match opened {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            hidden.push(missing("the view has no such mount point"));
            return Ok(());
        }
        opened => step("open", &purpose, opened)?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    match rustix::mount::move_mount(mount, "", &target, "", flags) {
        // A directory cannot be mounted over a file, nor a file over a directory.
        Err(Errno::NOTDIR) => {
            hidden.push(missing("its mount point in the view is of another kind"))
        }
        moved => step("move_mount", &purpose, moved)?,
    }
    Ok(())
}

/// Makes the mounts on the view read-only. One by one: mount_setattr(2) needs Linux 5.12.
fn make_read_only(mounts: &[MountEntry]) -> Result<(), RefusedCall> {
    for mount in mount_table::visible(mounts) {
        if !mount_table::is_inside(&mount.point, BASE_OF_VIEW) || mount.has_option("ro") {
            continue;
        }
        let kept = KEPT.iter().filter(|(name, _)| mount.has_option(name)).map(|(_, flag)| *flag);
        let flags = kept.fold(MountFlags::BIND | MountFlags::RDONLY, MountFlags::union);
        let point = mount.point.strip_prefix(BASE_OF_VIEW).unwrap_or(&mount.point);
        let purpose = format!("make the mount of {point:?} read-only");
        step("mount", purpose, rustix::mount::mount_remount(mount.point.as_str(), flags, c""))?;
    }
    Ok(())
}

/// Makes the view the root directory, and removes everything else from the namespace.
fn become_root(view: &OwnedFd) -> Result<(), RefusedCall> {
    let purpose = "make the view the root directory";
    step("fchdir", purpose, rustix::process::fchdir(view))?;
    // The old root is then mounted over the new one (pivot_root(2), NOTES).
    step("pivot_root", purpose, rustix::process::pivot_root(".", "."))?;
    step("umount2", purpose, rustix::mount::unmount(".", UnmountFlags::DETACH))?;
    step("chdir", purpose, rustix::process::chdir("/"))
}

fn tmpfs(mode: &str, attributes: MountAttrFlags) -> Result<OwnedFd, RefusedCall> {
    filesystem("tmpfs", &[("mode", mode)], attributes)
}

/// That of the PID namespace of this process.
fn proc() -> Result<OwnedFd, RefusedCall> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    filesystem("proc", &[], attributes)
}

fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, RefusedCall> {
    let purpose = format!("mount a {kind} in the view");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC);
    let context = step("fsopen", &purpose, context)?;
    for (key, value) in options.iter().chain([&("source", kind)]) {
        step("fsconfig", &purpose, fsconfig_set_string(&context, *key, *value))?;
    }
    step("fsconfig", &purpose, fsconfig_create(&context))?;
    let mounted = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
    step("fsmount", purpose, mounted)
}

fn move_mount(mount: impl AsFd, target: impl AsFd, purpose: &str) -> Result<(), RefusedCall> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    step("move_mount", purpose, rustix::mount::move_mount(mount, "", target, "", flags))
}

/// The mount table of the namespace in which it was opened, also if another mount hides its path by now.
fn read(table: &mut File) -> Result<Vec<MountEntry>, ViewError> {
    let mut bytes = Vec::new();
    let read = table.rewind().and_then(|()| table.read_to_end(&mut bytes));
    read.map_err(|source| ViewError::Table { source })?;
    Ok(mount_table::parse(&String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum ViewError {
        Refused { call = RefusedCall::new("mount", "PURPOSE", &io::Error::from_raw_os_error(1)) }, Table { source }, Stacked { path }, NoRoot,
    }
}
