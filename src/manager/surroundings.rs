//! The facts that verdicts need besides the containers: the host's overlays, and the engine's runtimes.

use super::Session;
use crate::host::engine::client::Client;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::kernel::release;
use crate::host::os::host_root::HostRoot;
use crate::model::container::proxy::PROGRAM;
use crate::model::engine::doctor::{EngineInfo, RegisteredRuntime};
use crate::model::engine::runtimes::{Registered, Runtimes};
use crate::model::kernel::mounts::HostOverlays;
use crate::model::text::cause::chain;
use crate::version;
use std::path::{Path, PathBuf};

/// The data roots of engines.
const DATA_ROOTS: [&str; 2] = ["/var/lib/docker", "/mnt/data/docker"];
/// The possible paths of the initramfs' log: versions of the OS keep its `/tmp` in different places.
const INITRAMFS_LOGS: [&str; 4] = [
    "/run/initramfs/initramfs.debug",
    "/run/initramfs/initramfs/initramfs.debug",
    "/tmp/initramfs/initramfs.debug",
    "/mnt/sysroot/active/tmp/initramfs/initramfs.debug",
];

pub(super) struct Surroundings {
    pub(super) overlays: Result<HostOverlays, String>,
    pub(super) runtimes: Runtimes,
}

impl Surroundings {
    /// Reads the host, and asks the engine if there is one. Without an answer the runtimes are unknown.
    pub(super) fn read(session: &Session, client: Option<&Client>) -> Self {
        let asked = client.map(|client| client.ask("/info", "get information about the engine"));
        let info: Option<EngineInfo> = match asked {
            Some(Ok(info)) => Some(info),
            Some(Err(error)) => {
                session.log.debug(|| format!("{}; its runtimes are unknown", chain(&error)));
                None
            }
            None => None,
        };
        let mut stores: Vec<DataRoot> = match &session.globals.docker_root {
            Some(_) => vec![data_root(session)],
            None => DATA_ROOTS.map(|root| on_host(session, root)).into(),
        };
        let root = info.as_ref().and_then(|info| info.docker_root_dir.as_deref());
        stores.extend(root.map(|root| on_host(session, root)));
        Self {
            overlays: release::overlays(&session.host, &stores),
            runtimes: info.map(|info| runtimes(session, &info)).unwrap_or_default(),
        }
    }
}

fn on_host(session: &Session, root: &str) -> DataRoot {
    DataRoot { host: session.host.clone(), path: PathBuf::from(root) }
}

/// The engine's data root, found without the engine.
pub(super) fn data_root(session: &Session) -> DataRoot {
    if let Some(root) = &session.globals.docker_root {
        // A path of this machine, not of --host-root.
        let path = std::path::absolute(root).unwrap_or_else(|_| root.clone());
        return DataRoot { host: HostRoot::new("/".into()), path };
    }
    let mut roots = DATA_ROOTS.map(|root| on_host(session, root)).into_iter();
    let has_containers = |root: &DataRoot| {
        // A data root that cannot be read may have containers.
        !matches!(root.host.has_directory(root.path.join("containers")), Ok(false))
    };
    roots.find(has_containers).unwrap_or_else(|| on_host(session, "/var/lib/docker"))
}

/// The path of the initramfs' log, or its usual path.
pub(super) fn initramfs_log(host: &HostRoot) -> String {
    let [usual, ..] = INITRAMFS_LOGS;
    match INITRAMFS_LOGS.iter().find(|path| host.find(path).is_ok()) {
        Some(path) => host.display_path(path).display().to_string(),
        None => format!("{usual} (not every version of the OS keeps it)"),
    }
}

/// The registered runtimes whose program is known.
fn runtimes(session: &Session, info: &EngineInfo) -> Runtimes {
    let all = info.runtimes.iter().flatten();
    let known = all.filter_map(|(name, runtime)| {
        registered(&session.host, runtime).map(|registered| (name.clone(), registered))
    });
    Runtimes(known.collect())
}

/// Which program a registered runtime is. `None` if that is unknown: a shim may start any program.
fn registered(host: &HostRoot, runtime: &RegisteredRuntime) -> Option<Registered> {
    let path = Path::new(runtime.path.as_deref().filter(|path| !path.is_empty())?);
    if path.file_name().is_some_and(|name| name == PROGRAM) {
        return Some(Registered::This);
    }
    if !path.is_absolute() {
        return Some(Registered::Another);
    }
    // It may have any name.
    let version = host.search(path, version::runtime_in).ok()?;
    Some(if version.is_some() { Registered::This } else { Registered::Another })
}
