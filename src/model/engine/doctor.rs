//! Judges whether a host is set up for extensions. Each check is a function that returns a [`DoctorCheck`] with its
//! level, its text and the fix. `manager/doctor.rs` reads the facts.

use crate::model::container::mount_namespace::Relation;
use crate::model::text::cut;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How serious the result of a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckLevel {
    Ok,
    Warning,
    Problem,
}

impl fmt::Display for CheckLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DoctorCheck {
    pub(crate) check: &'static str,
    pub(crate) level: CheckLevel,
    pub(crate) text: String,
    /// What to do; `None` if the level is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

fn ok(check: &'static str, text: impl Into<String>) -> DoctorCheck {
    DoctorCheck { check, level: CheckLevel::Ok, text: text.into(), fix: None }
}

fn warning(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> DoctorCheck {
    let fix = Some(fix.into());
    DoctorCheck { check, level: CheckLevel::Warning, text: text.into(), fix }
}

fn problem(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> DoctorCheck {
    DoctorCheck { level: CheckLevel::Problem, ..warning(check, text, fix) }
}

/// The engine's information about itself (`GET /info`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EngineInfo {
    pub(crate) server_version: Option<String>,
    pub(crate) driver: Option<String>,
    pub(crate) docker_root_dir: Option<String>,
    pub(crate) runtimes: Option<BTreeMap<String, RegisteredRuntime>>,
}

/// A runtime that the engine knows.
#[derive(Debug, Deserialize)]
pub(crate) struct RegisteredRuntime {
    /// A bare name if the engine finds the program by itself. `None` for a runtime that is registered by its
    /// type (`runtimeType`): the engine does not report its file.
    pub(crate) path: Option<String>,
}

/// The process of the engine.
#[derive(Debug)]
pub(crate) struct EngineProcess {
    pub(crate) pid: i32,
    pub(crate) name: String,
    /// The pid file or the unit that names it.
    pub(crate) by: String,
}

/// Whether a process of this name (`/proc/PID/comm`) serves an engine's API.
pub(crate) fn serves_an_engine(name: &str) -> bool {
    ["dockerd", "balena", "podman"].iter().any(|engine| name.starts_with(engine))
}

/// The units that may run the engine with the socket `socket`, given without `.sock`.
pub(crate) fn units_of_engine(socket: &str) -> Vec<String> {
    // On balenaOS, balena.service has the socket balena-engine.sock.
    let short = socket.strip_suffix("-engine");
    [Some(socket), short].into_iter().flatten().map(|name| format!("{name}.service")).collect()
}

/// The file that an engine starts as a runtime. The best comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RegisteredBinary {
    /// The runtime that was built with this manager.
    SameVersion,
    OtherVersion {
        version: String,
        commit: String,
    },
    /// It has the runtime's name, but contains no version.
    NoVersion,
    Unreadable {
        why: String,
    },
    Missing,
    /// Another runtime.
    Another,
}

/// The room in the boot environment block, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockRoom {
    pub(crate) free: usize,
    /// How much more kernel overrides may need.
    pub(crate) missing: usize,
}

/// The records of kernel overrides outside the boot environment block.
#[derive(Debug, Default)]
pub(crate) struct OverrideFacts {
    pub(crate) published: usize,
    pub(crate) rejected: usize,
    /// The names of links that were never completed.
    pub(crate) unfinished: Vec<String>,
    /// The names beside the links that are not links to kernels.
    pub(crate) others: Vec<String>,
    /// Why records cannot be read.
    pub(crate) unreadable: Vec<String>,
}

/// A unit of this package.
#[derive(Debug)]
pub(crate) struct BootUnit {
    pub(crate) name: &'static str,
    /// The command of the manager that it runs.
    pub(crate) command: &'static str,
    /// `None` if it is not installed.
    pub(crate) enabled: Result<Option<bool>, String>,
}

/// The facts about a host; an error is why a fact could not be read.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) engine: Result<EngineInfo, String>,
    pub(crate) api: Option<String>,
    /// The registered runtimes whose program is known: name, path, program.
    pub(crate) runtimes: Vec<(String, String, RegisteredBinary)>,
    /// The engine's process and how its mount namespace relates to that of process 1.
    pub(crate) mounts: Result<(EngineProcess, Relation), String>,
    /// The state root, or the directory in which it will be made.
    pub(crate) state_root: Result<String, String>,
    /// The room in the boot environment block; `None` if the host has no such block.
    pub(crate) boot_environment: Result<Option<BlockRoom>, String>,
    /// The records of kernel overrides; `None` if the host has no boot environment block.
    pub(crate) overrides: Option<OverrideFacts>,
    /// The boot units that this host needs.
    pub(crate) units: Vec<BootUnit>,
    /// The free and the total bytes of the engine's data root, and its path.
    pub(crate) disk: Result<(u64, u64, String), String>,
    /// Whether the kernel has overlayfs.
    pub(crate) overlay: Result<bool, String>,
    /// The namespaces that the kernel does not have.
    pub(crate) missing_namespaces: Result<Vec<&'static str>, String>,
    pub(crate) kernel_release: Result<String, String>,
}

