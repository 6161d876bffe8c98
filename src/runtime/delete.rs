//! `delete ID`: run the extension's hook, and remove the container. A hook that fails is a warning: a
//! delete that fails leaves a container that no engine can start or remove again.

use super::container::{Container, lock};
use super::error::Error;
use super::hooks::{ImageHooks, end_outlived, open_rootfs_again, remove_left_mounts, run_poststop};
use super::journal::{Journal, Outcome};
use super::shown_paths;
use crate::host::container::cgroup;
use crate::host::container::lock_holder::{self, Ends, Lookalikes};
use crate::host::container::log::ContainerLog;
use crate::host::container::proxy;
use crate::host::container::state_dir::{Loaded, LockedContainer, Locking, StateRoot};
use crate::host::os::process::{self, Process, Waited};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Duty, Insistence, Phase, Status};
use crate::model::container::proxy::Identity;
use crate::model::container::state::{RecordedRole, State};
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;
use std::io;
use std::time::Duration;

/// How long a plain delete waits for a start that is just ending. Docker allows 30 s in all.
const PLAIN_PATIENCE: Duration = Duration::from_secs(20);
/// How long a forced delete waits for another delete to mark the container.
const MARK_PATIENCE: Duration = Duration::from_millis(200);
/// How long it lets a delete that has marked the container work. containerd allows 5 s in all.
const DELETE_PATIENCE: Duration = Duration::from_secs(3);
/// How long an ended command may take to release the lock.
const END_LIMIT: Duration = Duration::from_secs(1);
/// How long a proxy may take to end after its signal.
const PROXY_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn delete(
    journal: &mut Journal,
    root: &StateRoot,
    id: &ContainerId,
    insistence: Insistence,
) -> Result<Outcome, Error> {
    let locked = match insistence {
        Insistence::Plain => {
            // Refused at once, without waiting for the lock.
            Container::open(root, id)?.may_delete(insistence)?;
            lock(root, id, PLAIN_PATIENCE)?
        }
        Insistence::Force => {
            // A state that is not trusted is refused before anything is ended.
            root.load(id)?;
            match lock_or_end_holder(journal, root, id)? {
                Some(locked) => locked,
                None => return Ok(Outcome::Answered),
            }
        }
    };
    // Read again: only the holder of the lock may change it.
    match (locked.load()?, insistence) {
        (Loaded::Unknown, Insistence::Force) => {
            // What a create that was killed at its very beginning left. Another runtime's directory is not empty.
            if locked.is_empty()? {
                locked.remove()?;
            }
            Ok(Outcome::Answered)
        }
        (Loaded::Damaged { path, why, proxy }, Insistence::Force) => {
            let damage = format!("the state was damaged ({path:?}: {why})");
            delete_damaged(journal, locked, id, &damage, proxy)
        }
        (loaded, _) => {
            let container = Container::of(id, loaded)?;
            container.may_delete(insistence)?;
            delete_locked(journal, locked, container, insistence)
        }
    }
}

/// Locks the container for a forced delete; `None` if it is unknown by now. The command that holds the lock is ended,
/// but another delete has some time to finish.
fn lock_or_end_holder(
    journal: &mut Journal,
    root: &StateRoot,
    id: &ContainerId,
) -> Result<Option<LockedContainer>, Error> {
    let directory = root.path_of(id);
    let failed = |source| Error::EndHolder { id: id.to_string(), source };
    let end = |ends| lock_holder::end(id.as_str(), &directory, ends).map_err(failed);
    let mut locking = root.lock(id, MARK_PATIENCE)?;
    if matches!(locking, Locking::Busy) {
        let is_deleting = matches!(root.load(id)?, Loaded::Ours(state) if state.phase.is_way_out());
        if !is_deleting {
            journal.warn("another command is working on the container: ending it");
            // Another forced delete may have ended that command already, and hold the lock now.
            end(Ends::NoDelete)?;
            lock_holder::end_unrecorded_proxy(id.as_str(), &directory).map_err(failed)?;
        }
        locking = root.lock(id, DELETE_PATIENCE)?;
    }
    if matches!(locking, Locking::Busy) {
        journal
            .warn("a command is still working on the container: ending it, even if it is a delete");
        end(Ends::All)?;
        locking = root.lock(id, END_LIMIT)?;
    }
    match locking {
        Locking::Locked(locked) => Ok(Some(locked)),
        Locking::Unknown => Ok(None),
        Locking::Busy => Err(Error::LockedByAnother { id: id.to_string(), path: directory }),
    }
}

/// Removes a container whose state names at most its proxy. A process that only looks like the proxy is named and not
/// touched.
fn delete_damaged(
    journal: &mut Journal,
    locked: LockedContainer,
    id: &ContainerId,
    damage: &str,
    proxy: Option<Identity>,
) -> Result<Outcome, Error> {
    let failed = |source| Error::FindProxy { id: id.to_string(), source };
    let about = match proxy {
        Some(identity) => match process::find_proxy(id.as_str(), identity).map_err(failed)? {
            Some(process) => {
                proxy::kill(&process)?;
                format!("its proxy {} was killed", process.pid())
            }
            None => "its proxy has ended".to_owned(),
        },
        None => describe(&lock_holder::find_lookalikes(id.as_str())),
    };
    locked.remove()?;
    journal
        .warn(&format!("{damage}: it is removed; no hook ran, and a cgroup may be left; {about}"));
    Ok(Outcome::Did("deleted a container whose state was damaged".to_owned()))
}

