//! Ending a hook that has outlived its runtime and its guard, as after a SIGKILL of both. Whoever holds the
//! lock of its container knows that no guard is left to do so.

use crate::host::process;
use crate::model::outlived::{self, Relative};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

/// How long killed processes may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Kills every hook whose rootfs is at one of these paths, with its session and its descendants, and
/// returns how many processes that were. A hook leads its session; what an earlier hook has started in the
/// background does not, unless it made a session of its own.
///
/// # Errors
/// `/proc` cannot be read, or a process cannot be killed.
pub(crate) fn end(rootfs: &[&str]) -> io::Result<usize> {
    let deadline = Instant::now() + END_LIMIT;
    let mut sessions = BTreeSet::new();
    let mut ended = BTreeSet::new();
    loop {
        let all = processes()?;
        for (&pid, relative) in &all {
            if relative.session == pid && outlived::is_of(&environment(pid), rootfs) {
                sessions.insert(pid);
            }
        }
        let doomed = family(&all, &sessions);
        if doomed.is_empty() || Instant::now() >= deadline {
            return Ok(ended.len());
        }
        for &pid in &doomed {
            let Some(process) = process::open(pid)? else { continue };
            // Only now does the pid stay the same process's.
            if look(pid) == all.get(&pid).copied() {
                process.kill()?;
                ended.insert(pid);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The members of these sessions, and all descendants.
fn family(all: &BTreeMap<i32, Relative>, sessions: &BTreeSet<i32>) -> BTreeSet<i32> {
    let mut family = BTreeSet::new();
    loop {
        let size = family.len();
        let more: Vec<i32> = all
            .iter()
            .filter(|(_, it)| sessions.contains(&it.session) || family.contains(&it.parent))
            .map(|(&pid, _)| pid)
            .collect();
        family.extend(more);
        if family.len() == size {
            return family;
        }
    }
}

fn processes() -> io::Result<BTreeMap<i32, Relative>> {
    let pids = process::pids()?;
    Ok(pids.into_iter().filter_map(|pid| look(pid).map(|relative| (pid, relative))).collect())
}

/// `None` if the process has ended.
fn look(pid: i32) -> Option<Relative> {
    std::fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| outlived::parse_stat(&stat))
}

/// Empty for a process that has ended, and for one that this process may not look into.
fn environment(pid: i32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}
