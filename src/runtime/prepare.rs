//! The first half of `create`: request → bundle → rootfs → role → the state to record. It only reads.

use super::error::Error;
use super::journal::Journal;
use super::kernel;
use crate::cli::runtime::{Create, Terminals};
use crate::host::container::bundle::{self, Bundle};
use crate::host::container::rootfs::Rootfs;
use crate::host::engine::label_sources::{self, Hints};
use crate::host::os::clock;
use crate::model::container::cgroup;
use crate::model::container::environment::{environment, with_boot_volume};
use crate::model::container::lifecycle::{Phase, Status};
use crate::model::container::spec::{OCI_VERSION, Spec, SpecHooks, Terminal};
use crate::model::container::state::{RecordedRole, StartOutput, State};
use crate::model::extension::role::{self, Role};
use std::path::Path;

/// A container that can be created.
pub(super) struct Prepared {
    pub(super) spec: Spec,
    pub(super) rootfs: Rootfs,
    pub(super) state: State,
}

pub(super) fn prepare(
    journal: &Journal,
    docker_root: Option<&Path>,
    request: &Create,
) -> Result<Prepared, Error> {
    let bundle = bundle::load(request.bundle.as_deref())?;
    let rootfs = open_rootfs(journal, &bundle)?;
    let role = find_role(journal, docker_root, request, &bundle, &rootfs)?;
    check_terminal(request, &bundle.spec)?;
    let state = first_state(request, &bundle, &rootfs, role)?;
    Ok(Prepared { spec: bundle.spec, rootfs, state })
}

fn open_rootfs(journal: &Journal, bundle: &Bundle) -> Result<Rootfs, Error> {
    let Bundle { path, spec } = bundle;
    let rootfs = Rootfs::open(path, &spec.root_path)?;
    rootfs.check_mounted()?;
    journal.debug(|| {
        let (annotations, mounts) = (spec.annotations.len(), spec.mounts.len());
        let rootfs = rootfs.path();
        format!("bundle {path}: rootfs {rootfs}, annotations: {annotations}, mounts: {mounts}")
    });
    Ok(rootfs)
}

/// Whether it is an extension, and with which labels: by the annotations, or else by the engine's store.
fn find_role(
    journal: &Journal,
    docker_root: Option<&Path>,
    request: &Create,
    bundle: &Bundle,
    rootfs: &Rootfs,
) -> Result<Role, Error> {
    let Spec { annotations, mounts, .. } = &bundle.spec;
    let (source, role) = match role::of_annotations(annotations) {
        Some(role) => ("the annotations of config.json".to_owned(), role?),
        None => {
            let sources = mounts.iter().map(|mount| Path::new(&mount.source));
            let hints = Hints {
                id: request.id.as_str(),
                rootfs: Path::new(rootfs.path()),
                bundle: Path::new(&bundle.path),
                files: request.pid_file.as_deref().into_iter().chain(sources).collect(),
            };
            let store = label_sources::look_up(docker_root, &hints);
            (store.path().to_owned(), role::of_store(annotations.len(), store)?)
        }
    };
    match &role {
        Role::Extension { labels, .. } => {
            journal.debug(|| {
                let labels = labels.iter().map(|(name, text)| format!("{name}={text:?}"));
                format!("labels from {source}: {}", labels.collect::<Vec<_>>().join(", "))
            });
            // Refused here, before the state is touched, for the hooks of all verbs.
            environment(rootfs.path(), labels, mounts)?;
        }
        Role::Sandbox => journal.debug(|| {
            "a sandbox of Kubernetes by its annotations: no labels and no hooks".to_owned()
        }),
    }
    Ok(role)
}

fn check_terminal(request: &Create, spec: &Spec) -> Result<(), Error> {
    match (spec.terminal, &request.console_socket, request.terminals) {
        (Terminal::Pty { .. }, None, Terminals::ToConsoleSocket) => Err(Error::NoConsole),
        (Terminal::None, Some(_), _) => Err(Error::NoTerminal),
        (Terminal::Pty { .. } | Terminal::None, _, _) => Ok(()),
    }
}

fn first_state(
    request: &Create,
    bundle: &Bundle,
    rootfs: &Rootfs,
    role: Role,
) -> Result<State, Error> {
    let Bundle { path, spec } = bundle;
    let kernel = kernel::find(&request.id, &role, rootfs)?;
    let mounts = match &kernel {
        Some(kernel) => with_boot_volume(&spec.mounts, &kernel.folder()),
        None => spec.mounts.clone(),
    };
    let (role, labels, image) = match role {
        Role::Extension { labels, image, .. } => (RecordedRole::Extension, labels, image),
        Role::Sandbox => (RecordedRole::Sandbox, Default::default(), None),
    };
    let pid_file = match &request.pid_file {
        Some(path) => {
            let path = bundle::absolute(path).unwrap_or_else(|_| path.clone());
            let text = path.into_os_string().into_string();
            Some(text.map_err(|path| Error::PidFilePath { path: path.into() })?)
        }
        None => None,
    };
    Ok(State {
        oci_version: OCI_VERSION.to_owned(),
        id: request.id.to_string(),
        pid: 0,
        status: Status::Creating,
        bundle: path.clone(),
        rootfs: rootfs.path().to_owned(),
        created: clock::now(),
        annotations: spec.annotations.clone(),
        pid_start_time: 0,
        role,
        labels,
        image,
        kernel,
        mounts,
        // The other hooks run before `create` returns.
        hooks: SpecHooks {
            start_container: spec.hooks.start_container.clone(),
            poststart: spec.hooks.poststart.clone(),
            poststop: spec.hooks.poststop.clone(),
            ..SpecHooks::default()
        },
        cgroup: spec.cgroups_path.as_deref().map(cgroup::leaf).transpose()?,
        foreign_cgroups: Vec::new(),
        pid_file,
        phase: Phase::InUse,
        start_output: StartOutput::Proxy,
        refused: None,
        seen: None,
    })
}