/// The processes that may be the proxy that the state does not name. A container must not be kept only because they
/// are unknown.
fn describe(found: &io::Result<Lookalikes>) -> String {
    let undetermined = "cannot determine which process is its proxy";
    match found {
        Err(error) => format!("{undetermined}: {}", chain(error)),
        Ok(Lookalikes { pids, unread: Some(error) }) if pids.is_empty() => {
            format!(
                "{undetermined}: the command lines of some processes cannot be read: {}",
                chain(error)
            )
        }
        Ok(Lookalikes { pids, .. }) if pids.is_empty() => {
            "no process looks like its proxy".to_owned()
        }
        Ok(Lookalikes { pids, .. }) => {
            let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
            format!("{undetermined}; these may be: {} (end them with kill)", pids.join(", "))
        }
    }
}

/// Ends the proxy, runs the hooks, and removes the container.
fn delete_locked(
    journal: &mut Journal,
    locked: LockedContainer,
    container: Container,
    insistence: Insistence,
) -> Result<Outcome, Error> {
    journal.debug(|| container.describe());
    let Container { mut state, proxy, .. } = container;
    let hooks_begun = state.phase == Phase::Deleting;
    // Processes that a hook left in the background are only killed if the start has not succeeded.
    if insistence == Insistence::Force && (state.status != Status::Stopped || hooks_begun) {
        end_outlived(journal, &state, locked.lock());
    }
    remove_left_mounts(journal, &state.id, locked.lock());
    if let Some(proxy) = proxy {
        if !hooks_begun {
            mark(journal, &locked, &mut state, Phase::Ending);
        }
        end_proxy(&proxy, &state)?;
    }
    // Only now: hooks that have not begun must not count as begun after a kill.
    mark(journal, &locked, &mut state, Phase::Deleting);
    if hooks_begun && insistence == Insistence::Force {
        // A forced delete has little time (containerd: 5 s), and the hooks have had theirs.
        journal.warn("an earlier delete was interrupted; its hooks are not run again");
    } else {
        run_hooks(journal, &locked, &state);
    }
    if let Some(leaf) = &state.cgroup {
        match cgroup::remove(leaf, &state.foreign_cgroups) {
            Ok(removed) => {
                journal.debug(|| format!("removed the cgroups {}", shown_paths(&removed)));
            }
            Err(error) => warn_and_continue(journal, &error),
        }
    }
    locked.remove()?;
    Ok(Outcome::Did("deleted".to_owned()))
}

/// Records how far the delete is. From then on another delete waits for this one, nobody starts the container, and a
/// create of the same id may finish a delete that was killed by an engine's limit. A full disk must not stop a delete.
fn mark(journal: &mut Journal, locked: &LockedContainer, state: &mut State, phase: Phase) {
    if state.phase == phase {
        return;
    }
    state.phase = phase;
    if let Err(error) = locked.save(state) {
        warn_and_continue(journal, &error);
    }
}

fn run_hooks(journal: &mut Journal, locked: &LockedContainer, state: &State) {
    if state.role == RecordedRole::Extension {
        if let Err(error) = run_delete_hook(journal, locked, state) {
            warn_and_continue(journal, &error);
        }
    }
    for error in run_poststop(journal, state, locked.lock()) {
        warn_and_continue(journal, &error);
    }
}

fn run_delete_hook(
    journal: &mut Journal,
    locked: &LockedContainer,
    state: &State,
) -> Result<(), Error> {
    let rootfs = open_rootfs_again(state, None).map_err(|source| Error::SkippedHook { source })?;
    let hooks = ImageHooks { state, rootfs: &rootfs, lock: locked.lock() };
    hooks.run(journal, Verb::Delete, |_| ContainerLog::nowhere()).map(drop)
}

fn warn_and_continue(journal: &mut Journal, error: &(dyn std::error::Error + 'static)) {
    journal.warn(&format!("{}; the delete continues", chain(error)));
}

/// `start` has signalled the proxy of a started container, unless it died before. The signal is sent again, so that the
/// proxy exits with the right status. Any other proxy is killed.
fn end_proxy(proxy: &Process, state: &State) -> Result<(), Error> {
    if state.duty() == Duty::End {
        let pid = proxy.pid();
        let failed = |source| Error::SignalProxy { pid, source };
        proxy.signal(state.last_signal()).map_err(failed)?;
        if proxy.wait_end(PROXY_LIMIT).map_err(failed)? == Waited::Ended {
            return Ok(());
        }
    }
    Ok(proxy::kill(proxy)?)
}
