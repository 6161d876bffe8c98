//! `start ID`: run the extension's hook, or refuse the extension, and let the proxy end.

use super::hooks::{self, rootfs_of, run_image_hook, run_spec_hooks, sweep};
use super::{Context, Error as Common, observe, state as state_verb};
use crate::host::container::log::ContainerLog;
use crate::host::container::net_namespace;
use crate::host::container::proxy;
use crate::host::container::rootfs::{self, Rootfs};
use crate::host::container::state_dir::{self, Held, Locked};
use crate::host::os::process::{Process, Waited};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Duty, Phase, Refused, Status, can_start};
use crate::model::container::refusal::Refusal;
use crate::model::container::state::{RecordedRole, StartOutput, State};
use crate::model::extension::claim::Claims;
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;
use std::io;
use std::time::Duration;

/// How long another command may hold the container: `create` lets go a moment after it has said so.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the proxy may take to end, so that `state` says `stopped` when start has returned.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Why a container was not started. It is stopped then.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[error(transparent)]
    Hooks(#[from] hooks::Error),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Namespace(#[from] net_namespace::Error),
    #[error(transparent)]
    State(#[from] state_dir::Error),
    #[error("tell the proxy process {pid} to end")]
    Tell { pid: i32, source: io::Error },
}

/// The first error, and what could not be stopped after it.
#[derive(Debug, thiserror::Error)]
#[error("{first}; and stopping the container: {then}")]
struct NotStopped {
    first: String,
    then: String,
}

/// What a start has come to that did not fail.
#[derive(Debug)]
pub(super) enum Started {
    Applied,
    Refused(Refusal),
    /// A sandbox, with the pid of its proxy.
    Runs(i32),
}

impl Started {
    /// Why the extension was refused, if it was.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Applied | Self::Runs(_) => None,
        }
    }

    /// The sentence for the log.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Applied => "applied; the container has stopped, as it should".to_owned(),
            Self::Refused(_) => {
                "refused; the container has stopped, and its proxy ends with status 1".to_owned()
            }
            Self::Runs(pid) => format!("the sandbox runs as proxy {pid}"),
        }
    }
}

pub(super) fn start(
    context: &Context<'_>,
    id: &ContainerId,
) -> Result<Started, Box<dyn std::error::Error>> {
    let held = match context.root.lock(id, PATIENCE).map_err(Common::State)? {
        Locked::Held(held) => held,
        Locked::Busy => return Err(Common::Busy { id: id.to_string() }.into()),
        Locked::Unknown => return Err(Common::Unknown { id: id.to_string() }.into()),
    };
    let mut state = state_verb::known(id, held.load().map_err(Common::State)?)?;
    let (proxy, status) = observe(&state)?;
    can_start(id.as_str(), status, state.phase)?;
    sweep(context, id.as_str(), held.lock());
    state.phase = Phase::InUse;
    // `created` is only true of a container whose proxy is there.
    let Some(proxy) = proxy else { return Err(Common::Unknown { id: id.to_string() }.into()) };
    context.log.debug(|| format!("the container is {status}, its proxy is {}", proxy.pid()));
    match go(context, &held, &mut state, &proxy) {
        Ok(started) => {
            // The proxy is needed no more, so a delete need not wait for this.
            drop(held);
            if state.duty() == Duty::End {
                await_end(context, &proxy);
            }
            Ok(started)
        }
        Err(first) => {
            let told = || format!("it fails: killing the proxy {}", proxy.pid());
            context.log.debug(told);
            Err(stop(&held, &mut state, &proxy, first))
        }
    }
}

