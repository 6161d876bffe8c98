//! `try`: runs a command in a root filesystem as the next boot would make it, with an extension that is not deployed.
//! `next_boot.rs` gathers the facts, `model/engine/boot_plan.rs` predicts, and `host/os/view_process.rs` runs the command.

use super::host_view::data_root_of;
use super::inspected;
use super::next_boot::NextBoot;
use super::{Failure, ManagerExit, Session, resolve};
use crate::cli::plan::StatedSystem;
use crate::cli::try_extension::TryArguments;
use crate::host::engine::layer_store;
use crate::host::engine::merged_layers::LayerDirectory;
use crate::host::engine::os_layers;
use crate::host::engine::stored_containers::{self, DataRoot, StoredExtensions};
use crate::host::engine::stored_image::{self, StoredImageError};
use crate::host::kernel::brought_kernel;
use crate::host::os::host_root::HostRoot;
use crate::host::os::root_view::{ViewChanges, ViewLayer};
use crate::host::os::view_process::{self, ViewProcessError, ViewRequest};
use crate::host::os::{directory, privilege};
use crate::model::engine::boot_plan::{PlannedExtension, predict};
use crate::model::engine::boot_selection::{BroughtModules, StoredLayers};
use crate::model::engine::inspection::StoredExtension;
use crate::model::engine::inventory::EngineContainer;
use crate::model::engine::tried_extension::{
    BroughtKernel, DIRECTORY_LAYER, NotTried, OWN_LAYER, TriedLayer, container_of, labels_of,
    layers_of, left_out,
};
use crate::model::engine::verdict::Verdict;
use crate::model::extension::labels::ABI;
use crate::model::text::cause::in_words;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The name of this program in a list of processes.
const PROGRAM: &str = "balena-extension-manager";
/// The shell of every host.
const SHELL: &str = "/bin/sh";

