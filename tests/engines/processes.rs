//! What the kernel says about processes, which no engine can colour.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::wait_for;

/// A process, and what it was started as.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) arguments: Vec<String>,
}

impl Process {
    /// A file of the process in `/proc`.
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// A field of `/proc/PID/status`; empty once the process is gone.
    pub(crate) fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(self.proc("status")).unwrap_or_default();
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    pub(crate) fn is_alive(&self) -> bool {
        let state = self.status("State");
        !state.is_empty() && !state.starts_with(['Z', 'X'])
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal)
            .unwrap_or_else(|error| panic!("{signal} to {self:?}: {error}"));
    }
}

/// Ends the process whose pid a hook noted, if it is still there.
pub(crate) fn end_noted(pid: &str) {
    if let Ok(pid) = pid.trim().parse() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Every living process of the sandbox, kernel threads aside.
pub(crate) fn processes() -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(bytes) = fs::read(entry.path().join("cmdline")) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let arguments = text.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
        let process = Process { pid, arguments };
        if !bytes.is_empty() && process.is_alive() {
            found.push(process);
        }
    }
    found
}

/// The processes whose command line mentions `id`, also in a path: shim, runtime, proxy, conmon.
pub(crate) fn processes_of(id: &str) -> Vec<Process> {
    let is_id = |word: &String| word.split(['/', '=']).any(|part| part == id);
    let mentions = |process: &Process| process.arguments.iter().any(is_id);
    processes().into_iter().filter(mentions).collect()
}

/// Waits until no process mentions `id` any more.
#[track_caller]
pub(crate) fn assert_gone(id: &str) {
    assert!(id.len() > 4, "{id:?} is no container id");
    for _ in 0..500 {
        if processes_of(id).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("processes left of {id} after 5 s: {:#?}", processes_of(id));
}

fn proxies(id: &str) -> Vec<Process> {
    let is_proxy = |process: &Process| process.arguments.iter().any(|word| word == "proxy");
    processes_of(id).into_iter().filter(is_proxy).collect()
}

/// Fails the test when a proxy of the container is left, now or within a moment.
#[track_caller]
pub(crate) fn assert_no_proxy(id: &str) {
    for _ in 0..300 {
        if proxies(id).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("a proxy is left of {id} after 3 s: {:#?}", proxies(id));
}

/// Waits for the proxy of a container.
#[track_caller]
pub(crate) fn proxy_of(id: &str) -> Process {
    let found = wait_for(&format!("the proxy of {id}"), Duration::from_secs(30), || {
        let mut found = proxies(id);
        if found.is_empty() { None } else { Some(found.remove(0)) }
    });
    assert!(found.arguments.iter().any(|word| word == "--id"), "{found:?}");
    found
}

/// Waits for the containerd shim of a container.
#[track_caller]
pub(crate) fn shim_of(id: &str) -> Process {
    wait_for(&format!("the shim of {id}"), Duration::from_secs(30), || {
        let is_shim = |process: &Process| process.arguments[0].contains("containerd-shim");
        processes_of(id).into_iter().find(is_shim)
    })
}