fn go(
    context: &Context<'_>,
    held: &Held,
    state: &mut State,
    proxy: &Process,
) -> Result<Started, Error> {
    let hooks = state.hooks.clone();
    let before = (&*state, Status::Created);
    let list = &hooks.start_container;
    // Opened before any of them runs: a proxy that dies under way is not an error.
    let namespace = match list.as_slice() {
        [] => None,
        [..] => {
            let gone = || Refused::StartStopped { id: state.id.clone() };
            Some(net_namespace::Held::of(proxy)?.ok_or_else(gone)?)
        }
    };
    run_spec_hooks(context, "startContainer", list, before, namespace.as_ref(), held.lock())?;
    let started = match state.role {
        RecordedRole::Extension => apply(context, held, state, proxy)?,
        RecordedRole::Sandbox => Started::Runs(proxy.pid()),
    };
    state.refused = started.refusal().map(ToString::to_string);
    // Written before the proxy is told: a crash in between leaves a process that delete ends; the
    // other order would leave a container that says `created` with nothing behind it.
    state.status = match state.role {
        RecordedRole::Extension => Status::Stopped,
        RecordedRole::Sandbox => Status::Running,
    };
    held.save(state)?;
    context.log.debug(|| format!("recorded as {}", state.status));
    if started.refusal().is_none() {
        // While the proxy is there: these hooks are given its pid.
        let after = (&*state, Status::Running);
        let list = &hooks.poststart;
        run_spec_hooks(context, "poststart", list, after, None, held.lock())?;
    }
    if state.duty() == Duty::End {
        let (pid, status) = (proxy.pid(), u8::from(state.refused.is_some()));
        proxy.signal(state.last_signal()).map_err(|source| Error::Tell { pid, source })?;
        context.log.debug(|| format!("told the proxy {pid} to end with status {status}"));
    }
    Ok(started)
}

/// The container's log, which is the proxy's streams: whoever may not look into it cannot have them.
fn log_of(context: &Context<'_>, proxy: &Process) -> ContainerLog {
    let (log, lost) = ContainerLog::of_proxy(proxy);
    if let Some(error) = lost {
        let refused = error.kind() == io::ErrorKind::PermissionDenied;
        let why = if refused { " (the engine has no CAP_SYS_PTRACE)" } else { "" };
        let pid = proxy.pid();
        context.log.warn(&format!(
            "what hooks/start prints is missing in the container's log: cannot open the output of the proxy \
             {pid}{why}: {}",
            chain(&error)
        ));
    }
    log
}

/// Runs the image's hook, unless the extension is refused: the reason is in the container's log then, and in
/// the runtime's.
fn apply(
    context: &Context<'_>,
    held: &Held,
    state: &State,
    proxy: &Process,
) -> Result<Started, Error> {
    let rootfs = rootfs_of(state, Some(proxy))?;
    let log = || match state.start_output {
        StartOutput::Proxy => log_of(context, proxy),
        StartOutput::Caller => ContainerLog::of_caller(),
    };
    if let Some(refusal) = refusal(state, &rootfs)? {
        let reason = format!("refused: {refusal}");
        context.log.warn(&reason);
        log().say(&format!("balena-extension-runtime: {reason}"));
        return Ok(Started::Refused(refusal));
    }
    run_image_hook(context, Verb::Start, state, &rootfs, held.lock(), log)?;
    Ok(Started::Applied)
}

/// Why the extension must not be applied.
fn refusal(state: &State, rootfs: &Rootfs) -> Result<Option<Refusal>, Error> {
    let label = |name: &str| state.labels.get(name).map(String::as_str);
    if Claims::of(label).abi.is_none() {
        return Ok(None);
    }
    Ok(rootfs.file_in_boot()?.map(|file| Refusal::BringsKernel { file }))
}

/// Waits until the proxy, which was sent its signal, has ended. What start has to do is done in any case.
fn await_end(context: &Context<'_>, proxy: &Process) {
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
    context.log.warn(&format!(
        "the proxy {pid} was sent its signal to end, but {why}; the container is running until the proxy ends"
    ));
}

/// Engines leak a proxy that outlives a failed start, so it is killed and gone before that returns.
fn stop(
    held: &Held,
    state: &mut State,
    proxy: &Process,
    first: Error,
) -> Box<dyn std::error::Error> {
    let killed = proxy::kill(proxy).err().map(|error| chain(&error));
    state.status = Status::Stopped;
    // Without a proxy it counts as stopped in any case.
    let saved = held.save(state).err().map(|error| chain(&error));
    let failures: Vec<String> = killed.into_iter().chain(saved).collect();
    if failures.is_empty() {
        return first.into();
    }
    NotStopped { first: chain(&first), then: failures.join("; ") }.into()
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Rootfs(..), Hooks(..), Refused(..), Namespace(..), State(..), Tell { pid, source },
    }
    struct NotStopped { first, then };
}
