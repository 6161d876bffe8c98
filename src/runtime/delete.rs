//! `delete ID`: run the extension's hook, and forget the container. A hook that fails is a warning: a
//! delete that fails leaves a container that no engine can start or remove again.

use super::hooks::{self, end_outlived, rootfs_of, run_image_hook, run_poststop, sweep};
use super::{Context, Error as Common, Outcome, listed, observe, state as state_verb};
use crate::cli::runtime::Whose;
use crate::host::container::cgroup;
use crate::host::container::lock_holder::{self, Ends};
use crate::host::container::log::ContainerLog;
use crate::host::container::lookalikes::{self, Lookalikes};
use crate::host::container::proxy;
use crate::host::container::rootfs;
use crate::host::container::state_dir::{self, Held, Loaded, Locked};
use crate::host::os::process::{self, Process, Waited};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Duty, Insistence, Phase, Status, can_delete};
use crate::model::container::proxy::Identity;
use crate::model::container::signal::Signal;
use crate::model::container::state::{RecordedRole, State};
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

/// How long a plain delete waits for a start that is just ending. Docker allows 30 s in all.
const PLAIN_PATIENCE: Duration = Duration::from_secs(20);
/// How long a forced one waits for another delete to have marked the container as such.
const MARK_PATIENCE: Duration = Duration::from_millis(200);
/// How long it leaves that one then. containerd allows it 5 s in all.
const DELETE_PATIENCE: Duration = Duration::from_secs(3);
/// How long an ended command may take to let go.
const END_LIMIT: Duration = Duration::from_secs(1);
/// How long a proxy that was told to end may take.
const PROXY_LIMIT: Duration = Duration::from_secs(2);

/// Why a container was not deleted.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("end the command that works on container {id}")]
    Operator { id: String, source: io::Error },
    #[error(
        "container {id} is held by a process that is no command of this program: end it (`fuser {path:?}` \
         names it)"
    )]
    HeldByAnother { id: String, path: PathBuf },
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    #[error("tell the proxy process {pid} to end")]
    Tell { pid: i32, source: io::Error },
    #[error(transparent)]
    State(#[from] state_dir::Error),
}

pub(super) fn delete(
    context: &Context<'_>,
    id: &ContainerId,
    insistence: Insistence,
    whose: &Whose,
) -> Outcome {
    look(context, id, insistence)?;
    let Some(held) = hold(context, id, insistence, whose)? else {
        return match insistence {
            Insistence::Force => Ok(None),
            Insistence::Plain => Err(Common::Unknown { id: id.to_string() }.into()),
        };
    };
    // Read again: only now does nobody change it any more.
    match held.load().map_err(Common::State)? {
        Loaded::Ours(state) if !is_meant(&state, whose) => Ok(None),
        Loaded::Ours(state) => forget(context, held, *state, insistence),
        Loaded::Unknown => match insistence {
            Insistence::Force => {
                // What a create that was killed at its very beginning has left; another runtime's
                // folder is not empty and stays.
                held.remove_if_empty().map_err(Common::State)?;
                Ok(None)
            }
            Insistence::Plain => Err(Common::Unknown { id: id.to_string() }.into()),
        },
        Loaded::Damaged { path, why, proxy } => match (insistence, whose) {
            (Insistence::Force, Whose::Anybodys) => {
                let damage = format!("the state was damaged ({path:?}: {why})");
                forget_damaged(context, held, id, &damage, proxy)
            }
            (Insistence::Plain, _) | (_, Whose::OfRun { .. }) => {
                Err(Common::Damaged { id: id.to_string(), path, why }.into())
            }
        },
    }
}