/// The name under which the documents register this runtime.
const USUAL_NAME: &str = "extension";
/// The minimum of free disk space: an update of an extension needs its size once more.
const FREE_BYTES: u64 = 200_000_000;
/// The oldest kernel with all system calls we use (`openat2`).
const KERNEL: (u32, u32) = (5, 6);
/// The fix if a file of `/proc` cannot be read.
const MOUNT_PROC: &str = "mount -t proc proc /proc";

/// Runs all checks, in the order in which they depend on each other.
pub(crate) fn judge(facts: &Facts) -> Vec<DoctorCheck> {
    let mut checks = vec![engine(facts)];
    checks.extend(facts.engine.as_ref().ok().map(|info| runtime(facts, info)));
    checks.extend(facts.engine.is_ok().then(|| mounts(facts)));
    checks.extend(facts.engine.as_ref().ok().map(driver));
    checks.extend([state_root(facts), boot_environment(facts)]);
    checks.extend(facts.overrides.as_ref().map(overrides));
    checks.extend(facts.units.iter().map(unit));
    checks.extend([disk(facts), kernel(facts), overlay(facts), namespaces(facts)]);
    checks
}

fn engine(facts: &Facts) -> DoctorCheck {
    match &facts.engine {
        Ok(info) => {
            let version = info.server_version.as_deref().unwrap_or("unknown");
            let api = facts.api.as_deref().unwrap_or("unknown");
            ok("engine", format!("version {version}, queried with API version {api}"))
        }
        Err(why) => {
            let fix = "start the engine, or name its socket with --host unix:///path/to.sock";
            problem("engine", why, fix)
        }
    }
}

fn runtime(facts: &Facts, info: &EngineInfo) -> DoctorCheck {
    const REGISTER: &str = "add {\"runtimes\": {\"extension\": {\"path\": \
                            \"/usr/bin/balena-extension-runtime\"}}} to the engine's daemon.json (Docker: \
                            /etc/docker/daemon.json), then restart the engine";
    const SAME_BUILD: &str = "install balena-extension-runtime and balena-extension-manager from the same build, \
         and restart the engine if the runtime's path has changed";
    let check = "runtime";
    let not_registered = || {
        let text = "the engine does not know balena-extension-runtime";
        unnamed_runtime(info).unwrap_or_else(|| problem(check, text, REGISTER))
    };
    let Some((name, path, binary)) = facts.runtimes.iter().min_by_key(|(_, _, binary)| binary)
    else {
        return not_registered();
    };
    let registered = format!("{name:?} is registered as {path}");
    match binary {
        RegisteredBinary::SameVersion => {
            ok(check, format!("{registered} (same version as the manager)"))
        }
        RegisteredBinary::OtherVersion { version, commit } => {
            let text = format!(
                "{registered}, which has version {version} (commit {commit}), not the manager's version"
            );
            warning(check, text, SAME_BUILD)
        }
        RegisteredBinary::NoVersion => {
            warning(check, format!("{registered}, which contains no version"), SAME_BUILD)
        }
        RegisteredBinary::Unreadable { why } => {
            let text = format!("{registered}, whose version cannot be read: {why}");
            warning(check, text, "run doctor as root, or make the file readable")
        }
        RegisteredBinary::Missing => {
            problem(check, format!("{registered}, which is missing"), REGISTER)
        }
        RegisteredBinary::Another => not_registered(),
    }
}

