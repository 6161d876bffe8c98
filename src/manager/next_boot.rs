//! Gathers the facts about the system that will boot: which kernel of which release, on which OS. For `plan` and `try`.

use super::Session;
use crate::cli::plan::StatedSystem;
use crate::cli::values::StatedKernel;
use crate::host::engine::layer_store::{self, layers_of};
use crate::host::engine::merged_layers::LayerDirectory;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::engine::{claims, os_layers};
use crate::host::kernel::override_store::OverrideStore;
use crate::host::kernel::{block, boot_mounts, brought_kernel, release};
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::engine::boot_plan::BootTarget;
use crate::model::engine::boot_selection::{BroughtModules, StoredLayers, no_overlays_word};
use crate::model::engine::inspection::StoredExtension;
use crate::model::extension::claim::Running;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::initramfs::{self, BootView, StockReason};
use crate::model::kernel::records::{BlockValues, Field, Slot};
use crate::model::kernel::rollback::Rollback;
use crate::model::text::cause::{chain, in_words};
use crate::model::text::cut::short_id;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Without this file on the data partition, the OS purges it at the next boot, and layers nothing.
const PURGE_MARK: &str = "remove_me_to_reset";
const DATA: &str = "/mnt/data";
/// The OS among the owners of layers: the extensions are numbered.
pub(super) const OS: usize = usize::MAX;

/// The system that will boot, and what its initramfs sees of the extensions.
pub(super) struct NextBoot {
    pub(super) target: BootTarget,
    /// In the order of the extensions.
    pub(super) storage: Vec<StoredLayers>,
    pub(super) modules: Vec<Result<BroughtModules, String>>,
    /// The OS's own layers, the topmost first; or why its files are unknown.
    pub(super) os: Result<Vec<OwnedFd>, String>,
    /// Whether the number of the OS's layers is not known.
    pub(super) assumes_os_layers: bool,
}

/// Opens the layers of an extension, numbered from the top.
pub(super) fn open_layers(
    root: &DataRoot,
    storage: &StoredLayers,
) -> Result<Vec<LayerDirectory>, String> {
    let layers = storage.layers.as_ref().map_err(Clone::clone)?;
    let open = |(layer, name): (usize, &String)| {
        layer_store::open(root, name).map(|directory| LayerDirectory { layer, directory })
    };
    layers.iter().enumerate().map(open).collect()
}

/// Other handles of the OS's layers, numbered from `first`.
pub(super) fn os_stack(os: &[OwnedFd], first: usize) -> Result<Vec<LayerDirectory>, String> {
    let open = |(layer, directory): (usize, &OwnedFd)| {
        let directory = directory.try_clone().map_err(|error| in_words(&error))?;
        Ok(LayerDirectory { layer, directory })
    };
    (first..).zip(os).map(open).collect()
}

impl NextBoot {
    pub(super) fn read(
        session: &Session,
        stated: &StatedSystem,
        root: &DataRoot,
        extensions: &[StoredExtension],
    ) -> Self {
        let storage: Vec<StoredLayers> = extensions
            .iter()
            .map(|stored| StoredLayers {
                is_ending: stored.is_ending,
                driver: stored.driver.clone(),
                layers: layers_of(root, &stored.container.id),
            })
            .collect();
        let running = release::running(&session.host);
        let os = os_files(session, stated, root);
        if !stated.is_only_stated() && stated.os_root.is_none() {
            warn_of_update(session);
        }
        let sources =
            KernelSources { session, root, extensions, storage: &storage, running: &running };
        let system = sources.system(stated, &os);
        let modules = storage
            .iter()
            .map(|storage| brought_kernel::brought_modules(|| open_layers(root, storage), &system))
            .collect();
        let found = match (stated.os_layers, &stated.os_root, &os) {
            (Some(stated), _, _) => Ok(usize::from(stated)),
            (None, Some(directory), _) => {
                let machine = HostRoot::new("/".into());
                os_layers::count_at(&machine, &absolute(directory), std::slice::from_ref(root))
            }
            (None, None, Ok(os)) => Ok(os.len()),
            (None, None, Err(why)) => Err(why.clone()),
        };
        let page = stated.page_size.and_then(|bytes| usize::try_from(bytes).ok());
        let target = BootTarget {
            system,
            nothing_layered: nothing_layered(&session.host, root),
            os_layers: found.as_ref().map_or(1, |count| *count),
            page: page.unwrap_or_else(release::page_size),
        };
        Self { target, storage, modules, os, assumes_os_layers: found.is_err() }
    }
}

