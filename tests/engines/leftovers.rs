//! Compares a sandbox after all engines have stopped with its state before any engine started.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cgroups::{below, hierarchies};
use crate::command::{GONE, attempt};
use crate::proc_fs::processes;
use crate::process::poll_within;
use crate::sandbox::SCRATCH;

pub(crate) struct Snapshot {
    mounts: BTreeSet<String>,
    processes: BTreeSet<i32>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let processes = processes().into_iter().map(|process| process.0).collect();
        Self { mounts: mounts(), processes }
    }

    /// Fails if anything is left, and lists all of it.
    pub(crate) fn compare(&self) {
        // The last shims and their children may still be about to exit.
        let nothing = || self.left().is_empty().then_some(());
        if poll_within(GONE, nothing).is_none() {
            panic!("left behind:\n{}", self.left().join("\n"));
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for process in processes() {
            if !self.processes.contains(&process.0) {
                left.push(format!("{process:?}"));
            }
        }
        left.extend(mounts().difference(&self.mounts).map(|mount| format!("mount {mount}")));
        left.extend(states().iter().map(|dir| format!("state {}", dir.display())));
        left.extend(leaves().iter().map(|dir| format!("cgroup {}", dir.display())));
        let entries = fs::read_dir(SCRATCH).unwrap().flatten();
        left.extend(entries.map(|entry| format!("directory {}", entry.path().display())));
        left
    }
}

fn mounts() -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().map(str::to_owned).collect()
}

/// The state directories of the runtime without `--root`, and the directories where it attaches a rootfs for
/// hooks.
fn states() -> Vec<PathBuf> {
    let of_containerd = Path::new("/run/containerd/runc");
    let own = ["/run/balena-extension-runtime", "/run/balena-extension-runtime-rootfs"];
    let roots = own.map(Path::new).into_iter().chain([of_containerd]);
    let mut found: Vec<PathBuf> = roots.flat_map(below).collect();
    // containerd keeps a root for every namespace.
    found.retain(|dir| dir.parent() != Some(of_containerd) || !below(dir).is_empty());
    found
}

/// The cgroups of containers. Their parents, such as `docker`, and conmon's own are the engines'.
fn leaves() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        for parent in below(&hierarchy.mount_point) {
            found.extend(below(&parent).into_iter().filter(|dir| !dir.ends_with("conmon")));
        }
    }
    found
}

/// Unmounts the mounts that an engine leaves in its own directory: network namespaces, and the directory of a
/// storage driver.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let inside: Vec<&str> = points.filter(|point| Path::new(point).starts_with(folder)).collect();
    for point in inside.iter().rev() {
        attempt(Command::new("umount").args(["--lazy", point]));
    }
}
