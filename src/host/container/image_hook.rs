//! A hook of an image: found in its rootfs, and run in the mount namespace of process 1 (docs/engines.md, "Mount
//! namespaces"). `hooks/create`, `hooks/start`, `hooks/delete` and `deactivate` all run here.

use crate::host::container::attached;
use crate::host::container::hook::{self, Call, Guest, HookProgram, HookRun, Place};
use crate::host::container::log::ContainerLog;
use crate::host::container::mount_namespace;
use crate::host::container::rootfs::{self, Rootfs};
use crate::model::container::environment::{Environment, Unpassable, environment};
use crate::model::container::mount_namespace::Relation;
use crate::model::container::spec::Mount;
use crate::model::extension::hook::{LIMIT, Verb};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

/// Why a hook cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[error(transparent)]
    Unpassable(#[from] Unpassable),
    #[error("cannot name a mount point for the rootfs")]
    Name { source: io::Error },
}

/// An image whose hooks are run.
pub(crate) struct Image<'a> {
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) mounts: &'a [Mount],
    /// Unique together with the lock.
    pub(crate) id: &'a str,
    pub(crate) bring: Bring,
}

/// Whether process 1's mount namespace is given the rootfs as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bring {
    Always,
    /// Unless it has the same folder at the same path.
    IfMissing,
}

/// A hook that can be run.
pub(crate) struct ImageHook<'a> {
    verb: Verb,
    /// Where its mount namespace has it.
    pub(crate) path: String,
    pub(crate) environment: Environment,
    pub(crate) placement: HookPlacement<'a>,
}

/// The mount namespace in which the hooks of an image run, and where that has the rootfs.
pub(crate) struct HookPlacement<'a> {
    /// The path of the rootfs.
    pub(crate) rootfs: String,
    /// Why it is not known whether this process is in the mount namespace of process 1.
    pub(crate) doubt: Option<String>,
    /// The name of the mount point, if the namespace is not this process's.
    mount_point: Option<String>,
    /// The rootfs that is attached there.
    brought: Option<&'a Rootfs>,
}

/// Finds the hook for `verb`; `None` if the image has none. The caller holds `lock`.
pub(crate) fn find<'a>(
    verb: Verb,
    image: &Image<'a>,
    lock: BorrowedFd<'_>,
) -> Result<Option<ImageHook<'a>>, Error> {
    let rootfs = image.rootfs;
    let Some(path) = rootfs.hook(verb)? else { return Ok(None) };
    let placement = HookPlacement::of(image, lock)?;
    let path = match placement.is_here() {
        true => path,
        false => format!("{}/{}", placement.rootfs, rootfs.below(verb, &path)?),
    };
    let environment = environment(&placement.rootfs, image.labels, image.mounts)?;
    Ok(Some(ImageHook { verb, path, environment, placement }))
}

impl<'a> HookPlacement<'a> {
    /// The caller holds `lock`.
    pub(crate) fn of(image: &Image<'a>, lock: BorrowedFd<'_>) -> Result<Self, Error> {
        let rootfs = image.rootfs;
        let (is_here, doubt) = match mount_namespace::relation("self") {
            // A rootfs of another namespace can only be attached in process 1's.
            _ if rootfs.home().is_some() => (false, None),
            Relation::Same => (true, None),
            Relation::Other => (false, None),
            Relation::Unknown(why) => (true, Some(why)),
        };
        if is_here {
            let (mount_point, brought) = (None, None);
            return Ok(Self { rootfs: rootfs.path().to_owned(), doubt, mount_point, brought });
        }
        let name = attached::name(image.id, lock).map_err(|source| Error::Name { source })?;
        let is_there = image.bring == Bring::IfMissing && rootfs.is_of_process_1();
        Ok(Self {
            rootfs: if is_there { rootfs.path().to_owned() } else { attached::rootfs_path(&name) },
            doubt,
            mount_point: Some(name),
            brought: (!is_there).then_some(rootfs),
        })
    }

    fn is_here(&self) -> bool {
        self.mount_point.is_none()
    }

    pub(crate) fn place(&self) -> Place<'_> {
        match &self.mount_point {
            None => Place::Here,
            Some(mount_point) => Place::Host(Guest {
                mount_point,
                rootfs: self.brought.map(Rootfs::folder),
                home: self.brought.and_then(Rootfs::home),
            }),
        }
    }
}

impl ImageHook<'_> {
    /// Runs the hook; `log` takes its output, and `interrupt` ends it when it can be read.
    pub(crate) fn run(
        &self,
        working_directory: &str,
        lock: BorrowedFd<'_>,
        interrupt: Option<BorrowedFd<'_>>,
        log: &mut ContainerLog,
    ) -> HookRun {
        let call = Call {
            name: self.verb.path(),
            program: HookProgram::At(&self.path),
            arguments: &[&self.path],
            environment: &self.environment.variables,
            working_directory,
            limit: LIMIT,
            input: None,
            place: self.placement.place(),
            interrupt,
        };
        hook::run(&call, lock, log)
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Rootfs(..), Unpassable(..), Name { source },
    }
}
