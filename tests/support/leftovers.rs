//! Processes, mounts and cgroups that a test must not leave behind. All of them contain the name of the test's
//! scratch directory.

use std::path::{Path, PathBuf};

use super::proc_fs;
use super::process;

/// The processes whose command line or environment has `name`.
pub(crate) fn processes(name: &str) -> Vec<i32> {
    // Orphans are reaped, so that a zombie is not taken for a process.
    let found = proc_fs::processes().into_iter().map(|process| process.0);
    found.filter(|&pid| mentions(pid, name) && process::is_alive(pid)).collect()
}

fn mentions(pid: i32, name: &str) -> bool {
    ["cmdline", "environ"].iter().any(|file| {
        // The files of a process that has ended meanwhile, and of a kernel thread, are empty.
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(name.len()).any(|window| window == name.as_bytes())
    })
}

/// The mounts whose line in mountinfo has `name`.
pub(crate) fn mounts(name: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
}

/// The cgroups at the top of any hierarchy whose names start with `prefix`.
pub(crate) fn cgroups(prefix: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let directories = |path: &Path| {
        std::fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
    };
    let hierarchies = directories(root).chain([root.to_owned()]);
    let names_match = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    hierarchies.flat_map(|hierarchy| directories(&hierarchy)).filter(names_match).collect()
}
