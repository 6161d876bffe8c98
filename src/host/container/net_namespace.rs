//! Network namespaces: which one a child is born into. A proxy left in the host's namespace would
//! make Docker rewrite the host's interfaces and routes (network_namespaces(7)).

use crate::host::os::process::Process;
use crate::model::container::spec::Network;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;

const OWN: &str = "/proc/self/ns/net";

/// A failure around namespaces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot open the network namespace {path:?}")]
    Open { path: String, source: io::Error },
    #[error("cannot open the network namespace {path:?} of the proxy (is CAP_SYS_PTRACE missing?)")]
    OpenOfProxy { path: String, source: io::Error },
    #[error("cannot join the network namespace {path:?}")]
    Join { path: String, source: io::Error },
    #[error("cannot create a network namespace (the proxy must not run in the host's)")]
    Create { source: io::Error },
    #[error("cannot return to the runtime's own network namespace")]
    Return { source: io::Error },
}

/// A namespace that is open: it exists even after the process through which it was opened has ended.
pub(crate) struct OpenNamespace {
    /// The path through which it was opened.
    pub(crate) path: String,
    file: File,
}

impl OpenNamespace {
    /// The namespace of `process`; `None` if it has ended.
    pub(crate) fn of(process: &Process) -> Result<Option<Self>, Error> {
        let path = format!("/proc/{}/ns/net", process.pid());
        match process.ask(|_| open(&path)) {
            Ok(opened) => Ok(opened.map(|file| Self { file, path })),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::OpenOfProxy { path, source })
            }
            Err(source) => Err(Error::Open { path, source }),
        }
    }

    /// Runs `action` in it and returns to this process's own; see [`within`] for errors.
    pub(crate) fn within<T>(&self, action: impl FnOnce() -> T) -> Result<T, Error> {
        in_namespace(|| self.join(), action)
    }

    fn join(&self) -> Result<(), Error> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|error| Error::Join { path: self.path.clone(), source: error.into() })
    }
}

/// Runs `action` in the namespace that `network` names and returns to this process's own.
///
/// # Errors
/// `action` did not run, unless the error is [`Error::Return`]: then its effects remain, and the caller may only
/// clean up in this process.
pub(crate) fn within<T>(network: &Network, action: impl FnOnce() -> T) -> Result<T, Error> {
    match network {
        Network::Inherited => Ok(action()),
        Network::New => {
            let enter = || unshare(CloneFlags::CLONE_NEWNET);
            in_namespace(|| enter().map_err(|error| Error::Create { source: error.into() }), action)
        }
        Network::Joined(path) => {
            let file = open(path).map_err(|source| Error::Open { path: path.clone(), source })?;
            OpenNamespace { path: path.clone(), file }.within(action)
        }
    }
}

fn in_namespace<T>(
    enter: impl FnOnce() -> Result<(), Error>,
    action: impl FnOnce() -> T,
) -> Result<T, Error> {
    let home = open(OWN).map_err(|source| Error::Open { path: OWN.to_owned(), source })?;
    enter()?;
    let result = action();
    setns(&home, CloneFlags::CLONE_NEWNET)
        .map_err(|error| Error::Return { source: error.into() })?;
    Ok(result)
}

/// The name of the network namespace of `pid`, as the kernel has it: `net:[4026531840]`.
pub(crate) fn name_of(pid: i32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net"));
    link.map_or_else(|_| "unknown".to_owned(), |name| name.display().to_string())
}

/// Does not block if the path names a FIFO instead of a namespace.
fn open(path: &str) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Open { path, source }, OpenOfProxy { path, source }, Join { path, source }, Create { source },
        Return { source },
    }
}