/// Why an extension is not tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TryError {
    #[error("try runs a command on this host, so it cannot be used with --host-root")]
    OtherHost,
    #[error("cannot open the directory {path:?}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Image(#[from] StoredImageError),
    #[error("{image} (there is a directory {name:?} here; its path is \"./{name}\")")]
    ImageOrDirectory { image: StoredImageError, name: String },
    #[error(transparent)]
    NotTried(#[from] NotTried),
    #[error("cannot determine whether {name:?} brings a kernel: {why}")]
    KernelUnknown { name: String, why: String },
    #[error("the root filesystem of the next boot cannot be shown: {why}")]
    Os { why: String },
    #[error("cannot read the layer {layer:?}: {why}")]
    Layer { layer: String, why: String },
    #[error(transparent)]
    Process(#[from] ViewProcessError),
}

/// The extension that is tried.
struct TriedSubject {
    /// Its place in the plan.
    container: EngineContainer,
    storage: StoredLayers,
    /// The directory, if it is one.
    directory: Option<PathBuf>,
}

pub(super) fn try_extension(
    session: &Session,
    request: &TryArguments,
) -> Result<ManagerExit, Failure> {
    if session.is_of_another_host() {
        return Err(TryError::OtherHost.into());
    }
    privilege::check()?;
    // An engine that is down has no answer, and one that hangs takes its time.
    let info = match session.globals.docker_root {
        Some(_) => None,
        None => session.connect().ok().and_then(|client| inspected::about(session, &client)),
    };
    let root = data_root_of(session, info.and_then(|info| info.docker_root_dir).as_deref());
    let StoredExtensions { extensions, unreadable } = stored_containers::load(&root)?;
    for record in unreadable {
        session.log.warn(&format!("a record of the container store is left out: {record}"));
    }
    let subject = subject(request, &root)?;
    refuse_kernel(request, &subject, &root)?;
    let next = NextBoot::read(session, &StatedSystem::default(), &root, &extensions);
    let chosen = chosen(&extensions, &request.with)?;
    let no_modules = Ok(BroughtModules::Unrelated);
    let deployed = (0..).zip(extensions.iter().zip(&next.storage).zip(&next.modules));
    let mut planned: Vec<PlannedExtension<'_>> = deployed
        .filter(|(number, _)| chosen.is_empty() || chosen.contains(number))
        .map(|(_, ((stored, storage), modules))| PlannedExtension {
            container: &stored.container,
            storage,
            modules,
            now: Verdict::Unknown,
        })
        .collect();
    // The tried one is as if it were deployed now, with an id that comes last.
    let demanded: Vec<usize> = match chosen.is_empty() {
        true => vec![planned.len()],
        false => (0..=planned.len()).collect(),
    };
    planned.push(PlannedExtension {
        container: &subject.container,
        storage: &subject.storage,
        modules: &no_modules,
        now: Verdict::Unknown,
    });
    let plan = predict(&planned, &next.target);
    let tried = layers_of(&plan, &planned, &demanded).map_err(TryError::from)?;
    for warning in left_out(&plan, &planned) {
        session.log.warn(&warning);
    }
    let layers = view_layers(&tried, &subject, &next, &root)?;
    let changes = if request.writable { ViewChanges::InMemory } else { ViewChanges::Refused };
    let command = command(session, request);
    let shows_warnings = session.log.shows_warnings();
    let request = ViewRequest { layers, changes, command, shows_warnings };
    let status = view_process::run(&request, PROGRAM).map_err(TryError::from)?;
    Ok(ManagerExit::OfProgram(status))
}

/// The numbers of the deployed extensions that the user names; none: all.
fn chosen(extensions: &[StoredExtension], names: &[String]) -> Result<Vec<usize>, Failure> {
    let find = |name: &String| {
        let found = resolve(extensions, name, |one| one.container.id_and_name())?;
        let is_found = |one: &StoredExtension| one.container.id == found.container.id;
        Ok(extensions.iter().position(is_found).unwrap_or_default())
    };
    names.iter().map(find).collect()
}

/// Reads the image or the directory.
fn subject(request: &TryArguments, root: &DataRoot) -> Result<TriedSubject, TryError> {
    let name = request.subject.as_str();
    let (image, layers, directory) = match name.starts_with(['/', '.']) {
        true => {
            let opened = std::fs::canonicalize(name)
                .and_then(|path| Ok(directory::open(&path).map(|_| path)?));
            let failed = |source| TryError::Directory { path: name.into(), source };
            (None, vec![DIRECTORY_LAYER.to_owned()], Some(opened.map_err(failed)?))
        }
        false => {
            let image = stored_image::load(root, name).map_err(|image| {
                let is_directory =
                    matches!(image, StoredImageError::Unknown { .. }) && Path::new(name).is_dir();
                match is_directory {
                    true => TryError::ImageOrDirectory { image, name: name.to_owned() },
                    false => TryError::Image(image),
                }
            })?;
            (Some(image.labels), image.layers, None)
        }
    };
    let labels = labels_of(image, &request.labels, kernel(request));
    if !labels.is_extension() {
        return Err(NotTried::NoExtension { name: name.to_owned() }.into());
    }
    let layers = [vec![OWN_LAYER.to_owned()], layers].concat();
    let driver = Some("overlay2".to_owned());
    let storage = StoredLayers { is_ending: false, driver, layers: Ok(layers) };
    Ok(TriedSubject { container: container_of(name, labels), storage, directory })
}

fn kernel(request: &TryArguments) -> BroughtKernel {
    if request.without_kernel { BroughtKernel::Ignored } else { BroughtKernel::Refused }
}

/// Refuses an extension that brings a kernel, unless the user wants its files all the same.
fn refuse_kernel(
    request: &TryArguments,
    subject: &TriedSubject,
    root: &DataRoot,
) -> Result<(), TryError> {
    if kernel(request) == BroughtKernel::Ignored {
        return Ok(());
    }
    let name = || subject.container.name.clone();
    let open = || subject.open(root);
    let what = match subject.container.labels.value(ABI) {
        Some(_) => Some(format!("the label {ABI}")),
        None => brought_kernel::brought_files(open)
            .map_err(|why| TryError::KernelUnknown { name: name(), why })?,
    };
    match what {
        Some(what) => Err(NotTried::BringsKernel { name: name(), what }.into()),
        None => Ok(()),
    }
}

impl TriedSubject {
    /// Its layers, the topmost first.
    fn open(&self, root: &DataRoot) -> Result<Vec<LayerDirectory>, String> {
        let open = |layer: &String| match (layer.as_str(), &self.directory) {
            (OWN_LAYER, _) => None,
            (_, Some(path)) => Some(os_layers::without_mounts(&HostRoot::new("/".into()), path)),
            (layer, None) => Some(layer_store::open(root, layer)),
        };
        let layers = self.storage.layers.iter().flatten().filter_map(open);
        let numbered = (0..).zip(layers);
        numbered.map(|(layer, opened)| Ok(LayerDirectory { layer, directory: opened? })).collect()
    }
}

/// Where the layers are.
fn view_layers(
    tried: &[TriedLayer<'_>],
    subject: &TriedSubject,
    next: &NextBoot,
    root: &DataRoot,
) -> Result<Vec<ViewLayer>, TryError> {
    let mut layers = Vec::new();
    for layer in tried {
        match layer {
            TriedLayer::Os => {
                let os = next.os.as_ref().map_err(|why| TryError::Os { why: why.clone() })?;
                for opened in os {
                    let path = directory::path_of(opened)
                        .map_err(|error| TryError::Os { why: in_words(&error) })?;
                    layers.push(match path == Path::new("/") {
                        true => ViewLayer::HostRoot,
                        false => ViewLayer::Directory(path),
                    });
                }
            }
            TriedLayer::Stored(name) => {
                let failed = |why| TryError::Layer { layer: (*name).to_owned(), why };
                let opened = layer_store::open(root, name).map_err(failed)?;
                let path = directory::path_of(opened);
                let failed =
                    |error| TryError::Layer { layer: (*name).to_owned(), why: in_words(&error) };
                layers.push(ViewLayer::Directory(path.map_err(failed)?));
            }
            TriedLayer::Directory => {
                layers.extend(subject.directory.clone().map(ViewLayer::Directory));
            }
        }
    }
    Ok(layers)
}

fn command(session: &Session, request: &TryArguments) -> Vec<OsString> {
    match request.command.as_slice() {
        [] => vec![session.shell.clone().unwrap_or_else(|| SHELL.into())],
        words => words.to_vec(),
    }
}

#[cfg(test)]
fn unreadable() -> StoredImageError {
    StoredImageError::Unreadable { why: "IMAGE".to_owned() }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum TryError {
        OtherHost, Directory { path, source }, Image(..),
        ImageOrDirectory { image = unreadable(), name },
        NotTried(..), KernelUnknown { name, why }, Os { why }, Layer { layer, why }, Process(..),
    }
}