/// What decides which kernel of which release boots.
struct KernelSources<'a> {
    session: &'a Session,
    root: &'a DataRoot,
    extensions: &'a [StoredExtension],
    storage: &'a [StoredLayers],
    running: &'a Running,
}

impl KernelSources<'_> {
    fn system(&self, stated: &StatedSystem, os: &Result<Vec<OwnedFd>, String>) -> Running {
        let stated_abi = stated.kernel_abi.as_ref().map(|kernel| match kernel {
            StatedKernel::Stock => None,
            StatedKernel::Override(abi) => Some(abi.as_str().to_owned()),
        });
        let unstated = |what: &str, option: &str| format!("{what} is not stated ({option})");
        if stated.is_only_stated() {
            let StatedSystem { os_version, kernel_release, .. } = stated;
            return Running {
                kernel_release: kernel_release
                    .clone()
                    .ok_or_else(|| unstated("the release of the next kernel", "--kernel-release")),
                abi: stated_abi.ok_or_else(|| {
                    unstated("whether an override will boot", "--kernel-abi ABI, or none")
                }),
                os_version: os_version
                    .clone()
                    .ok_or_else(|| unstated("the version of the next OS", "--os-version")),
            };
        }
        let abi = stated_abi
            .map_or_else(|| self.armed().map(|abi| abi.map(|it| it.as_str().to_owned())), Ok);
        let release = match (&stated.kernel_release, &abi) {
            (Some(stated), _) => Ok(stated.clone()),
            (None, Err(why)) => Err(why.clone()),
            (None, Ok(abi)) => self.release_of(abi.as_deref(), stated.os_root.is_some(), os),
        };
        let os_version = match &stated.os_root {
            None => self.running.os_version.clone(),
            Some(directory) => release::os_version(&HostRoot::new(absolute(directory))),
        };
        Running { kernel_release: release, abi, os_version }
    }

    /// The override that the initramfs will boot; `None` for the OS's stock kernel.
    fn armed(&self) -> Result<Option<Abi>, String> {
        let host = &self.session.host;
        let Some(block) = block::read(host).map_err(|error| chain(&error))? else {
            return Ok(None);
        };
        let values = block.values();
        let Field::Abi(abi) = &values.arm else { return Ok(None) };
        let unread =
            |why: String| format!("cannot determine whether the armed kernel will boot: {why}");
        let is_bootable = OverrideStore::new(host).is_bootable(abi);
        let mut bootable = BTreeSet::new();
        if is_bootable.map_err(|error| unread(in_words(&error)))? {
            bootable.insert(abi.clone());
        }
        let claims = claims::load_claims(host).map_err(|error| unread(chain(&error)))?;
        // Which slot boots does not matter for what is armed.
        let values = BlockValues { update_window: false, ..values };
        let view = BootView {
            values: &values,
            slot: Slot::A,
            boots: 0,
            bootable: &bootable,
            claims: &claims,
        };
        match initramfs::boot(&view).kernel {
            Ok(abi) => Ok(Some(abi)),
            Err(
                StockReason::NothingArmed
                | StockReason::Malformed
                | StockReason::NoKernel
                | StockReason::Unclaimed
                | StockReason::TrialOver,
            ) => Ok(None),
        }
    }

    /// The release of a kernel: that of the override `abi`, or of the OS.
    fn release_of(
        &self,
        abi: Option<&str>,
        is_other_os: bool,
        os: &Result<Vec<OwnedFd>, String>,
    ) -> Result<String, String> {
        let runs = self.running.abi.as_ref().is_ok_and(|running| running.as_deref() == abi);
        if runs && (abi.is_some() || !is_other_os) {
            return self.running.kernel_release.clone();
        }
        match abi {
            Some(abi) => self.release_of_override(abi),
            None => {
                let os = os.as_ref().map_err(|why| {
                    format!("the release of the OS's kernel is unknown (--kernel-release): {why}")
                })?;
                let releases = brought_kernel::releases(os_stack(os, 0)?)?;
                match releases.as_slice() {
                    [release] => Ok(release.clone()),
                    several => Err(format!(
                        "the OS has modules for {} kernels, so it is unknown which one boots (--kernel-release)",
                        several.len()
                    )),
                }
            }
        }
    }

    fn release_of_override(&self, abi: &str) -> Result<String, String> {
        let mut all = self.extensions.iter().zip(self.storage);
        let bringing = all.find(|(stored, _)| stored.container.labels.claims().abi == Some(abi));
        let found = match bringing {
            Some((_, storage)) => brought_kernel::release(|| open_layers(self.root, storage))?,
            None => None,
        };
        found.ok_or_else(|| {
            format!(
                "the release of the armed kernel {} is unknown: no extension has its modules (--kernel-release)",
                short_id(abi)
            )
        })
    }
}

