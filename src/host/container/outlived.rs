//! Kills a hook that outlived its runtime and its guard, as after a SIGKILL of both. The holder of the container's
//! lock knows that no guard is left to do so.

use crate::host::os::process;
use crate::model::container::environment::is_of_hook;
use crate::model::container::proxy::{Life, Stat};
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
/// `/proc` cannot be read, or a process cannot be killed; those that can be are killed nevertheless.
pub(crate) fn end(rootfs: &[&str]) -> io::Result<usize> {
    let deadline = Instant::now() + END_LIMIT;
    let mut sessions = BTreeSet::new();
    let mut ended = BTreeSet::new();
    loop {
        // What cannot be read may be the hook.
        let mut unread = None;
        let all = processes(&mut unread)?;
        for (&pid, _) in all.iter().filter(|(pid, stat)| stat.session == **pid) {
            match process::read_proc(pid, "environ") {
                Ok(Some(environment)) if is_of_hook(&environment, rootfs) => {
                    sessions.insert(pid);
                }
                Ok(_) => {}
                Err(error) => unread = Some(error),
            }
        }
        let doomed = family(&all, &sessions);
        if doomed.is_empty() || Instant::now() >= deadline {
            return unread.map_or(Ok(ended.len()), Err);
        }
        for &pid in &doomed {
            let Some(process) = process::open(pid)? else { continue };
            // Only now does the pid stay the same process's.
            if look(pid)? == all.get(&pid).copied() {
                process.kill()?;
                ended.insert(pid);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The members of these sessions, and all descendants.
fn family(all: &BTreeMap<i32, Stat>, sessions: &BTreeSet<i32>) -> BTreeSet<i32> {
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

fn processes(unread: &mut Option<io::Error>) -> io::Result<BTreeMap<i32, Stat>> {
    let mut found = BTreeMap::new();
    for pid in process::pids()? {
        match look(pid) {
            Ok(Some(stat)) => {
                found.insert(pid, stat);
            }
            Ok(None) => {}
            Err(error) => *unread = Some(error),
        }
    }
    Ok(found)
}

/// `None` if the process has ended.
fn look(pid: i32) -> io::Result<Option<Stat>> {
    Ok(process::read_stat(pid)?.filter(|stat| stat.life != Life::Ended))
}
