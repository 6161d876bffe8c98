//! A hook of an image: found in its rootfs, and run in the mount namespace of process 1 (docs/engines.md, "Mount
//! namespaces"). `hooks/create`, `hooks/start`, `hooks/delete` and `deactivate` all run here.

use crate::host::container::attached;
use crate::host::container::hook::{self, Call, Guest, HookRun, Place};
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
    /// The name of the mount point, if the hook's mount namespace is not this process's.
    mount_point: Option<String>,
    /// The rootfs that is attached there.
    brought: Option<&'a Rootfs>,
    /// Why it is not known whether this process is in the mount namespace of process 1.
    pub(crate) doubt: Option<String>,
}

/// Finds the hook for `verb`; `None` if the image has none. The caller holds `lock`.
pub(crate) fn find<'a>(
    verb: Verb,
    image: &Image<'a>,
    lock: BorrowedFd<'_>,
) -> Result<Option<ImageHook<'a>>, Error> {
    let rootfs = image.rootfs;
    let Some(path) = rootfs.hook(verb)? else { return Ok(None) };
    let (is_here, doubt) = match mount_namespace::relation("self") {
        // A rootfs of another namespace can only be attached in process 1's.
        _ if rootfs.home().is_some() => (false, None),
        Relation::Same => (true, None),
        Relation::Other => (false, None),
        Relation::Unknown(why) => (true, Some(why)),
    };
    if is_here {
        let environment = environment(rootfs.path(), image.labels, image.mounts)?;
        let (mount_point, brought) = (None, None);
        return Ok(Some(ImageHook { verb, path, environment, mount_point, brought, doubt }));
    }
    let name = attached::name(image.id, lock).map_err(|source| Error::Name { source })?;
    let is_there = image.bring == Bring::IfMissing && rootfs.is_of_process_1();
    let seen_as = if is_there { rootfs.path().to_owned() } else { attached::rootfs_path(&name) };
    Ok(Some(ImageHook {
        verb,
        path: format!("{seen_as}/{}", rootfs.below(verb, &path)?),
        environment: environment(&seen_as, image.labels, image.mounts)?,
        mount_point: Some(name),
        brought: (!is_there).then_some(rootfs),
        doubt,
    }))
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
        let place = match &self.mount_point {
            None => Place::Here,
            Some(mount_point) => Place::Host(Guest {
                mount_point,
                rootfs: self.brought.map(Rootfs::folder),
                home: self.brought.and_then(Rootfs::home),
            }),
        };
        let call = Call {
            name: self.verb.path(),
            path: &self.path,
            arguments: &[&self.path],
            environment: &self.environment.variables,
            working_directory,
            limit: LIMIT,
            input: None,
            place,
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
