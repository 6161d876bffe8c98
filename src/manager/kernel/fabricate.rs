//! `kernel fabricate`: makes the volume for the kernel of an image through the engine, and copies the image's `/boot`
//! into it. The volume is attached to no container.

use super::super::{Failure, ManagerExit, Session};
use super::call::{begin, checked_data_root, rootfs, volume};
use crate::cli::activation::OfContainer;
use crate::host::engine::client::Client;
use crate::host::engine::error::Error as EngineError;
use crate::host::engine::socket::Engine;
use crate::host::kernel::kernel_image;
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::kernel::volume::{self as volume_copy, Fill, Filled};
use crate::host::kernel::volume_folder::{HostFolder, volume_path};
use crate::host::os::host_root::is_absence;
use crate::model::engine::api::CreatedVolume;
use crate::model::engine::inspection::Errors;
use crate::model::extension::labels::IMAGE_PREFIX;
use crate::model::kernel::volume::BootVolume;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the engine may take: it waits for `create` meanwhile.
const ENGINE_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no filled volume.
#[derive(Debug, thiserror::Error)]
pub(in crate::manager) enum FabricateError {
    #[error(
        "a kernel needs a volume of Docker or balenaEngine; other engines cannot run extensions that bring one"
    )]
    NoEngine { source: EngineError },
    #[error(
        "the engine at {socket:?} is Podman, but a kernel needs a volume of Docker or balenaEngine"
    )]
    Podman { socket: PathBuf },
    #[error("the engine has not made the volume {name} within {} s", ENGINE_LIMIT.as_secs())]
    NoAnswer { name: String },
    #[error("the engine has made the volume {name}, but its directory {path:?} cannot be opened")]
    NoFolder { name: String, path: PathBuf, source: io::Error },
    #[error(
        "the volume {name} was made by another engine, the one at {socket:?}: its directory is {theirs:?}, but that of \
         this container's engine is {own:?}"
    )]
    AnotherEngine { name: String, socket: PathBuf, theirs: PathBuf, own: PathBuf },
    #[error("cannot open /boot in the rootfs {rootfs:?}")]
    Boot { rootfs: PathBuf, source: io::Error },
    #[error(transparent)]
    Copy(#[from] volume_copy::Error),
}

/// The body of the request that makes a volume, or finds the one that is there.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NewVolume<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
}

pub(in crate::manager) fn fabricate(
    session: &Session,
    request: &OfContainer,
) -> Result<ManagerExit, Failure> {
    begin(session, request)?;
    let rootfs = rootfs(request)?;
    let name = request.volume.as_deref().unwrap_or_default();
    let volume = volume(name)?;
    let root = checked_data_root(session, request)?;
    let boot = kernel_image::open_boot(rootfs.as_fd())
        .map_err(|source| FabricateError::Boot { rootfs: rootfs.path.clone(), source })?;
    let limit = &session.limit;
    // Held by the cleanup that removes volumes, too.
    let _lock = OperationLock::acquire(&session.host, limit.deadline, &limit.stop)?;
    let theirs = make(session, request, &volume)?;
    let path = root.host.display_path(volume_path(&root.path, &volume));
    let folder = HostFolder::of_volume(&root, &volume).map_err(|source| {
        let (name, path) = (name.to_owned(), path.clone());
        FabricateError::NoFolder { name, path, source }
    })?;
    match folder.is_at(&session.host, &theirs) {
        Ok(true) => {}
        Err(source) if !is_absence(&source) => {
            let (name, path) = (name.to_owned(), theirs);
            return Err(FabricateError::NoFolder { name, path, source }.into());
        }
        Ok(false) | Err(_) => {
            let (name, socket, own) = (name.to_owned(), session.socket.clone()?, path);
            return Err(FabricateError::AnotherEngine { name, socket, theirs, own }.into());
        }
    }
    let Some(boot) = boot else { return Ok(ManagerExit::Done) };
    let is_interrupted = || limit.check().is_err();
    let fill = Fill {
        boot: boot.as_fd(),
        volume: folder.as_fd(),
        path: &folder.path,
        is_interrupted: &is_interrupted,
    };
    match fill.run() {
        Ok(Filled::Before) => {
            session.log.debug(|| format!("the volume {name} was filled before"));
        }
        Ok(Filled::Now { skipped }) => {
            for path in skipped {
                let why = "is neither a file nor a directory nor a link";
                session.log.warn(&format!("{path:?} in /boot of the image {why}; not copied"));
            }
        }
        Err(error) => {
            limit.check()?;
            return Err(FabricateError::Copy(error).into());
        }
    }
    Ok(ManagerExit::Done)
}

/// Makes the volume, or finds it; the path of its directory, as the engine sees it.
fn make(session: &Session, request: &OfContainer, volume: &BootVolume) -> Result<PathBuf, Failure> {
    let socket = session.socket.clone()?;
    let deadline = session.limit.deadline.min(Instant::now() + ENGINE_LIMIT);
    let engine = Engine {
        socket: socket.clone(),
        request_timeout: session.globals.request_timeout.min(ENGINE_LIMIT),
        deadline,
    };
    let name = volume.as_str();
    let failed = |error: EngineError| -> Failure {
        if matches!(error, EngineError::Unreachable { .. }) {
            FabricateError::NoEngine { source: error }.into()
        } else if error.is_out_of_time() && session.limit.check().is_ok() {
            // The limit of the whole command ends later.
            FabricateError::NoAnswer { name: name.to_owned() }.into()
        } else {
            error.into()
        }
    };
    let client = Client::connect(engine, &session.limit.stop).map_err(failed)?;
    if client.errors() == Errors::NotKept {
        return Err(FabricateError::Podman { socket }.into());
    }
    let labels = request.labels.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let labels = labels.filter(|(name, _)| name.starts_with(IMAGE_PREFIX)).collect();
    let answer: CreatedVolume = client
        .create("/volumes/create", &NewVolume { name, labels }, &format!("make the volume {name}"))
        .map_err(failed)?;
    session.log_requests(&client);
    Ok(Path::new(&answer.mountpoint).to_owned())
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum FabricateError {
        NoEngine {
            source = EngineError::OutOfTime { what: sample("what") }
        },
        Podman { socket }, NoAnswer { name }, NoFolder { name, path, source },
        AnotherEngine { name, socket, theirs, own }, Boot { rootfs, source }, Copy(..),
    }
}
