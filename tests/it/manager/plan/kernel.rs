//! What the kernel's own overlayfs shows of a stack of layers, in a mount namespace of a thread of its own.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

/// Runs `work` in a thread that has a mount namespace, and in it an empty tmpfs at the path that `work` gets. Programs
/// that it starts are in the namespace, too. The mounts end with the thread.
pub(crate) fn in_own_mounts(work: impl FnOnce(&Path) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().to_owned();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).unwrap();
        mount("tmpfs", &top, "tmpfs", MountFlags::empty(), None).unwrap();
        work(&top);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Shows the directory `from` at `to`, too.
pub(crate) fn bind(from: &Path, to: &Path) {
    rustix::mount::mount_bind(from, to).unwrap();
}

pub(crate) fn unbind(point: &Path) {
    unmount(point, UnmountFlags::DETACH).unwrap();
}

/// An overlay that is mounted until this is dropped.
pub(crate) struct Overlay(PathBuf);

impl Overlay {
    /// Mounts read-only with this option string, as the initramfs does.
    pub(crate) fn mount(point: &Path, options: &str) -> io::Result<Self> {
        fs::create_dir_all(point).unwrap();
        let options = CString::new(options).unwrap();
        mount("overlay", point, "overlay", MountFlags::RDONLY, options.as_c_str())?;
        Ok(Self(point.to_owned()))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) is_directory: bool,
    /// Overlayfs shows the number of the file in its layer if all layers are on one filesystem.
    pub(crate) number: u64,
}

/// All paths below `top`, each with a `/` before it.
pub(crate) fn walk(top: &Path) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(top.join(directory.trim_start_matches('/'))).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{directory}/{name}");
            // The kernel lists the whiteouts of a directory that is in one layer only.
            let Ok(found) = fs::symlink_metadata(top.join(&path[1..])) else { continue };
            let is_directory = found.is_dir();
            seen.insert(path.clone(), Seen { is_directory, number: found.ino() });
            if is_directory {
                open.push(path);
            }
        }
    }
    seen
}

/// What the layers alone show, the topmost first.
pub(crate) fn merged(
    layers: &[PathBuf],
    empty: &Path,
    point: &Path,
) -> (Overlay, BTreeMap<String, Seen>) {
    fs::create_dir_all(empty).unwrap();
    let paths: Vec<&str> = layers
        .iter()
        .map(PathBuf::as_path)
        .chain([empty])
        .map(|path| path.to_str().unwrap())
        .collect();
    let overlay = Overlay::mount(point, &format!("lowerdir={}", paths.join(":"))).unwrap();
    let seen = walk(point);
    (overlay, seen)
}
