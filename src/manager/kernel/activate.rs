//! `kernel activate`: publishes and arms the kernel of an image, which the next boot then tries. What only concerns the
//! image is checked first, so that a defect of an image is refused on every machine alike.

use super::super::{Failure, ManagerExit, Session};
use super::call::{begin, checked_data_root, rootfs, volume};
use super::{Device, KernelError, Reboot};
use crate::cli::activation::OfContainer;
use crate::host::kernel::kernel_image;
use crate::host::kernel::override_store::{self, OverrideStore, STATE};
use crate::host::kernel::volume as volume_copy;
use crate::host::kernel::volume_folder::{HostFolder, volume_path};
use crate::host::os::host_root::is_absence;
use crate::model::extension::claim::{Claims, version_of};
use crate::model::extension::labels::{ABI, KERNEL_VERSION};
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block::NoRoom;
use crate::model::kernel::block_change::BlockChange;
use crate::model::kernel::records::OverrideRecords;
use crate::model::kernel::transition::{Event, RefusedOverride, Transition, decide};
use crate::model::kernel::volume::BootVolume;
use crate::model::text::cause::in_words;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// The data root of the engine whose volumes the initramfs sees.
const DATA_ROOT: &str = "/mnt/data/docker";

/// Why the kernel is not armed.
#[derive(Debug, thiserror::Error)]
pub(in crate::manager) enum ActivateError {
    #[error("its label {ABI} is {label:?}, not 64 lowercase hex digits")]
    MalformedAbi { label: String },
    #[error("the image has no /boot")]
    NoBoot,
    #[error("no regular file directly in /boot has the SHA-256 {abi} of the label {ABI}")]
    NoKernel { abi: Abi },
    #[error("there is no lib/modules/RELEASE/Module.symvers in the image")]
    NoSymbols,
    #[error("its label {KERNEL_VERSION} is {label:?}, but its modules are for {release}")]
    OtherRelease { label: String, release: String },
    #[error(transparent)]
    Refused(#[from] RefusedOverride),
    #[error("cannot list /boot in the rootfs {rootfs:?}")]
    Boot { rootfs: PathBuf, source: io::Error },
    #[error("cannot look for the kernel's modules in the rootfs {rootfs:?}")]
    Modules { rootfs: PathBuf, source: io::Error },
    #[error(
        "the state partition is not mounted at {path:?}, so no kernel can be tried on this machine"
    )]
    NoState { path: PathBuf },
    #[error("cannot determine whether the state partition is mounted: {why}")]
    StateUnknown { why: String },
    #[error(transparent)]
    Store(#[from] override_store::Error),
    #[error(
        "the container has no volume with its kernel, as after an update of the runtime; delete the container and \
         create it again"
    )]
    NoVolume,
    #[error("cannot open the volume {path:?} with the kernel")]
    Volume { path: PathBuf, source: io::Error },
    #[error("the volume {path:?} was not filled to its end; create the container again")]
    Unfinished { path: PathBuf },
    #[error(
        "the file {kernel:?} is missing in the volume {path:?}; remove the volume and create the container again"
    )]
    NotInVolume { kernel: String, path: PathBuf },
    #[error(
        "the file {kernel:?} in the volume {path:?} is not the kernel of the image: its SHA-256 is {found}; remove the \
         volume and create the container again"
    )]
    AnotherKernel { kernel: String, path: PathBuf, found: String },
    #[error(
        "the volume {path:?} is not below {DATA_ROOT}, where the next boot looks for kernels: only the engine with that \
         data root can run extensions that bring one"
    )]
    OutOfSight { path: PathBuf },
    #[error("the boot environment cannot name the kernel")]
    NoRoom { source: NoRoom },
}

impl ActivateError {
    /// Whether no further attempt can succeed. Any other error is a condition of the machine.
    pub(in crate::manager) fn is_refusal(&self) -> bool {
        match self {
            Self::MalformedAbi { .. }
            | Self::NoBoot
            | Self::NoKernel { .. }
            | Self::NoSymbols
            | Self::OtherRelease { .. }
            | Self::Refused(_) => true,
            Self::Boot { .. }
            | Self::Modules { .. }
            | Self::NoState { .. }
            | Self::StateUnknown { .. }
            | Self::Store(_)
            | Self::NoVolume
            | Self::Volume { .. }
            | Self::Unfinished { .. }
            | Self::NotInVolume { .. }
            | Self::AnotherKernel { .. }
            | Self::OutOfSight { .. }
            | Self::NoRoom { .. } => false,
        }
    }
}