/// While an update can roll back, it is not this program that knows which OS boots next.
fn warn_of_update(session: &Session) {
    const OTHER: &str =
        "the next boot may be of the other OS; to plan that: --os-root, or --os-version";
    match boot_mounts::rollback(&session.host) {
        Rollback::Impossible => {}
        Rollback::Possible { path } => session.log.warn(&format!(
            "an OS update can still roll back (upgrade_available=1 in {path}), so {OTHER}"
        )),
        Rollback::Unknown { why } => session.log.info(&format!(
            "cannot determine whether an OS update can still roll back, so {OTHER}: {why}"
        )),
    }
}

/// The OS's own layers.
fn os_files(
    session: &Session,
    stated: &StatedSystem,
    root: &DataRoot,
) -> Result<Vec<OwnedFd>, String> {
    if let Some(directory) = &stated.os_root {
        let machine = HostRoot::new("/".into());
        return Ok(vec![os_layers::without_mounts(&machine, &absolute(directory))?]);
    }
    if stated.is_only_stated() {
        return Err("the files of that OS are unknown (--os-root)".to_owned());
    }
    os_layers::running(&session.host, std::slice::from_ref(root))
}

/// Why the initramfs will layer no extension at all, if so.
fn nothing_layered(host: &HostRoot, root: &DataRoot) -> Result<Option<String>, String> {
    let cmdline = host.read("/proc/cmdline")?;
    if let Some(word) = no_overlays_word(&cmdline) {
        return Ok(Some(format!("the kernel's command line has the word {word:?}")));
    }
    // Another system than the OS has no such partition, and purges nothing.
    let has_data = host.has_directory(DATA).map_err(|error| {
        let shown = host.display_path(DATA);
        format!("cannot determine whether a purge is pending: {shown:?}: {}", in_words(&error))
    })?;
    if !has_data {
        return Ok(None);
    }
    let of_store = root.path.parent().map(|parent| (&root.host, parent.join(PURGE_MARK)));
    let marks = [Some((host, Path::new(DATA).join(PURGE_MARK))), of_store];
    for (host, mark) in marks.into_iter().flatten() {
        match host.bytes(&mark) {
            Ok(_) => return Ok(None),
            Err(error) if is_absence(&error) => {}
            Err(error) => {
                let shown = host.display_path(mark);
                return Err(format!(
                    "cannot determine whether a purge of the data partition is pending: {shown:?}: {}",
                    in_words(&error)
                ));
            }
        }
    }
    if host.lacks_mount(DATA) {
        return Err(format!("the data partition is not mounted at {:?}", host.display_path(DATA)));
    }
    let shown = host.display_path(Path::new(DATA).join(PURGE_MARK));
    Ok(Some(format!("a purge of the data partition is pending, because {shown:?} is missing")))
}

/// A path of this machine, not of --host-root.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
