//! `doctor`: reads the facts about a host; `model/engine/doctor.rs` judges whether it is set up for extensions.

use super::host_view::{data_root, registered, rejected};
use super::{Failure, ManagerExit, Session, print, print_json};
use crate::cli::manager::DoctorArguments;
use crate::cli::values::OutputFormat;
use crate::host::container::mount_namespace;
use crate::host::engine::process;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::kernel::override_store::{OverrideStore, Published, unfinished_name};
use crate::host::kernel::release;
use crate::host::kernel::{block, boot_mounts, history, slot};
use crate::host::os::disk;
use crate::host::os::host_root::HostRoot;
use crate::host::os::systemd;
use crate::model::container::mount_namespace::Relation;
use crate::model::container::proxy::PROGRAM;
use crate::model::engine::doctor::{
    BlockRoom, BootUnit, CheckLevel, DoctorCheck, EngineInfo, EngineProcess, Facts, OverrideFacts,
    RegisteredBinary, judge,
};
use crate::model::kernel::rollback::Rollback;
use crate::model::text::cause::{chain, in_words, on_one_line};
use serde::Serialize;
use std::path::Path;

/// The unit that dist/systemd has for every host, and the one for hosts with kernel overrides; and the commands that
/// they run.
const CLEANUP: (&str, &str) = ("balena-extension-cleanup.service", "cleanup");
const ROLLBACK: (&str, &str) = ("extension-rollback.service", "validate");
/// The namespaces that the runtime uses or that containers have.
const NAMESPACES: [&str; 5] = ["mnt", "net", "pid", "ipc", "uts"];

#[derive(Serialize)]
struct DoctorDocument<'a> {
    schema: u32,
    command: &'static str,
    checks: &'a [DoctorCheck],
}

pub(super) fn doctor(session: &Session, request: &DoctorArguments) -> Result<ManagerExit, Failure> {
    let checks = judge(&facts(session)?);
    match request.format {
        OutputFormat::Json => {
            print_json(&DoctorDocument { schema: 1, command: "doctor", checks: &checks })?;
        }
        OutputFormat::Table => print(&checks.iter().map(lines).collect::<String>())?,
    }
    let has_problem = checks.iter().any(|check| check.level == CheckLevel::Problem);
    Ok(if has_problem { ManagerExit::Failed } else { ManagerExit::Done })
}

fn lines(DoctorCheck { check, level, text, fix }: &DoctorCheck) -> String {
    let fix = fix.as_ref().map(|fix| format!("{:26} fix: {fix}\n", "")).unwrap_or_default();
    format!("{:<8} {check:<17} {}\n{fix}", level, on_one_line(text.as_str()))
}

fn facts(session: &Session) -> Result<Facts, Failure> {
    let host = &session.host;
    let asked = session.connect().and_then(|client| {
        let info: EngineInfo = client.ask("/info", "get information about the engine")?;
        Ok((client.api().to_string(), info))
    });
    let (api, engine) = match asked {
        Ok((api, info)) => (Some(api), Ok(info)),
        Err(Failure::Engine(error)) if error.is_stop() => return Err(Failure::Stopped),
        Err(failure) => (None, Err(chain(&failure))),
    };
    let runtimes = engine.as_ref().map(|info| runtimes(host, info)).unwrap_or_default();
    let root = engine.as_ref().ok().and_then(|info| info.docker_root_dir.clone());
    let root = match root {
        Some(root) => DataRoot { host: host.clone(), path: root.into() },
        None => data_root(session),
    };
    let path = root.host.display_path(&root.path).display().to_string();
    let boot_environment = boot_environment(host);
    let overrides = match block::read(host) {
        Ok(None) => None,
        // `boot_environment` reports an error.
        Ok(Some(_)) | Err(_) => Some(overrides(host)),
    };
    let units = [Some(CLEANUP), overrides.as_ref().map(|_| ROLLBACK)].into_iter().flatten();
    let units = units.map(|(name, command)| BootUnit {
        name,
        command,
        enabled: systemd::is_enabled(host, name),
    });
    let space = root.host.find(&root.path).and_then(|root| disk::space(&root));
    Ok(Facts {
        engine,
        api,
        runtimes,
        mounts: mounts(session),
        state_root: state_root(session),
        boot_environment,
        overrides,
        units: units.collect(),
        disk: space
            .map(|(free, all)| (free, all, path.clone()))
            .map_err(|error| format!("cannot read the free space of {path}: {}", in_words(&error))),
        overlay: overlay(session),
        missing_namespaces: missing_namespaces(host),
        kernel_release: release::release(host),
    })
}

