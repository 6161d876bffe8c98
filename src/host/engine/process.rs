//! Finds the engine's process by its pid file or its unit. The peer of the socket does not show it: with socket
//! activation that is process 1.

use crate::host::os::host_root::HostRoot;
use crate::model::engine::doctor::{EngineProcess, serves_an_engine, units_of_engine};
use std::path::Path;

/// The directories of the units' cgroups, for each way in which cgroups are mounted.
const SLICES: [&str; 3] = [
    "/sys/fs/cgroup/system.slice",
    "/sys/fs/cgroup/systemd/system.slice",
    "/sys/fs/cgroup/unified/system.slice",
];

/// Finds the process of the engine with this socket. Docker and balenaEngine name their pid files like the socket.
pub(crate) fn find(host: &HostRoot, socket: &Path) -> Result<EngineProcess, String> {
    let pid_file = socket.with_extension("pid").display().to_string();
    let name = socket.file_stem().unwrap_or_default().to_string_lossy();
    let units = units_of_engine(&name);
    let by_file = std::iter::once_with(|| by_pid_file(host, &pid_file));
    let mut problems = String::new();
    for found in by_file.chain(units.iter().map(|unit| by_unit(host, unit))) {
        match found {
            Ok(Some(process)) => return Ok(process),
            Ok(None) => {}
            Err(problem) => problems.push_str(&format!("; {problem}")),
        }
    }
    let units = units.join(" or ");
    Err(format!("neither the pid file {pid_file} nor {units} names its process{problems}"))
}

fn by_pid_file(host: &HostRoot, path: &str) -> Result<Option<EngineProcess>, String> {
    let Some(text) = host.read_if_there(path)? else { return Ok(None) };
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| format!("{path} does not contain a process id"))?;
    match name_of(host, pid)? {
        Some(name) if serves_an_engine(&name) => {
            Ok(Some(EngineProcess { pid, name, by: path.to_owned() }))
        }
        Some(name) => Err(format!("process {pid} of {path} is {name:?}, which is not an engine")),
        // A daemon that was killed leaves its pid file.
        None => Err(format!("process {pid} of {path} has exited")),
    }
}

fn by_unit(host: &HostRoot, unit: &str) -> Result<Option<EngineProcess>, String> {
    for slice in SLICES {
        let pids = host.read_if_there(&format!("{slice}/{unit}/cgroup.procs"))?;
        for pid in pids.unwrap_or_default().lines().filter_map(|line| line.parse().ok()) {
            if let Some(name) = name_of(host, pid)?.filter(|name| serves_an_engine(name)) {
                return Ok(Some(EngineProcess { pid, name, by: unit.to_owned() }));
            }
        }
    }
    Ok(None)
}

/// The name of a process; `None` if it does not exist.
fn name_of(host: &HostRoot, pid: i32) -> Result<Option<String>, String> {
    let name = host.read_if_there(&format!("/proc/{pid}/comm"))?;
    Ok(name.map(|name| name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn with(files: &[(&str, &str)]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let path = machine.0.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
            }
            machine
        }

        fn find(&self) -> Result<(i32, String), String> {
            let host = HostRoot::new(self.0.path().to_owned());
            let found = find(&host, Path::new("/run/docker.sock"))?;
            Ok((found.pid, found.by))
        }
    }

    const DOCKERD: (&str, &str) = ("proc/7/comm", "dockerd\n");
    const UNIT: (&str, &str) =
        ("sys/fs/cgroup/systemd/system.slice/docker.service/cgroup.procs", "5\n7\n");

    #[test]
    fn the_pid_file_leads_to_the_engine_and_so_does_its_unit() {
        let by_file = Machine::with(&[DOCKERD, ("run/docker.pid", "7")]);
        assert_eq!(by_file.find(), Ok((7, "/run/docker.pid".to_owned())));
        let shim = ("proc/5/comm", "containerd-shim\n");
        let by_unit = Machine::with(&[DOCKERD, UNIT, shim]);
        assert_eq!(by_unit.find(), Ok((7, "docker.service".to_owned())));
        let in_spite = Machine::with(&[DOCKERD, UNIT, ("run/docker.pid", "6")]);
        assert_eq!(in_spite.find(), Ok((7, "docker.service".to_owned())));
    }

    #[test]
    fn what_leads_to_no_engine_is_named() {
        let why = |files: &[(&str, &str)]| Machine::with(files).find().unwrap_err();
        let nothing = why(&[]);
        assert!(nothing.contains("/run/docker.pid nor docker.service"), "{nothing}");
        let ended = why(&[("run/docker.pid", "7")]);
        assert!(ended.contains("process 7 of /run/docker.pid has exited"), "{ended}");
        let other = why(&[("run/docker.pid", "7"), ("proc/7/comm", "sleep\n")]);
        assert!(other.contains("is \"sleep\", which is not an engine"), "{other}");
        assert!(why(&[("run/docker.pid", "x")]).contains("does not contain a process id"));
    }
}
