//! The calls of the runtime for a container whose image brings a kernel. It starts them as it starts a hook, and quotes the
//! last line of their standard error.

use super::super::host_view::data_root;
use super::super::{Failure, Session};
use crate::cli::activation::OfContainer;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::kernel::volume_folder::HostFolder;
use crate::host::os::host_root::HostRoot;
use crate::host::os::privilege;
use crate::model::kernel::volume::BootVolume;
use crate::version::VERSION;
use std::io;
use std::path::PathBuf;

/// Why the call of a runtime cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(in crate::manager) enum CallError {
    #[error(
        "this is balena-extension-manager {own}, but balena-extension-runtime {caller} has called it: install both \
         programs of one version",
        own = VERSION
    )]
    OtherVersion { caller: String },
    #[error("{name:?} is not the name of a volume for a kernel")]
    VolumeName { name: String },
    #[error("cannot open the rootfs {path:?}")]
    Rootfs { path: PathBuf, source: io::Error },
    #[error("cannot open the engine's data root {path:?}")]
    DataRoot { path: PathBuf, source: io::Error },
    #[error(
        "the engine's data root {path:?} is another directory in the mount namespace of process 1 than in that of \
         the engine"
    )]
    OtherDataRoot { path: PathBuf },
}

/// Checks that the caller is the runtime that this program was released with.
pub(super) fn begin(session: &Session, request: &OfContainer) -> Result<(), Failure> {
    let caller = &request.caller;
    if caller != VERSION {
        return Err(CallError::OtherVersion { caller: caller.clone() }.into());
    }
    privilege::check()?;
    session.log.debug(|| format!("called by the runtime for the container {}", request.container));
    Ok(())
}

/// The rootfs is a path of this machine, not of `--host-root`, as the data root is.
pub(super) fn rootfs(request: &OfContainer) -> Result<HostFolder, CallError> {
    let path = &request.rootfs;
    HostFolder::open(&HostRoot::new("/".into()), path)
        .map_err(|source| CallError::Rootfs { path: path.clone(), source })
}

pub(super) fn volume(name: &str) -> Result<BootVolume, CallError> {
    BootVolume::parse(name).ok_or_else(|| CallError::VolumeName { name: name.to_owned() })
}

/// The engine's data root, if it is the one that the caller sees.
pub(super) fn checked_data_root(
    session: &Session,
    request: &OfContainer,
) -> Result<DataRoot, CallError> {
    let root = data_root(session);
    let path = root.host.display_path(&root.path);
    let failed = |source| CallError::DataRoot { path: path.clone(), source };
    let identity = HostFolder::open(&root.host, &root.path)
        .and_then(|folder| folder.identity())
        .map_err(failed)?;
    match &request.docker_root_is {
        Some(expected) if *expected != identity => Err(CallError::OtherDataRoot { path }),
        Some(_) | None => Ok(root),
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum CallError {
        OtherVersion { caller }, VolumeName { name }, Rootfs { path, source },
        DataRoot { path, source }, OtherDataRoot { path },
    }
}
