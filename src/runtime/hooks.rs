//! The hooks of a verb: the image's own, and those of the spec.

use super::error::Error;
use super::journal::Journal;
use crate::host::container::attached;
use crate::host::container::hook::{self, Call, HookProgram, Place, directory_or_root};
use crate::host::container::image_hook::{self, Bring, Image};
use crate::host::container::log::ContainerLog;
use crate::host::container::net_namespace::OpenNamespace;
use crate::host::container::outlived;
use crate::host::container::rootfs::{self, Rootfs};
use crate::host::os::process::Process;
use crate::model::container::deploy_record::MountNamespace;
use crate::model::container::lifecycle::Status;
use crate::model::container::spec::SpecHook;
use crate::model::container::state::State;
use crate::model::extension::hook::{Verb, limit_of};
use crate::model::text::cause::chain;
use std::os::fd::BorrowedFd;

/// Whether there was a hook to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Hook,
    Nothing,
}

/// The image's own hooks.
#[derive(Clone, Copy)]
pub(super) struct ImageHooks<'a> {
    pub(super) state: &'a State,
    pub(super) rootfs: &'a Rootfs,
    pub(super) lock: BorrowedFd<'a>,
}

impl ImageHooks<'_> {
    /// Runs the hook for `verb`, if the image has one. Its output goes to what `log` opens.
    pub(super) fn run(
        &self,
        journal: &mut Journal,
        verb: Verb,
        log: impl FnOnce(&mut Journal) -> ContainerLog,
    ) -> Result<Ran, Error> {
        let Self { state, rootfs, lock } = self;
        let name = verb.path();
        let image = Image {
            rootfs,
            labels: &state.labels,
            mounts: &state.mounts,
            id: &state.id,
            bring: Bring::Always,
        };
        let Some(hook) = image_hook::find(verb, &image, *lock)? else {
            if state.seen.as_ref().is_some_and(|seen| seen.hooks.contains(&verb)) {
                return Err(Error::HookGone { hook: name, rootfs: state.rootfs.clone() });
            }
            journal.debug(|| format!("the image has no {name}"));
            return Ok(Ran::Nothing);
        };
        for variable in &hook.environment.collisions {
            journal.warn(&format!(
                "two labels or mounts set {variable} of {name}; the last one is used"
            ));
        }
        let namespace = match &hook.placement.doubt {
            None => MountNamespace::Host,
            Some(why) => {
                journal.warn(&format!(
                    "cannot determine whether this is the mount namespace of process 1 ({why}): {name} runs \
                     here, and its mounts may not be visible on the host"
                ));
                MountNamespace::Unknown
            }
        };
        let directory = directory_or_root(&state.bundle);
        journal.debug(|| format!("running {name}: {} in {directory}", hook.path));
        let mut log = log(journal);
        let run = hook.run(directory, *lock, journal.interrupt(), &mut log);
        journal.add(run, namespace)?;
        Ok(Ran::Hook)
    }
}

/// Opens the rootfs that create saw. `proxy` may be the only process that still has it.
pub(super) fn open_rootfs_again(
    state: &State,
    proxy: Option<&Process>,
) -> Result<Rootfs, rootfs::Error> {
    Rootfs::open_again(&state.rootfs, state.seen.as_ref(), proxy)
}

/// Ends a hook that outlived its runtime and its guard.
pub(super) fn end_outlived(journal: &mut Journal, state: &State, lock: BorrowedFd<'_>) {
    let ended = attached::name(&state.id, lock).and_then(|name| {
        outlived::end(&[state.rootfs.as_str(), attached::rootfs_path(&name).as_str()])
    });
    match ended {
        Ok(0) => {}
        Ok(count) => journal.warn(&format!(
            "an interrupted command left its hook running; the processes of the hook were killed ({count})"
        )),
        Err(error) => journal.warn(&format!(
            "cannot determine whether an interrupted command left its hook running: {}",
            chain(&error)
        )),
    }
}

/// Removes the mounts that a killed guard of this container left.
pub(super) fn remove_left_mounts(journal: &mut Journal, id: &str, lock: BorrowedFd<'_>) {
    if let Err(error) = attached::name(id, lock).and_then(|name| attached::sweep(&name)) {
        journal.warn(&format!(
            "cannot remove the mounts that an interrupted hook left below {}: {}",
            attached::FOLDER,
            chain(&error)
        ));
    }
}

/// Runs a list of the spec's hooks in order, each with the state on its standard input, until one fails: in
/// `namespace`, or else in this process's own.
pub(super) fn run_spec_hooks(
    journal: &mut Journal,
    list: &str,
    hooks: &[SpecHook],
    (state, status): (&State, Status),
    namespace: Option<&OpenNamespace>,
    lock: BorrowedFd<'_>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let input = input(state, status)?;
    if let Some(namespace) = namespace {
        journal.debug(|| format!("hooks.{list} run in the network namespace {}", namespace.path));
    }
    for (index, hook) in hooks.iter().enumerate() {
        let mut run = || run_spec_hook(journal, (list, index), hook, state, &input, lock);
        match namespace {
            Some(namespace) => namespace.within(run)??,
            None => run()?,
        }
    }
    Ok(())
}

/// Runs every `poststop` hook, even after one has failed; the failures.
pub(super) fn run_poststop(
    journal: &mut Journal,
    state: &State,
    lock: BorrowedFd<'_>,
) -> Vec<Error> {
    let input = match input(state, Status::Stopped) {
        Ok(input) => input,
        Err(error) => return vec![error],
    };
    let hooks = state.hooks.poststop.iter().enumerate();
    let mut run =
        |(index, hook)| run_spec_hook(journal, ("poststop", index), hook, state, &input, lock);
    hooks.filter_map(|hook| run(hook).err()).collect()
}

fn input(state: &State, status: Status) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(&state.view(status)).map_err(|source| Error::Json { source })
}

/// Its output goes into an error only.
fn run_spec_hook(
    journal: &mut Journal,
    (list, index): (&str, usize),
    hook: &SpecHook,
    state: &State,
    input: &[u8],
    lock: BorrowedFd<'_>,
) -> Result<(), Error> {
    let name = &format!("hooks.{list}[{index}] ({})", hook.path);
    let mut arguments: Vec<&str> = hook.args.iter().map(String::as_str).collect();
    if arguments.is_empty() {
        arguments.push(&hook.path);
    }
    let call = Call {
        name,
        program: HookProgram::At(&hook.path),
        arguments: &arguments,
        environment: &hook.env,
        working_directory: directory_or_root(&state.bundle),
        limit: limit_of(hook.timeout),
        input: Some(input),
        place: Place::Here,
        interrupt: journal.interrupt(),
    };
    journal.debug(|| format!("running {name}: {} in {}", hook.path, call.working_directory));
    let run = hook::run(&call, lock, &mut ContainerLog::nowhere());
    // Hooks of the spec belong to the engine, and so does the mount namespace they run in.
    journal.add(run, MountNamespace::Host)
}
