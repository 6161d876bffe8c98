//! Running the hooks of a moment: the image's own, and those of the spec.

use super::Context;
use crate::host::container::attached;
use crate::host::container::hook::{self, Call, Place, folder_or_root};
use crate::host::container::image_hook::{self, Bring, Image};
use crate::host::container::log::ContainerLog;
use crate::host::container::net_namespace;
use crate::host::container::outlived;
use crate::host::container::rootfs::{self, Rootfs};
use crate::host::os::process::Process;
use crate::model::container::deploy_record::{self, MountNamespace};
use crate::model::container::lifecycle::Status;
use crate::model::container::spec::SpecHook;
use crate::model::container::state::State;
use crate::model::extension::hook::{Verb, limit_of};
use crate::model::text::cause::chain;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// A hook that keeps a verb from completing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Image(#[from] image_hook::Error),
    #[error(
        "{hook} was in the rootfs {rootfs:?} at create and is missing now; delete the container and create it \
         again"
    )]
    HookGone { hook: &'static str, rootfs: String },
    #[error(transparent)]
    Hook(#[from] hook::Error),
    #[error(transparent)]
    Namespace(#[from] net_namespace::Error),
    #[error("write the state for the hooks of the spec")]
    State { source: serde_json::Error },
}

/// Whether the image had a hook for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Hook,
    Nothing,
}

/// Runs the image's hook for `verb`, if it has one. `state` has what was recorded at create; `log` opens
/// what the hook prints to.
pub(super) fn run_image_hook(
    context: &Context<'_>,
    verb: Verb,
    state: &State,
    rootfs: &Rootfs,
    lock: BorrowedFd<'_>,
    log: impl FnOnce() -> ContainerLog,
) -> Result<Ran, Error> {
    let name = verb.path();
    let image = Image {
        rootfs,
        labels: &state.labels,
        mounts: &state.mounts,
        id: &state.id,
        bring: Bring::Always,
    };
    let Some(hook) = image_hook::find(verb, &image, lock)? else {
        if state.seen.as_ref().is_some_and(|seen| seen.hooks.contains(&verb)) {
            return Err(Error::HookGone { hook: name, rootfs: state.rootfs.clone() });
        }
        context.log.debug(|| format!("the image has no {name}"));
        return Ok(Ran::Nothing);
    };
    for variable in &hook.environment.collisions {
        context
            .log
            .warn(&format!("two labels or mounts make {variable} of {name}; the last has it"));
    }
    let namespace = match &hook.doubt {
        None => MountNamespace::Host,
        Some(why) => {
            context.log.warn(&format!(
                "cannot tell whether this is the mount namespace of process 1 ({why}): {name} runs here, and \
                 what it mounts may not be visible on the host"
            ));
            MountNamespace::Unknown
        }
    };
    hook.call(folder_or_root(&state.bundle), |call| {
        run(context, call, namespace, lock, &mut log())
    })?;
    Ok(Ran::Hook)
}

/// Opens the rootfs that create saw. `proxy` may be the only one that still has it.
pub(super) fn rootfs_of(state: &State, proxy: Option<&Process>) -> Result<Rootfs, rootfs::Error> {
    Rootfs::open_again(&state.rootfs, state.seen.as_ref(), proxy)
}

/// Ends a hook that outlived its runtime and its guard.
pub(super) fn end_outlived(context: &Context<'_>, state: &State, lock: BorrowedFd<'_>) {
    let ended = attached::name(&state.id, lock).and_then(|name| {
        outlived::end(&[state.rootfs.as_str(), attached::rootfs_path(&name).as_str()])
    });
    match ended {
        Ok(0) => {}
        Ok(count) => context.log.warn(&format!(
            "an interrupted command left its hook running: killed {count} process(es) of it"
        )),
        Err(error) => context.log.warn(&format!(
            "cannot tell whether an interrupted command left its hook running: {}",
            chain(&error)
        )),
    }
}

/// Removes the mounts that a guard of this container has left, if it was killed.
pub(super) fn sweep(context: &Context<'_>, id: &str, lock: BorrowedFd<'_>) {
    if let Err(error) = attached::name(id, lock).and_then(|name| attached::sweep(&name)) {
        context.log.warn(&format!(
            "cannot remove what an interrupted hook left mounted below {}: {}",
            attached::FOLDER,
            chain(&error)
        ));
    }
}

/// Runs a list of the spec's hooks in order, each with the state on its standard input, until one
/// fails, in `namespace` or in this process's own. What they print goes into an error only.
pub(super) fn run_spec_hooks(
    context: &Context<'_>,
    list: &str,
    hooks: &[SpecHook],
    (state, status): (&State, Status),
    namespace: Option<&net_namespace::Held>,
    lock: BorrowedFd<'_>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let input =
        serde_json::to_vec(&state.view(status)).map_err(|source| Error::State { source })?;
    if let Some(namespace) = namespace {
        let path = namespace.path();
        context.log.debug(|| format!("hooks.{list} run in the network namespace {path}"));
    }
    for (index, hook) in hooks.iter().enumerate() {
        let name = format!("hooks.{list}[{index}] ({})", hook.path);
        let run = || run_spec_hook(context, &name, hook, state, &input, lock);
        match namespace {
            Some(namespace) => namespace.within(run)??,
            None => run()?,
        }
    }
    Ok(())
}

/// Runs every `poststop` hook, also those behind one that fails; `warn` is told why.
pub(super) fn run_poststop(
    context: &Context<'_>,
    state: &State,
    lock: BorrowedFd<'_>,
    mut warn: impl FnMut(&Error),
) {
    let input = match serde_json::to_vec(&state.view(Status::Stopped)) {
        Ok(input) => input,
        Err(source) => return warn(&Error::State { source }),
    };
    for (index, hook) in state.hooks.poststop.iter().enumerate() {
        let name = format!("hooks.poststop[{index}] ({})", hook.path);
        if let Err(error) = run_spec_hook(context, &name, hook, state, &input, lock) {
            warn(&error.into());
        }
    }
}

fn run_spec_hook(
    context: &Context<'_>,
    name: &str,
    hook: &SpecHook,
    state: &State,
    input: &[u8],
    lock: BorrowedFd<'_>,
) -> Result<(), hook::Error> {
    let mut arguments: Vec<&str> = hook.args.iter().map(String::as_str).collect();
    if arguments.is_empty() {
        arguments.push(&hook.path);
    }
    let call = Call {
        name,
        path: &hook.path,
        arguments: &arguments,
        environment: &hook.env,
        folder: folder_or_root(&state.bundle),
        limit: limit_of(hook.timeout),
        input: Some(input),
        place: Place::Here,
    };
    // Hooks of the spec belong to the engine, and so does the mount namespace they run in.
    run(context, &call, MountNamespace::Host, lock, &mut ContainerLog::nowhere())
}

fn run(
    context: &Context<'_>,
    call: &Call<'_>,
    namespace: MountNamespace,
    lock: BorrowedFd<'_>,
    log: &mut ContainerLog,
) -> Result<(), hook::Error> {
    let name = call.name;
    context.log.debug(|| format!("run {name}: {} in {}", call.path, call.folder));
    let mut heard = hook::Heard::new();
    let begun = Instant::now();
    let done = hook::run(call, lock, log, &mut heard);
    let took = super::millis(begun.elapsed());
    context.heard.borrow_mut().push(deploy_record::Heard::new(name, &heard, namespace));
    context.ran.borrow_mut().push((name.to_owned(), took));
    context.log.debug(|| match &done {
        Ok(Some(said)) => format!("{name} took {took:.3} ms, and said: {said}"),
        Ok(None) => format!("{name} took {took:.3} ms"),
        Err(_) => format!("{name} failed after {took:.3} ms"),
    });
    done.map(drop)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Image(..), HookGone { hook, rootfs }, Hook(..), Namespace(..), State { source },
    }
}