/// Removes a state that says no more of the container than its proxy, if that. A process that only looks like
/// the proxy is named and left alone.
fn forget_damaged(
    context: &Context<'_>,
    held: Held,
    id: &ContainerId,
    damage: &str,
    proxy: Option<Identity>,
) -> Outcome {
    let failed = |source| Common::Proxy { id: id.to_string(), source };
    let about = match proxy {
        Some(identity) => match process::find_proxy(id.as_str(), identity).map_err(failed)? {
            Some(process) => {
                proxy::kill(&process).map_err(Error::Proxy)?;
                format!("its proxy {} was killed", process.pid())
            }
            None => "its proxy has ended".to_owned(),
        },
        None => describe(&lookalikes::proxies(id.as_str())),
    };
    held.remove().map_err(Common::State)?;
    context
        .log
        .warn(&format!("{damage}: it is removed; no hook ran, and a cgroup may be left; {about}"));
    Ok(Some("deleted a container whose state was damaged".to_owned()))
}

/// What is known of a proxy that the state does not name. Not to know must not keep a damaged container.
fn describe(found: &io::Result<Lookalikes>) -> String {
    let undetermined = "which process its proxy is cannot be determined";
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

/// Refuses at once what must be refused, without waiting for a lock.
fn look(
    context: &Context<'_>,
    id: &ContainerId,
    insistence: Insistence,
) -> Result<(), Box<dyn std::error::Error>> {
    let loaded = context.root.load(id).map_err(Common::State)?;
    if insistence == Insistence::Plain {
        let state = state_verb::known(id, loaded)?;
        let (_, status) = observe(&state)?;
        can_delete(id.as_str(), status, state.duty(), insistence)?;
    }
    Ok(())
}

/// Whether the container is the one that the caller has in mind, and not a later one of the same id.
fn is_meant(state: &State, whose: &Whose) -> bool {
    match whose {
        Whose::Anybodys => true,
        Whose::OfRun { mark } => state.run.as_ref() == Some(mark),
    }
}

/// Locks the container; `None` if it is unknown by now. A forced delete ends whoever holds it, but leaves
/// another delete some time, and whoever works on a container that is not meant alone.
fn hold(
    context: &Context<'_>,
    id: &ContainerId,
    insistence: Insistence,
    whose: &Whose,
) -> Result<Option<Held>, Box<dyn std::error::Error>> {
    let lock = |patience| match context.root.lock(id, patience) {
        Ok(Locked::Held(held)) => Ok(ControlFlow::Break(Some(held))),
        Ok(Locked::Unknown) => Ok(ControlFlow::Break(None)),
        Ok(Locked::Busy) => Ok(ControlFlow::Continue(())),
        Err(error) => Err(Common::State(error)),
    };
    if insistence == Insistence::Plain {
        if let ControlFlow::Break(held) = lock(PLAIN_PATIENCE)? {
            return Ok(held);
        }
        return Err(Common::Busy { id: id.to_string() }.into());
    }
    if let ControlFlow::Break(held) = lock(MARK_PATIENCE)? {
        return Ok(held);
    }
    let deleting = match context.root.load(id).map_err(Common::State)? {
        Loaded::Ours(state) if !is_meant(&state, whose) => return Ok(None),
        Loaded::Ours(state) => state.phase.is_way_out(),
        Loaded::Unknown | Loaded::Damaged { .. } => match whose {
            Whose::Anybodys => false,
            // Nothing says that it is meant, as of a create that has only just begun.
            Whose::OfRun { .. } => return Ok(None),
        },
    };
    let folder = context.root.folder_path(id);
    let failed = |source| Error::Operator { id: id.to_string(), source };
    let end = |ends| lock_holder::end(id.as_str(), &folder, ends).map_err(failed);
    if !deleting {
        context.log.warn("another command works on the container: ending it");
        // Another forced delete may have ended that one already and have the lock by now.
        end(Ends::NoDelete)?;
        lock_holder::end_unrecorded_proxy(id.as_str(), &folder).map_err(failed)?;
    }
    if let ControlFlow::Break(held) = lock(DELETE_PATIENCE)? {
        return Ok(held);
    }
    context.log.warn("a command still works on the container: ending it, even if it is a delete");
    end(Ends::All)?;
    match lock(END_LIMIT)? {
        ControlFlow::Break(held) => Ok(held),
        ControlFlow::Continue(()) => {
            Err(Error::HeldByAnother { id: id.to_string(), path: folder }.into())
        }
    }
}

fn forget(context: &Context<'_>, held: Held, mut state: State, insistence: Insistence) -> Outcome {
    let (proxy, status) = observe(&state)?;
    can_delete(&state.id, status, state.duty(), insistence)?;
    let hooks_begun = state.phase == Phase::Deleting;
    // Where start has succeeded, what a hook left in the background is its own affair.
    if insistence == Insistence::Force && (state.status != Status::Stopped || hooks_begun) {
        end_outlived(context, &state, held.lock());
    }
    sweep(context, &state.id, held.lock());
    let (duty, last_signal) = (state.duty(), state.last_signal());
    context.log.debug(|| match &proxy {
        Some(proxy) => format!("the container is {status}; ending its proxy {}", proxy.pid()),
        None => format!("the container is {status}; its proxy has ended"),
    });
    // From here on another delete waits for this one, nobody starts the container, and a create of the
    // same id may finish what this one, killed by an engine's limit, could not. A full disk must not stop
    // a delete.
    let mut mark = |phase| {
        if state.phase != phase {
            state.phase = phase;
            warn(context, held.save(&state));
        }
    };
    if let Some(proxy) = proxy {
        if !hooks_begun {
            mark(Phase::Ending);
        }
        end_proxy(&proxy, duty, last_signal)?;
    }
    // Only now: hooks that have not begun must not count as such after a kill.
    mark(Phase::Deleting);
    if hooks_begun && insistence == Insistence::Force {
        // Whoever insists has little time (containerd: 5 s), and the hook has had its own.
        let told = "an earlier delete was interrupted; its hooks are not run again";
        context.log.warn(told);
    } else {
        run_hooks(context, &held, &state);
    }
    if let Some(leaf) = &state.cgroup {
        if let Some(removed) = warn(context, cgroup::remove(leaf, &state.foreign_cgroups)) {
            context.log.debug(|| format!("removed the cgroups {}", listed(&removed)));
        }
    }
    held.remove().map_err(Error::State)?;
    Ok(Some("deleted".to_owned()))
}

fn run_hooks(context: &Context<'_>, held: &Held, state: &State) {
    warn(context, run_delete_hook(context, held, state));
    run_poststop(context, state, held.lock(), |error| tell(context, error));
}

fn warn<T, E: std::error::Error + 'static>(
    context: &Context<'_>,
    result: Result<T, E>,
) -> Option<T> {
    result.map_err(|error| tell(context, &error)).ok()
}