/// The engine's process, and whether its mounts are those of process 1.
fn mounts(session: &Session) -> Result<(EngineProcess, Relation), String> {
    if session.host.display_path("/") != Path::new("/") {
        return Err("doctor does not examine the processes of another root".to_owned());
    }
    let socket = session.socket.as_ref().map_err(|error| chain(error))?;
    let process = process::find(&session.host, socket)?;
    let relation = mount_namespace::relation(process.pid);
    Ok((process, relation))
}

/// The room in the boot environment block, if there is one. Fails also if `cleanup --stale-os` could not
/// determine whether an update can roll back.
fn boot_environment(host: &HostRoot) -> Result<Option<BlockRoom>, String> {
    let block = block::read(host).map_err(|error| chain(&error))?;
    match boot_mounts::rollback(host) {
        Rollback::Unknown { why } => Err(why),
        Rollback::Possible { .. } | Rollback::Impossible => {
            Ok(block.map(|block| BlockRoom { free: block.free, missing: block.missing_room() }))
        }
    }
}

fn overrides(host: &HostRoot) -> OverrideFacts {
    let mut facts = OverrideFacts::default();
    match OverrideStore::new(host).published() {
        Ok(Published { abis, unfinished, others }) => {
            facts.published = abis.len();
            facts.unfinished = unfinished.iter().map(unfinished_name).collect();
            facts.others = others;
        }
        Err(error) => facts.unreadable.push(chain(&error)),
    }
    match rejected(host) {
        Ok(rejected) => facts.rejected = rejected.len(),
        Err(why) => facts.unreadable.push(why),
    }
    if let Err(error) = slot::running(host) {
        facts.unreadable.push(chain(&error));
    }
    if let Err(error) = history::read(host) {
        let path = history::path(host);
        facts.unreadable.push(format!("cannot read the history {path:?}: {}", in_words(&error)));
    }
    facts
}

fn missing_namespaces(host: &HostRoot) -> Result<Vec<&'static str>, String> {
    let directory = "/proc/self/ns";
    let found = host.names(directory).map_err(|error| {
        format!("cannot list {:?}: {}", host.display_path(directory), in_words(&error))
    })?;
    let is_missing = |name: &&str| !found.iter().any(|one| one.to_str() == Some(*name));
    Ok(NAMESPACES.into_iter().filter(is_missing).collect())
}

/// The registered runtimes whose program is known, by name and path.
fn runtimes(host: &HostRoot, info: &EngineInfo) -> Vec<(String, String, RegisteredBinary)> {
    let all = info.runtimes.iter().flatten();
    let known = all.filter_map(|(name, runtime)| {
        let path = runtime.path.clone().filter(|path| path.starts_with('/'))?;
        Some((name.clone(), path, registered(host, runtime)?))
    });
    known.collect()
}

/// The default state root; engines name a directory beside it.
fn state_root(session: &Session) -> Result<String, String> {
    let root = format!("/run/{PROGRAM}");
    let root = if session.host.has_directory(&root).unwrap_or(true) { &root } else { "/run" };
    let shown = session.host.display_path(root).display().to_string();
    match session.host.find(root).and_then(|directory| disk::can_write(&directory)) {
        Ok(()) => Ok(shown),
        Err(error) => Err(format!("cannot write to {shown}: {}", in_words(&error))),
    }
}

/// Whether the kernel has overlayfs: built in, loaded, or as a module that can be loaded.
fn overlay(session: &Session) -> Result<bool, String> {
    let known = session.host.read("/proc/filesystems")?;
    if known.lines().any(|line| line.split_ascii_whitespace().last() == Some("overlay")) {
        return Ok(true);
    }
    let release = release::release(&session.host)?;
    let modules = format!("/lib/modules/{release}/kernel/fs/overlayfs");
    session.host.has_directory(&modules).map_err(|error| {
        format!("cannot open {:?}: {}", session.host.display_path(&modules), in_words(&error))
    })
}
