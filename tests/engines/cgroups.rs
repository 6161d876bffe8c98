//! A sandbox has its own cgroup in every hierarchy. All cgroups that engines make are below it and are removed
//! with it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::GONE;
use crate::process::poll_within;

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    pub(crate) mount_point: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub(crate) kind: String,
    /// The options that select it in mount(8): `cpu,cpuacct`, `name=systemd`; empty for version 2.
    pub(crate) options: String,
}

/// The cgroup hierarchies of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The hierarchies of the host, with the same mount points.
    AsMounted,
    /// Only version 2, at its usual mount point.
    OnlyTwo,
}

impl Version {
    pub(crate) const ALL: [Self; 2] = [Self::AsMounted, Self::OnlyTwo];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AsMounted => "as-mounted",
            Self::OnlyTwo => "only-two",
        }
    }

    /// The hierarchies to mount in a sandbox.
    pub(crate) fn hierarchies(self) -> Vec<Hierarchy> {
        match self {
            Self::AsMounted => hierarchies(),
            Self::OnlyTwo => vec![Hierarchy {
                mount_point: PathBuf::from("/sys/fs/cgroup"),
                kind: "cgroup2".to_owned(),
                options: String::new(),
            }],
        }
    }
}

/// The hierarchies mounted here.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter_map(hierarchy_of).collect()
}

/// Reads a line of mountinfo: `… ROOT POINT OPTIONS … - TYPE SOURCE SUPER_OPTIONS`.
fn hierarchy_of(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    let kind = right.next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
    let options = right.nth(1)?.split(',');
    let options: Vec<&str> =
        options.filter(|option| !matches!(*option, "rw" | "ro" | "xattr")).collect();
    let options = if kind == "cgroup" { options.join(",") } else { String::new() };
    let mount_point = PathBuf::from(left.split(' ').nth(4)?);
    Some(Hierarchy { mount_point, kind: kind.to_owned(), options })
}

/// The prefix of the cgroups of all sandboxes. The pid of their owner follows.
const NAME: &str = "engine-tests-";

/// One cgroup in every hierarchy. Dropping it removes them, with everything below.
#[derive(Debug)]
pub(crate) struct Cgroups {
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    pub(crate) fn create() -> Self {
        let mut dirs = Vec::new();
        for hierarchy in hierarchies() {
            remove_abandoned(&hierarchy.mount_point);
            let dir = hierarchy.mount_point.join(format!("{NAME}{}", std::process::id()));
            fs::create_dir(&dir).unwrap_or_else(|error| panic!("mkdir {}: {error}", dir.display()));
            // A new cpuset is empty, and an empty one takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.kind == "cgroup" && dir.join(file).exists() {
                    let parent = fs::read(hierarchy.mount_point.join(file)).unwrap();
                    fs::write(dir.join(file), parent).unwrap();
                }
            }
            dirs.push(dir);
        }
        Self { dirs }
    }

    /// Shell commands that move the shell into them.
    pub(crate) fn shell_to_enter(&self) -> String {
        self.dirs
            .iter()
            .map(|dir| format!("echo 0 >'{}/cgroup.procs' && ", dir.display()))
            .collect()
    }

    /// Removes them, and returns those that it could not remove.
    pub(crate) fn remove(&self) -> Vec<String> {
        let mut left: Vec<&PathBuf> = self.dirs.iter().collect();
        let _removed = poll_within(GONE, || {
            left.retain(|dir| dir.exists() && remove_tree(dir).is_err());
            left.is_empty().then_some(())
        });
        left.iter().map(|dir| dir.display().to_string()).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        drop(self.remove());
    }
}

/// Removes the cgroups of a run that was killed.
fn remove_abandoned(mount_point: &Path) {
    for dir in below(mount_point) {
        let owner = dir.file_name().and_then(|name| name.to_str()?.strip_prefix(NAME));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(remove_tree(&dir));
        }
    }
}

/// Removes cgroups from the leaves up. Their files are removed with them.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for child in below(dir) {
        remove_tree(&child)?;
    }
    fs::remove_dir(dir)
}

/// The cgroups directly below `dir`.
pub(crate) fn below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
