//! Starts the manager, the program beside this one, for a container as a hook is started: with a guard, a limit, and
//! its output drained. It runs in the mount namespace of process 1, which need not have the program's file.

use crate::host::container::hook::{self, Call, HookProgram, HookRun};
use crate::host::container::image_hook::{self, HookPlacement, Image};
use crate::host::container::log::ContainerLog;
use crate::model::container::environment::{Unpassable, environment};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the program's file.
const NAME: &str = "balena-extension-manager";
const OWN: &str = "/proc/self/exe";

/// Why the manager was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot look for {NAME} beside this program: cannot read {OWN}")]
    Own { source: io::Error },
    #[error("cannot open {path:?}, which must be installed beside this program")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot look at the engine's data root {path:?}")]
    DataRoot { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Image(#[from] image_hook::Error),
    #[error(transparent)]
    Unpassable(#[from] Unpassable),
}

/// The manager's program.
pub(crate) struct ManagerProgram {
    file: OwnedFd,
}

/// A call of the manager.
pub(crate) struct ManagerCall<'a> {
    /// Its name in messages.
    pub(crate) name: &'a str,
    pub(crate) image: &'a Image<'a>,
    pub(crate) limit: Duration,
    /// The container's lock, which the caller holds.
    pub(crate) lock: BorrowedFd<'a>,
    pub(crate) interrupt: Option<BorrowedFd<'a>>,
}

/// A call that has run.
pub(crate) struct ManagerRun {
    pub(crate) run: HookRun,
    /// Why it is not known whether it ran in the mount namespace of process 1.
    pub(crate) doubt: Option<String>,
}

impl ManagerProgram {
    /// Opens the program that is installed beside this one.
    pub(crate) fn open() -> Result<Self, Error> {
        let own = std::fs::read_link(OWN).map_err(|source| Error::Own { source })?;
        let path = own.with_file_name(NAME);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => Ok(Self { file }),
            Err(error) => Err(Error::Open { path, source: error.into() }),
        }
    }

    /// Runs `call` with the words that `words` makes of the path of the rootfs.
    pub(crate) fn run(
        &self,
        call: &ManagerCall<'_>,
        words: impl FnOnce(&str) -> Vec<String>,
        log: &mut ContainerLog,
    ) -> Result<ManagerRun, Error> {
        let placement = HookPlacement::of(call.image, call.lock)?;
        // The variable of the rootfs marks the process for a forced delete, as it marks a hook.
        let environment = environment(&placement.rootfs, &BTreeMap::new(), &[])?;
        let words = words(&placement.rootfs);
        let arguments: Vec<&str> =
            std::iter::once(NAME).chain(words.iter().map(String::as_str)).collect();
        let hook = Call {
            name: call.name,
            program: HookProgram::Open(self.file.as_fd()),
            arguments: &arguments,
            environment: &environment.variables,
            working_directory: "/",
            limit: call.limit,
            input: None,
            place: placement.place(),
            interrupt: call.interrupt,
        };
        let run = hook::run(&hook, call.lock, log);
        Ok(ManagerRun { run, doubt: placement.doubt })
    }
}

/// The identity of the engine's data root, `DEVICE:INODE`: in the mount namespace of process 1 its path may lead to
/// another directory.
pub(crate) fn identity(data_root: &Path) -> Result<String, Error> {
    let found = rustix::fs::stat(data_root);
    let found = found.map_err(|error| {
        let (path, source) = (data_root.to_owned(), error.into());
        Error::DataRoot { path, source }
    })?;
    Ok(format!("{}:{}", found.st_dev, found.st_ino))
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Own { source }, Open { path, source }, DataRoot { path, source }, Image(..),
        Unpassable(..),
    }
}