/// The runtimes whose files the engine does not report: one of them may be this runtime.
fn unnamed_runtime(info: &EngineInfo) -> Option<DoctorCheck> {
    let runtimes = info.runtimes.iter().flatten();
    let names: Vec<&str> = runtimes
        .filter(|(_, runtime)| runtime.path.as_deref().unwrap_or_default().is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    if let Some(name) = names.iter().find(|name| **name == USUAL_NAME) {
        let text =
            format!("{name:?} is registered by its type; the engine does not report its file");
        return Some(ok("runtime", text));
    }
    let listed = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let text = format!("unknown: the engine does not report the files of {listed}");
    let fix = "register the runtime with its \"path\", so that doctor can check it";
    (!names.is_empty()).then(|| warning("runtime", text, fix))
}

/// The engine's mount namespace.
fn mounts(facts: &Facts) -> DoctorCheck {
    let unknown = |why: &str| {
        let text =
            format!("cannot determine whether the engine has its own mount namespace: {why}");
        let fix = "check MountFlags=, PrivateTmp= and similar settings in the engine's unit; hooks of images run \
                   in the mount namespace of process 1 in any case";
        warning("mounts", text, fix)
    };
    let (EngineProcess { pid, name, by }, relation) = match &facts.mounts {
        Ok((process, relation)) => (process, relation),
        Err(why) => return unknown(why),
    };
    match relation {
        Relation::Same => {
            ok("mounts", format!("{name} (process {pid}, from {by}) has the host's mounts"))
        }
        Relation::Other => ok(
            "mounts",
            format!(
                "{name} (process {pid}, from {by}) has its own mount namespace; mounts of hooks appear on the \
                 host all the same, because hooks of images run in that of process 1"
            ),
        ),
        Relation::Unknown(why) => unknown(why),
    }
}

fn driver(info: &EngineInfo) -> DoctorCheck {
    let fix = "set \"storage-driver\": \"overlay2\" in the engine's daemon.json: the initramfs supports no \
               other driver";
    match info.driver.as_deref().unwrap_or("unknown") {
        driver @ "overlay2" => ok("storage-driver", driver),
        driver => warning("storage-driver", driver, fix),
    }
}

fn state_root(facts: &Facts) -> DoctorCheck {
    match &facts.state_root {
        Ok(path) => ok("state-root", format!("{path} is writable")),
        Err(why) => problem("state-root", why, "run doctor as root, with /run mounted read-write"),
    }
}

fn boot_environment(facts: &Facts) -> DoctorCheck {
    let check = "boot-environment";
    match &facts.boot_environment {
        Ok(None) => ok(check, "not used: this host has no GRUB environment block"),
        Ok(Some(BlockRoom { free, missing: 0 })) => ok(check, format!("{free} bytes are free")),
        Ok(Some(BlockRoom { free, missing })) => {
            let fix = "remove values that are no longer needed: grub-editenv FILE unset NAME";
            let text =
                format!("only {free} bytes are free; kernel overrides can need {missing} more");
            warning(check, text, fix)
        }
        Err(why) => problem(check, why, "mount the boot partition, or restore its damaged file"),
    }
}

fn overrides(facts: &OverrideFacts) -> DoctorCheck {
    let check = "kernel-overrides";
    let OverrideFacts { published, rejected, unfinished, others, unreadable } = facts;
    if !unreadable.is_empty() {
        let fix = "run doctor as root, with /mnt/data and /mnt/state mounted; docs/kernel-override.md lists the \
                   messages";
        return problem(check, unreadable.join("; "), fix);
    }
    if !unfinished.is_empty() {
        let text = format!("links to kernels were never completed: {}", unfinished.join(", "));
        return warning(check, text, "balena-extension-manager validate (it removes them)");
    }
    if !others.is_empty() {
        let text = format!("names that are not links to kernels: {}", others.join(", "));
        return warning(check, text, "remove them from /mnt/data/boot-by-abi");
    }
    ok(check, format!("kernels: {published} published, {rejected} rejected"))
}

fn unit(BootUnit { name, command, enabled }: &BootUnit) -> DoctorCheck {
    match enabled {
        Ok(Some(true)) => ok("unit", format!("{name} is enabled")),
        Ok(Some(false)) => {
            let fix = format!(
                "systemctl enable {name} (otherwise nothing runs balena-extension-manager {command} at boot)"
            );
            warning("unit", format!("{name} is not enabled"), fix)
        }
        Ok(None) => {
            let fix = format!(
                "install it from dist/systemd, or run balena-extension-manager {command} at each boot"
            );
            warning("unit", format!("{name} is not installed"), fix)
        }
        Err(why) => warning("unit", format!("{name}: {why}"), "run doctor as root"),
    }
}

fn disk(facts: &Facts) -> DoctorCheck {
    let (free, all, path) = match &facts.disk {
        Ok(space) => space,
        Err(why) => return warning("disk", why, "name the data root with --docker-root DIR"),
    };
    let text = format!("{} of {} are free in {path}", cut::size(*free), cut::size(*all));
    match *free < FREE_BYTES {
        true => warning("disk", text, "docker image prune (or remove images in another way)"),
        false => ok("disk", text),
    }
}

fn kernel(facts: &Facts) -> DoctorCheck {
    let release = match &facts.kernel_release {
        Ok(release) => release,
        Err(why) => return problem("kernel", why, MOUNT_PROC),
    };
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if version >= KERNEL {
        return ok("kernel", release);
    }
    let text = format!("{release} is older than {}.{}", KERNEL.0, KERNEL.1);
    problem("kernel", text, "update the OS")
}

fn overlay(facts: &Facts) -> DoctorCheck {
    match &facts.overlay {
        Ok(true) => ok("overlayfs", "the kernel has overlayfs"),
        Ok(false) => {
            let fix = "modprobe overlay (or use a kernel with CONFIG_OVERLAY_FS)";
            problem("overlayfs", "the kernel does not have overlayfs", fix)
        }
        Err(why) => warning("overlayfs", why, MOUNT_PROC),
    }
}

fn namespaces(facts: &Facts) -> DoctorCheck {
    match &facts.missing_namespaces {
        Ok(missing) if missing.is_empty() => {
            ok("namespaces", "the kernel has all namespaces that are needed")
        }
        Ok(missing) => {
            let text = format!("the kernel does not have: {}", missing.join(", "));
            problem("namespaces", text, "use a kernel with CONFIG_NAMESPACES and CONFIG_NET_NS")
        }
        Err(why) => warning("namespaces", why, MOUNT_PROC),
    }
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
