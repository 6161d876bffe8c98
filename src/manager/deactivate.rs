//! The `deactivate` at the top of a volume: run before a stale container is removed, and named by a dry run.

use crate::host::container::hook;
use crate::host::container::image_hook::{self, Bring, Image};
use crate::host::container::log::ContainerLog;
use crate::host::container::rootfs::{self, Rootfs};
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::os::host_root::HostRoot;
use crate::model::container::spec::Mount;
use crate::model::engine::cleanup::{Deactivation, Decision, Fate, Removal};
use crate::model::engine::inventory::EngineContainer;
use crate::model::extension::hook::Verb;
use crate::model::text::cause::chain;
use serde::Serialize;
use std::os::fd::AsFd as _;

/// The result for one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Deactivated {
    pub(super) volume: String,
    /// In a dry run, the program that would be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    /// Whether a `deactivate` was started.
    pub(super) ran: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Why a `deactivate` did not succeed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the volume's directory {path:?} is missing")]
    Missing { path: String },
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[error(transparent)]
    Image(#[from] image_hook::Error),
    #[error(transparent)]
    Hook(#[from] hook::Error),
    #[error(
        "deactivate succeeded, but mounts that it removed may remain on the host: cannot determine whether it ran in the \
         mount namespace of process 1 ({why})"
    )]
    Elsewhere { why: String },
}

/// The programs that a dry run would run for `decision`. Nothing is run.
pub(super) fn preview(host: &HostRoot, decision: &Decision) -> Vec<Deactivated> {
    let volumes = match &decision.fate {
        Fate::Remove { how: Removal::Container { deactivate }, .. } => deactivate.as_slice(),
        Fate::Remove { .. } | Fate::Keep(_) => &[],
    };
    let look = |Deactivation { volume, path, refused }: &Deactivation| {
        let (program, error) = match refused {
            Some(why) => (None, Some(why.clone())),
            None => match open(host, path).and_then(|volume| Ok(volume.hook(Verb::Deactivate)?)) {
                Ok(program) => (program, None),
                Err(error) => (None, Some(chain(&error))),
            },
        };
        Deactivated { volume: volume.clone(), program, ran: false, error }
    };
    volumes.iter().map(look).collect()
}

/// Runs the `deactivate` of a volume of `container`, if it exists.
pub(super) fn run(
    host: &HostRoot,
    container: &EngineContainer,
    deactivation: &Deactivation,
    lock: &OperationLock,
) -> Deactivated {
    let Deactivation { volume, path, refused } = deactivation;
    let mut ran = false;
    let error = refused.clone().or_else(|| {
        let result = run_at(host, path, container, lock, &mut ran);
        result.err().map(|error| chain(&error))
    });
    Deactivated { volume: volume.clone(), program: None, ran, error }
}

/// Runs the executable `deactivate` in the directory `path`, under the rules of the image's hooks. `ran` is
/// set when it is started.
fn run_at(
    host: &HostRoot,
    path: &str,
    container: &EngineContainer,
    lock: &OperationLock,
    ran: &mut bool,
) -> Result<(), Error> {
    let volume = open(host, path)?;
    let mounts = container.mounts.iter().filter_map(|mount| {
        let source = host.reach(&mount.source).ok()?.to_string_lossy().into_owned();
        Some(Mount { destination: mount.destination.clone(), source })
    });
    let image = Image {
        rootfs: &volume,
        labels: &container.labels.to_map(),
        mounts: &mounts.collect::<Vec<_>>(),
        // No container can have this id.
        id: "@deactivate",
        bring: Bring::IfMissing,
    };
    let Some(hook) = image_hook::find(Verb::Deactivate, &image, lock.as_fd())? else {
        return Ok(());
    };
    *ran = true;
    // The container has no bundle any more.
    hook.run("/", lock.as_fd(), None, &mut ContainerLog::nowhere()).result?;
    hook.placement.doubt.map_or(Ok(()), |why| Err(Error::Elsewhere { why }))
}

/// Opens the directory of a volume, whose path is one of the host.
fn open(host: &HostRoot, path: &str) -> Result<Rootfs, Error> {
    let missing = || Error::Missing { path: path.to_owned() };
    let reached = host.reach(path).ok().filter(|reached| reached.is_dir()).ok_or_else(missing)?;
    Ok(Rootfs::open("/", &reached.to_string_lossy())?)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Missing { path }, Rootfs(..), Image(..), Hook(..), Elsewhere { why },
    }
}
