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
    /// The free bytes of the boot environment block; `None` if the host has no such block.
    pub(crate) boot_environment: Result<Option<usize>, String>,
    /// The units of this package, and whether each is enabled; `None` if it is not installed.
    pub(crate) units: Vec<(&'static str, Result<Option<bool>, String>)>,
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
/// The room for the longest value that kernel overrides write, with its name and line end.
const FREE_ENVIRONMENT: usize = 128;
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
        Ok(Some(free)) if *free < FREE_ENVIRONMENT => {
            let fix = "remove values that are no longer needed: grub-editenv FILE unset NAME";
            warning(check, format!("only {free} bytes are free"), fix)
        }
        Ok(Some(free)) => ok(check, format!("{free} bytes are free")),
        Err(why) => problem(check, why, "mount the boot partition, or restore its damaged file"),
    }
}

fn unit((name, enabled): &(&'static str, Result<Option<bool>, String>)) -> DoctorCheck {
    match enabled {
        Ok(Some(true)) => ok("unit", format!("{name} is enabled")),
        Ok(Some(false)) => {
            let fix = format!("systemctl enable {name} (otherwise nothing cleans up at boot)");
            warning("unit", format!("{name} is not enabled"), fix)
        }
        Ok(None) => {
            let fix = "install it from dist/systemd, or run balena-extension-manager cleanup at each boot";
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
mod tests {
    use super::*;

    fn facts() -> Facts {
        let text = r#"{"ServerVersion":"20.10.24","Driver":"overlay2","DockerRootDir":"/d",
                       "Runtimes":{"extension":{"path":"/usr/bin/balena-extension-runtime"}}}"#;
        Facts {
            engine: Ok(serde_json::from_str(text).unwrap()),
            api: Some("1.41".to_owned()),
            runtimes: vec![(
                "extension".to_owned(),
                "/x".to_owned(),
                RegisteredBinary::SameVersion,
            )],
            mounts: Ok((process(), Relation::Same)),
            state_root: Ok("/run".to_owned()),
            boot_environment: Ok(Some(900)),
            units: vec![("a.service", Ok(Some(true)))],
            disk: Ok((1 << 40, 1 << 41, "/d".to_owned())),
            overlay: Ok(true),
            missing_namespaces: Ok(Vec::new()),
            kernel_release: Ok("5.6.0-rc1".to_owned()),
        }
    }

    fn process() -> EngineProcess {
        EngineProcess { pid: 7, name: "dockerd".to_owned(), by: "/run/docker.pid".to_owned() }
    }

    /// An engine with these runtimes, none of which is known to be this program.
    fn with_runtimes(text: &str) -> Facts {
        let text = format!(r#"{{"Driver":"overlay2","Runtimes":{text}}}"#);
        Facts { engine: Ok(serde_json::from_str(&text).unwrap()), runtimes: Vec::new(), ..facts() }
    }

    fn level_of(check: &str, facts: &Facts) -> CheckLevel {
        let checks = judge(facts);
        checks.iter().find(|one| one.check == check).unwrap().level
    }

    #[test]
    fn a_host_that_is_set_up_passes_every_check() {
        let checks = judge(&facts());
        assert!(
            checks.iter().all(|one| one.level == CheckLevel::Ok && one.fix.is_none()),
            "{checks:?}"
        );
        assert_eq!(checks.len(), 11);
    }

    #[test]
    fn each_fault_is_found_and_has_a_fix() {
        use CheckLevel::{Ok as Fine, Problem, Warning};
        let why = || "why".to_owned();
        let runtime = |binary| vec![("r".to_owned(), "/p".to_owned(), binary)];
        let version = "2".to_owned();
        let other_version = RegisteredBinary::OtherVersion { version, commit: why() };
        let other = EngineInfo { driver: Some("vfs".to_owned()), ..EngineInfo::default() };
        for (check, level, facts) in [
            ("engine", Problem, Facts { engine: Err(why()), ..facts() }),
            ("runtime", Problem, Facts { runtimes: Vec::new(), ..facts() }),
            ("runtime", Problem, with_runtimes(r#"{"runc":{"path":"runc"}}"#)),
            ("runtime", Fine, with_runtimes(r#"{"extension":{},"runc":{"path":"runc"}}"#)),
            ("runtime", Warning, with_runtimes(r#"{"other":{"path":""}}"#)),
            ("mounts", Fine, Facts { mounts: Ok((process(), Relation::Other)), ..facts() }),
            (
                "mounts",
                Warning,
                Facts { mounts: Ok((process(), Relation::Unknown(why()))), ..facts() },
            ),
            ("mounts", Warning, Facts { mounts: Err(why()), ..facts() }),
            ("runtime", Warning, Facts { runtimes: runtime(other_version), ..facts() }),
            (
                "runtime",
                Warning,
                Facts { runtimes: runtime(RegisteredBinary::NoVersion), ..facts() },
            ),
            (
                "runtime",
                Warning,
                Facts { runtimes: runtime(RegisteredBinary::Unreadable { why: why() }), ..facts() },
            ),
            ("runtime", Problem, Facts { runtimes: runtime(RegisteredBinary::Missing), ..facts() }),
            ("storage-driver", Warning, Facts { engine: Ok(other), ..facts() }),
            ("state-root", Problem, Facts { state_root: Err(why()), ..facts() }),
            ("boot-environment", Problem, Facts { boot_environment: Err(why()), ..facts() }),
            ("boot-environment", Warning, Facts { boot_environment: Ok(Some(127)), ..facts() }),
            ("boot-environment", Fine, Facts { boot_environment: Ok(None), ..facts() }),
            ("unit", Warning, Facts { units: vec![("u", Ok(Some(false)))], ..facts() }),
            ("unit", Warning, Facts { units: vec![("u", Ok(None))], ..facts() }),
            ("unit", Warning, Facts { units: vec![("u", Err(why()))], ..facts() }),
            ("disk", Warning, Facts { disk: Ok((1, 2, why())), ..facts() }),
            ("disk", Warning, Facts { disk: Err(why()), ..facts() }),
            ("kernel", Problem, Facts { kernel_release: Ok("5.5.19".to_owned()), ..facts() }),
            ("kernel", Problem, Facts { kernel_release: Err(why()), ..facts() }),
            ("overlayfs", Problem, Facts { overlay: Ok(false), ..facts() }),
            ("overlayfs", Warning, Facts { overlay: Err(why()), ..facts() }),
            ("namespaces", Problem, Facts { missing_namespaces: Ok(vec!["net"]), ..facts() }),
            ("namespaces", Warning, Facts { missing_namespaces: Err("no".into()), ..facts() }),
        ] {
            assert_eq!(level_of(check, &facts), level, "{check}: {facts:?}");
            let checks = judge(&facts);
            let found = checks.iter().find(|one| one.check == check).unwrap();
            assert_eq!(found.fix.is_some(), level != Fine, "{found:?}");
        }
    }

    #[test]
    fn the_mounts_of_the_engine_are_named_with_what_they_mean() {
        let text = |facts: &Facts| {
            let checks = judge(facts);
            checks.into_iter().find(|one| one.check == "mounts").unwrap().text
        };
        let known = "dockerd (process 7, from /run/docker.pid) has";
        assert!(text(&facts()).starts_with(&format!("{known} the host's mounts")));
        let apart = text(&Facts { mounts: Ok((process(), Relation::Other)), ..facts() });
        assert!(apart.starts_with(&format!("{known} its own mount namespace")), "{apart}");
        assert!(apart.contains("that of process 1"), "{apart}");
        let unknown = text(&Facts { mounts: Err("why".to_owned()), ..facts() });
        assert!(unknown.contains("cannot determine") && unknown.ends_with("why"), "{unknown}");
    }

    #[test]
    fn a_socket_leads_to_units() {
        assert_eq!(units_of_engine("docker"), ["docker.service"]);
        assert_eq!(units_of_engine("balena-engine"), ["balena-engine.service", "balena.service"]);
        assert!(serves_an_engine("dockerd") && serves_an_engine("balena-engine-d"));
        assert!(!serves_an_engine("systemd") && !serves_an_engine("containerd-shim"));
    }
}