pub(in crate::manager) fn activate(
    session: &Session,
    request: &OfContainer,
) -> Result<ManagerExit, Failure> {
    begin(session, request)?;
    let rootfs = rootfs(request)?;
    let claims = Claims::of(|name| request.label(name));
    let label = claims.abi.unwrap_or_default();
    let malformed = || ActivateError::MalformedAbi { label: label.to_owned() };
    let abi = Abi::parse(label).ok_or_else(malformed)?;
    let kernel = find_kernel(session, &rootfs, &abi)?;
    check_modules(&rootfs, claims.kernel_version)?;
    check_state(session)?;
    check_rejected(session, &abi)?;
    let volume = volume(request.volume.as_deref().ok_or(ActivateError::NoVolume)?)?;
    let device = Device::open(session, "activate", Reboot::Left)?;
    let device = device.ok_or(KernelError::NoOverrides)?;
    // Under the lock no other container's call can empty or fill the volume that is checked.
    let _lock = device.lock()?;
    check_volume(session, request, &volume, &kernel, &abi)?;
    let target = volume.link_target(OsStr::new(&kernel)).display().to_string();
    let Transition { verdict, steps } =
        match device.decide(&Event::Activate { abi: &abi, target: &target }) {
            Err(KernelError::Refused(refused)) => return Err(ActivateError::from(refused).into()),
            decided => decided?,
        };
    // Before the first record is written: what no block points to, nothing would remove.
    let block = device.block.read().map_err(KernelError::from)?;
    let armed = BlockChange::Arm(abi).apply(&block.values()).values;
    block.with(&armed).map_err(|source| ActivateError::NoRoom { source })?;
    device.carry_out(verdict, &steps)?.complete()?;
    Ok(ManagerExit::Done)
}

/// Refuses a kernel that was rejected, before anything else on this machine is looked at.
fn check_rejected(session: &Session, abi: &Abi) -> Result<(), ActivateError> {
    let rejected = OverrideStore::new(&session.host).rejected()?;
    // Of the other records, the decision needs none.
    let records = OverrideRecords { rejected, ..OverrideRecords::default() };
    Ok(decide(&records, &Event::Activate { abi, target: "" }).map(drop)?)
}

/// The name of the image's file with the kernel.
fn find_kernel(session: &Session, rootfs: &HostFolder, abi: &Abi) -> Result<String, ActivateError> {
    let failed = |source| ActivateError::Boot { rootfs: rootfs.path.clone(), source };
    let boot = kernel_image::open_boot(rootfs.as_fd()).map_err(failed)?;
    let boot = boot.ok_or(ActivateError::NoBoot)?;
    let search = kernel_image::find(boot, abi).map_err(failed)?;
    for (name, error) in search.unread {
        session.log.warn(&format!("cannot read {name:?} in /boot: {}; skipped", in_words(&error)));
    }
    search.found.ok_or_else(|| ActivateError::NoKernel { abi: abi.clone() })
}

fn check_modules(rootfs: &HostFolder, label: Option<&str>) -> Result<(), ActivateError> {
    let release = kernel_image::release(rootfs.as_fd());
    let failed = |source| ActivateError::Modules { rootfs: rootfs.path.clone(), source };
    let release = release.map_err(failed)?.ok_or(ActivateError::NoSymbols)?;
    match label {
        // After the boot, the modules of another version would not be layered over the host's files.
        Some(label) if label != version_of(&release) => {
            Err(ActivateError::OtherRelease { label: label.to_owned(), release })
        }
        Some(_) | None => Ok(()),
    }
}

fn check_state(session: &Session) -> Result<(), ActivateError> {
    match session.host.is_mount_point(STATE) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ActivateError::NoState { path: session.host.display_path(STATE) }),
        Err(why) => Err(ActivateError::StateUnknown { why }),
    }
}

/// Checks that the volume is the one that the initramfs will see, and that its copy of the kernel is whole.
fn check_volume(
    session: &Session,
    request: &OfContainer,
    volume: &BootVolume,
    kernel: &str,
    abi: &Abi,
) -> Result<(), Failure> {
    let root = checked_data_root(session, request)?;
    let path = root.host.display_path(volume_path(&root.path, volume));
    let failed = |source| ActivateError::Volume { path: path.clone(), source };
    let folder = HostFolder::of_volume(&root, volume).map_err(failed)?;
    match folder.is_at(&session.host, &volume_path(Path::new(DATA_ROOT), volume)) {
        Ok(true) => {}
        Err(source) if !is_absence(&source) => return Err(failed(source).into()),
        Ok(false) | Err(_) => return Err(ActivateError::OutOfSight { path }.into()),
    }
    if volume_copy::is_unfinished(folder.as_fd()).map_err(failed)? {
        return Err(ActivateError::Unfinished { path }.into());
    }
    let kernel = kernel.to_owned();
    match kernel_image::hash_of(folder.as_fd(), &kernel).map_err(failed)? {
        Some(found) if found == abi.as_str() => Ok(()),
        Some(found) => Err(ActivateError::AnotherKernel { kernel, path, found }.into()),
        None => Err(ActivateError::NotInVolume { kernel, path }.into()),
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum ActivateError {
        MalformedAbi { label }, NoBoot, NoKernel { abi }, NoSymbols, OtherRelease { label, release },
        Refused(..), Boot { rootfs, source }, Modules { rootfs, source }, NoState { path },
        StateUnknown { why }, Store(..), NoVolume, Volume { path, source }, Unfinished { path },
        NotInVolume { kernel, path }, AnotherKernel { kernel, path, found }, OutOfSight { path },
        NoRoom { source },
    }
}
