//! `start ID`: run the extension's hook, or refuse the extension, and let the proxy end.

use super::container::{Container, lock};
use super::error::Error;
use super::hooks::{ImageHooks, open_rootfs_again, remove_left_mounts, run_spec_hooks};
use super::journal::{Journal, Outcome};
use super::kernel::Kernel;
use crate::host::container::log::ContainerLog;
use crate::host::container::net_namespace::OpenNamespace;
use crate::host::container::proxy;
use crate::host::container::state_dir::{LockedContainer, StateRoot};
use crate::host::os::process::{Process, Waited};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Duty, Phase, Refused, Status};
use crate::model::container::state::{RecordedRole, StartOutput, State};
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;
use std::io;
use std::time::Duration;

/// How long another command may hold the lock: `create` keeps it for a moment after the engine knows the pid.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the proxy may take to end, so that `state` says `stopped` when start has returned.
const END_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn start(
    journal: &mut Journal,
    root: &StateRoot,
    id: &ContainerId,
) -> Result<Outcome, Error> {
    let locked = lock(root, id, PATIENCE)?;
    let container = Container::of(id, locked.load()?)?;
    container.may_start()?;
    remove_left_mounts(journal, id.as_str(), locked.lock());
    journal.debug(|| container.describe());
    let Container { mut state, proxy, .. } = container;
    // Only a container whose proxy is alive is `created`.
    let Some(proxy) = proxy else { return Err(Error::Unknown { id: id.to_string() }) };
    state.phase = Phase::InUse;
    match run_hooks_and_stop(journal, &locked, &mut state, &proxy) {
        Ok(outcome) => {
            // The rest does not touch the state, so a delete need not wait for it.
            drop(locked);
            if state.duty() == Duty::End {
                await_end(journal, &proxy);
            }
            Ok(outcome)
        }
        Err(first) => {
            journal.debug(|| format!("start failed: killing the proxy {}", proxy.pid()));
            Err(stop(&locked, &mut state, &proxy, first))
        }
    }
}

/// Runs the hooks, records that the container has stopped, and then tells the proxy to end. A sandbox is recorded as
/// running, and its proxy remains.
fn run_hooks_and_stop(
    journal: &mut Journal,
    locked: &LockedContainer,
    state: &mut State,
    proxy: &Process,
) -> Result<Outcome, Error> {
    let (before, lock) = ((&*state, Status::Created), locked.lock());
    let hooks = &state.hooks.start_container;
    // Opened before any of them runs: it is not an error if the proxy ends meanwhile.
    let namespace = match hooks.is_empty() {
        true => None,
        false => {
            let ended = Refused::StartStopped { id: state.id.clone() };
            Some(OpenNamespace::of(proxy)?.ok_or(Error::StoppedInStart(ended))?)
        }
    };
    run_spec_hooks(journal, "startContainer", hooks, before, namespace.as_ref(), lock)?;
    let (outcome, status) = match state.role {
        RecordedRole::Extension => (apply(journal, locked, state, proxy)?, Status::Stopped),
        RecordedRole::Sandbox => {
            let did = format!("the sandbox runs as proxy {}", proxy.pid());
            (Outcome::Did(did), Status::Running)
        }
    };
    if let Outcome::Refused(refusal) = &outcome {
        state.refused = Some(refusal.to_string());
    }
    // Written before the proxy is told to end: a crash in between leaves a process that delete ends; the
    // other order would leave a container that says `created` with nothing behind it.
    state.status = status;
    locked.save(state)?;
    journal.debug(|| format!("recorded as {status}"));
    if state.refused.is_none() {
        // While the proxy is alive: these hooks are given its pid.
        let after = (&*state, Status::Running);
        run_spec_hooks(journal, "poststart", &state.hooks.poststart, after, None, lock)?;
    }
    if state.duty() == Duty::End {
        let (pid, status) = (proxy.pid(), u8::from(state.refused.is_some()));
        proxy.signal(state.last_signal()).map_err(|source| Error::SignalProxy { pid, source })?;
        journal.debug(|| format!("signalled the proxy {pid} to exit with status {status}"));
    }
    Ok(outcome)
}

/// Runs the image's hook, and arms the kernel that the image brings. If the extension is refused, the container's log
/// has the reason, as does the runtime's.
fn apply(
    journal: &mut Journal,
    locked: &LockedContainer,
    state: &State,
    proxy: &Process,
) -> Result<Outcome, Error> {
    let rootfs = open_rootfs_again(state, Some(proxy))?;
    let log = |journal: &mut Journal| match state.start_output {
        StartOutput::Proxy => log_of_proxy(journal, proxy),
        StartOutput::Caller => ContainerLog::of_caller(),
    };
    let kernel = Kernel { state, rootfs: &rootfs, lock: locked.lock() };
    let mut refusal = kernel.refusal()?;
    if refusal.is_none() {
        let hooks = ImageHooks { state, rootfs: &rootfs, lock: locked.lock() };
        hooks.run(journal, Verb::Start, log)?;
        refusal = kernel.activate(journal, log)?;
    }
    let Some(refusal) = refusal else {
        return Ok(Outcome::Did("applied; the container has stopped, as it should".to_owned()));
    };
    let reason = format!("refused: {refusal}");
    journal.warn(&reason);
    log(journal).say(&format!("balena-extension-runtime: {reason}"));
    Ok(Outcome::Refused(refusal))
}

/// The container's log, which is the proxy's streams. An engine that may not inspect the proxy does not get them.
fn log_of_proxy(journal: &mut Journal, proxy: &Process) -> ContainerLog {
    let (log, lost) = ContainerLog::of_proxy(proxy);
    if let Some(error) = lost {
        let refused = error.kind() == io::ErrorKind::PermissionDenied;
        let why = if refused { " (the engine has no CAP_SYS_PTRACE)" } else { "" };
        let pid = proxy.pid();
        journal.warn(&format!(
            "the output of hooks/start is missing from the container's log: cannot open the output of the proxy \
             {pid}{why}: {}",
            chain(&error)
        ));
    }
    log
}

/// Waits until the proxy, which was sent its signal, has ended. The start has succeeded in any case.
fn await_end(journal: &mut Journal, proxy: &Process) {
    let pid = proxy.pid();
    let why = match proxy.wait_end(END_LIMIT) {
        Ok(Waited::Ended) => return,
        Ok(Waited::StillThere) => {
            format!(
                "it has not ended within {} s (is it suspended or frozen?)",
                END_LIMIT.as_secs()
            )
        }
        Err(error) => format!("cannot wait for its end: {}", chain(&error)),
    };
    journal.warn(&format!(
        "the proxy {pid} was sent its signal to end, but {why}; the container is running until the proxy ends"
    ));
}

/// Engines leak a proxy that outlives a failed start, so this kills it before start returns.
fn stop(locked: &LockedContainer, state: &mut State, proxy: &Process, first: Error) -> Error {
    let killed = proxy::kill(proxy).err().map(Error::from);
    state.status = Status::Stopped;
    // Without a proxy the container counts as stopped even if this fails.
    let saved = locked.save(state).err().map(Error::from);
    first.and("stopping the container", killed.into_iter().chain(saved).collect())
}
