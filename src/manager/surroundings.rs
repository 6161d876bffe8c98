//! What a verdict needs beside the containers: what the host has layered, and what the engine says of itself.

use super::Context;
use crate::host::engine::client::Client;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::kernel::release;
use crate::host::os::host_root::HostRoot;
use crate::model::container::proxy::PROGRAM;
use crate::model::engine::doctor::{EngineInfo, RegisteredRuntime};
use crate::model::engine::runtimes::{Registered, Runtimes};
use crate::model::kernel::mounts::Layering;
use crate::model::text::cause::chain;
use crate::version;
use std::path::{Path, PathBuf};

/// Where engines keep their data.
const DATA_ROOTS: [&str; 2] = ["/var/lib/docker", "/mnt/data/docker"];
/// Where the initramfs' log may be: versions of the OS differ in what becomes of its `/tmp`.
const INITRAMFS_LOGS: [&str; 4] = [
    "/run/initramfs/initramfs.debug",
    "/run/initramfs/initramfs/initramfs.debug",
    "/tmp/initramfs/initramfs.debug",
    "/mnt/sysroot/active/tmp/initramfs/initramfs.debug",
];

pub(super) struct Surroundings {
    pub(super) layering: Result<Layering, String>,
    pub(super) runtimes: Runtimes,
}

impl Surroundings {
    /// Looks at the host, and asks the engine if there is one. What the engine does not tell stays unknown.
    pub(super) fn read(context: &Context, client: Option<&Client>) -> Self {
        let asked = client.map(|client| client.ask("/info", "ask the engine about itself"));
        let info: Option<EngineInfo> = match asked {
            Some(Ok(info)) => Some(info),
            Some(Err(error)) => {
                context.log.debug(|| format!("{}; its runtimes are not known", chain(&error)));
                None
            }
            None => None,
        };
        let mut stores: Vec<DataRoot> = match &context.globals.docker_root {
            Some(_) => vec![data_root(context)],
            None => DATA_ROOTS.map(|root| on_host(context, root)).into(),
        };
        let root = info.as_ref().and_then(|info| info.docker_root_dir.as_deref());
        stores.extend(root.map(|root| on_host(context, root)));
        Self {
            layering: release::layering(&context.host, &stores),
            runtimes: info.map(|info| runtimes(context, &info)).unwrap_or_default(),
        }
    }
}

fn on_host(context: &Context, root: &str) -> DataRoot {
    DataRoot { host: context.host.clone(), path: PathBuf::from(root) }
}

/// The engine's data root, as far as it can be known without the engine.
pub(super) fn data_root(context: &Context) -> DataRoot {
    if let Some(root) = &context.globals.docker_root {
        // Named as this machine has it, not the host that is looked at.
        let path = std::path::absolute(root).unwrap_or_else(|_| root.clone());
        return DataRoot { host: HostRoot::new("/".into()), path };
    }
    let mut roots = DATA_ROOTS.map(|root| on_host(context, root)).into_iter();
    let has_containers = |root: &DataRoot| {
        // One that cannot be looked into may well have some.
        !matches!(root.host.has_folder(root.path.join("containers")), Ok(false))
    };
    roots.find(has_containers).unwrap_or_else(|| on_host(context, "/var/lib/docker"))
}

/// The initramfs' log, or where to look for it.
pub(super) fn initramfs_log(host: &HostRoot) -> String {
    let [usual, ..] = INITRAMFS_LOGS;
    match INITRAMFS_LOGS.iter().find(|path| host.find(path).is_ok()) {
        Some(path) => host.shown(path).display().to_string(),
        None => format!("{usual} (not every version of the OS keeps it)"),
    }
}

/// Which of the registered runtimes is this one.
fn runtimes(context: &Context, info: &EngineInfo) -> Runtimes {
    let all = info.runtimes.iter().flatten();
    let known = all.filter_map(|(name, runtime)| {
        registered(&context.host, runtime).map(|registered| (name.clone(), registered))
    });
    Runtimes(known.collect())
}

/// What a registered runtime is. `None` if that cannot be told: a shim may start any program.
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
