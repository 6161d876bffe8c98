//! The processes of a container, as the kernel reports them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{GONE, LIMIT};
use crate::proc_fs::{Process, processes};
use crate::process::{poll_within, wait_for_within};

/// Kills the process whose pid a hook noted, if it still exists.
pub(crate) fn end_noted(pid: &str) {
    if let Ok(pid) = pid.trim().parse() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The processes whose command line contains `id`, also in a path: shim, runtime, proxy, conmon.
pub(crate) fn processes_of(id: &str) -> Vec<Process> {
    let is_id = |word: &String| word.split(['/', '=']).any(|part| part == id);
    let mentions = |process: &Process| process.arguments().iter().any(is_id);
    processes().into_iter().filter(mentions).collect()
}

/// Waits until no process has `id` in its command line.
#[track_caller]
pub(crate) fn assert_no_process(id: &str) {
    assert!(id.len() > 4, "{id:?} is no container id");
    let gone = || processes_of(id).is_empty().then_some(());
    if poll_within(GONE, gone).is_none() {
        panic!("processes left of {id} after {GONE:?}: {:#?}", processes_of(id));
    }
}

fn proxies(id: &str) -> Vec<Process> {
    let is_proxy = |process: &Process| process.arguments().iter().any(|word| word == "proxy");
    processes_of(id).into_iter().filter(is_proxy).collect()
}

/// Fails the test if a proxy of the container does not end.
#[track_caller]
pub(crate) fn assert_no_proxy(id: &str) {
    let gone = || proxies(id).is_empty().then_some(());
    if poll_within(GONE, gone).is_none() {
        panic!("a proxy is left of {id} after {GONE:?}: {:#?}", proxies(id));
    }
}

/// Waits for the proxy of a container.
#[track_caller]
pub(crate) fn proxy_of(id: &str) -> Process {
    wait_for_within(LIMIT, &format!("the proxy of {id}"), || {
        let has_id = |process: &Process| process.arguments().iter().any(|word| word == "--id");
        proxies(id).into_iter().find(has_id)
    })
}

/// Waits for the containerd shim of a container.
#[track_caller]
pub(crate) fn shim_of(id: &str) -> Process {
    wait_for_within(LIMIT, &format!("the shim of {id}"), || {
        let is_shim = |process: &Process| {
            process.arguments().first().is_some_and(|name| name.contains("containerd-shim"))
        };
        processes_of(id).into_iter().find(is_shim)
    })
}