fn tell(context: &Context<'_>, error: &(dyn std::error::Error + 'static)) {
    context.log.warn(&format!("{}; deleting all the same", chain(error)));
}

/// Why the hook did not run or did not succeed.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("hooks/delete is skipped")]
    Rootfs { source: rootfs::Error },
    #[error(transparent)]
    Hook(hooks::Error),
}

fn run_delete_hook(context: &Context<'_>, held: &Held, state: &State) -> Result<(), HookError> {
    if state.role == RecordedRole::Sandbox {
        return Ok(());
    }
    let rootfs = rootfs_of(state, None).map_err(|source| HookError::Rootfs { source })?;
    run_image_hook(context, Verb::Delete, state, &rootfs, held.lock(), ContainerLog::nowhere)
        .map(|_| ())
        .map_err(HookError::Hook)
}

/// A started container's proxy was told to end, unless `start` died before that: it is told (again) and
/// so ends with the right status. Any other is killed.
fn end_proxy(proxy: &Process, duty: Duty, last_signal: Signal) -> Result<(), Error> {
    if duty == Duty::End {
        let pid = proxy.pid();
        let told = |source| Error::Tell { pid, source };
        proxy.signal(last_signal).map_err(told)?;
        if proxy.wait_end(PROXY_LIMIT).map_err(told)? == Waited::Ended {
            return Ok(());
        }
    }
    Ok(proxy::kill(proxy)?)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Operator { id, source }, HeldByAnother { id, path }, Proxy(..), Tell { pid, source },
        State(..),
    }
    enum HookError {
        Rootfs { source }, Hook(..),
    }
}
