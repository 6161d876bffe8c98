//! Reads the facts about the host and its engine that verdicts need besides the containers.

use super::Session;
use super::records::Records;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::kernel::block;
use crate::host::kernel::override_store::OverrideStore;
use crate::host::kernel::release;
use crate::host::kernel::slot;
use crate::host::os::clock;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::container::proxy::PROGRAM;
use crate::model::engine::doctor::{EngineInfo, RegisteredBinary, RegisteredRuntime};
use crate::model::engine::inventory::EngineContainer;
use crate::model::engine::verdict::{self, Evidence, Explanation, HostFacts};
use crate::model::kernel::abi::Abi;
use crate::model::text::cause::{chain, in_words};
use crate::version;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The data roots of engines.
const DATA_ROOTS: [&str; 2] = ["/var/lib/docker", "/mnt/data/docker"];
/// The possible paths of the initramfs' log: versions of the OS keep its `/tmp` in different places.
const INITRAMFS_LOGS: [&str; 4] = [
    "/run/initramfs/initramfs.debug",
    "/run/initramfs/initramfs/initramfs.debug",
    "/tmp/initramfs/initramfs.debug",
    "/mnt/sysroot/active/tmp/initramfs/initramfs.debug",
];

/// The facts about the host, and the runtime's records.
pub(super) struct HostView {
    pub(super) facts: HostFacts,
    pub(super) records: Records,
    /// The registered runtimes whose program is known, by name.
    runtimes: BTreeMap<String, RegisteredBinary>,
    booted: Result<SystemTime, String>,
    /// The data root that the engine reports.
    engine_root: Option<String>,
}

impl HostView {
    /// `info` is the engine's answer. Without one the runtimes are unknown.
    pub(super) fn read(session: &Session, info: Option<EngineInfo>) -> Self {
        let host = &session.host;
        let info = info.unwrap_or_default();
        let mut stores = match &session.globals.docker_root {
            Some(_) => vec![data_root(session)],
            None => DATA_ROOTS.map(|root| on_host(session, root)).into(),
        };
        let engine_root = info.docker_root_dir;
        stores.extend(engine_root.as_deref().map(|root| on_host(session, root)));
        let all = info.runtimes.into_iter().flatten();
        let known = |(name, runtime)| Some((name, registered(host, &runtime)?));
        let runtimes: BTreeMap<_, _> = all.filter_map(known).collect();
        let is_own = |binary: &RegisteredBinary| *binary != RegisteredBinary::Another;
        let own = runtimes.iter().find(|(_, binary)| is_own(binary));
        let facts = HostFacts {
            running: release::running(host),
            overlays: release::overlays(host, &stores),
            block: block::read(host)
                .map(|block| block.map(|block| block.values()).unwrap_or_default())
                .map_err(|error| chain(&error)),
            slot: slot::running(host).map_err(|error| chain(&error)),
            rejected: rejected(host),
            initramfs_log: initramfs_log(host),
            runtime: own.map(|(name, _)| name.clone()),
        };
        let (records, booted) = (Records::find(host), release::boot_time(host));
        Self { facts, records, runtimes, booted, engine_root }
    }

    /// The engine's data root: the one that is stated, that of the engine, or the usual one.
    pub(super) fn data_root(&self, session: &Session) -> DataRoot {
        data_root_of(session, self.engine_root.as_deref())
    }

    /// The verdict about a container.
    pub(super) fn explain(&self, container: &EngineContainer) -> Explanation {
        let record = self.records.of(&container.id);
        let evidence = Evidence {
            since_boot: self.since_boot(container),
            record: record.as_ref().map(Option::as_ref).map_err(String::as_str),
            ran_by: self.ran_by(container),
        };
        verdict::explain(container, evidence, &self.facts)
    }

    /// The program of the runtime that ran the container.
    fn ran_by(&self, container: &EngineContainer) -> Option<&RegisteredBinary> {
        self.runtimes.get(&container.last_run()?.runtime)
    }

    /// Whether the container was started after the host booted.
    fn since_boot(&self, container: &EngineContainer) -> Option<bool> {
        let started = clock::parse(&container.last_run()?.started)?;
        Some(started >= *self.booted.as_ref().ok()?)
    }
}

fn on_host(session: &Session, root: &str) -> DataRoot {
    DataRoot { host: session.host.clone(), path: PathBuf::from(root) }
}

/// The engine's data root, if the engine reports `engine_root`.
pub(super) fn data_root_of(session: &Session, engine_root: Option<&str>) -> DataRoot {
    match (&session.globals.docker_root, engine_root) {
        (None, Some(root)) => on_host(session, root),
        (_, _) => data_root(session),
    }
}

/// The engine's data root, found without the engine.
pub(super) fn data_root(session: &Session) -> DataRoot {
    if let Some(root) = &session.globals.docker_root {
        // A path of this machine, not of --host-root.
        let path = std::path::absolute(root).unwrap_or_else(|_| root.clone());
        return DataRoot { host: HostRoot::new("/".into()), path };
    }
    let has_containers = |root: &&str| {
        // A data root that cannot be read may have containers.
        !matches!(session.host.has_directory(format!("{root}/containers")), Ok(false))
    };
    let [usual, _] = DATA_ROOTS;
    on_host(session, DATA_ROOTS.into_iter().find(has_containers).unwrap_or(usual))
}

/// The kernels that are not tried again.
pub(super) fn rejected(host: &HostRoot) -> Result<BTreeSet<Abi>, String> {
    OverrideStore::new(host).seen_rejected().map_err(|error| chain(&error))
}

/// The path of the initramfs' log, or its usual path.
fn initramfs_log(host: &HostRoot) -> String {
    let [usual, ..] = INITRAMFS_LOGS;
    match INITRAMFS_LOGS.iter().find(|path| host.find(path).is_ok()) {
        Some(path) => host.display_path(path).display().to_string(),
        None => format!("{usual} (not every version of the OS keeps it)"),
    }
}

/// The program of a registered runtime. This runtime may have any name. `None` if the program is unknown: a shim may
/// start any program.
pub(super) fn registered(host: &HostRoot, runtime: &RegisteredRuntime) -> Option<RegisteredBinary> {
    let path = Path::new(runtime.path.as_deref().filter(|path| !path.is_empty())?);
    let file = host.find(path).unwrap_or_else(|_| path.to_owned());
    let has_our_name = [path, &file].iter().any(|path| path.file_name() == Some(PROGRAM.as_ref()));
    let found = match path.is_absolute() {
        true => host.search(path, version::runtime_in),
        false => Ok(None),
    };
    Some(match found {
        Ok(Some((version, commit))) => {
            match (version.as_str(), commit.as_str()) == (version::VERSION, version::COMMIT) {
                true => RegisteredBinary::SameVersion,
                false => RegisteredBinary::OtherVersion { version, commit },
            }
        }
        Ok(None) if has_our_name => RegisteredBinary::NoVersion,
        Ok(None) => RegisteredBinary::Another,
        Err(_) if !has_our_name => return None,
        Err(error) if is_absence(&error) => RegisteredBinary::Missing,
        Err(error) => RegisteredBinary::Unreadable { why: in_words(&error) },
    })
}
