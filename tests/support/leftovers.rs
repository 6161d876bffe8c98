//! What must not be there any more when a test is over: processes, mounts, cgroups. Everything that
//! belongs to a container of a test has the name of its scratch directory somewhere.

use std::path::{Path, PathBuf};

use super::process;

/// The processes whose command line or environment has `name`.
pub(crate) fn processes(name: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid: &i32| process::is_alive(pid) && mentions(pid, name)).collect()
}

fn mentions(pid: i32, name: &str) -> bool {
    ["cmdline", "environ"].iter().any(|file| {
        // One that has ended meanwhile, or a kernel thread, has nothing to read.
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(name.len()).any(|window| window == name.as_bytes())
    })
}

/// The mounts below or of a path that has `name`.
pub(crate) fn mounts(name: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
}

/// The cgroups called `name` at the top of any hierarchy.
pub(crate) fn cgroups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let folders = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let roots = folders.map(|entry| entry.path()).chain([root.to_owned()]);
    roots.map(|root| root.join(name)).filter(|path| path.exists()).collect()
}
