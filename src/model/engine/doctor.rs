//! What is wrong with a host: each finding with its cause and its mend. The facts are read by
//! `manager/doctor.rs`.

use crate::model::container::mount_namespace::Relation;
use crate::model::text::bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    Warning,
    Problem,
}

impl Level {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    pub(crate) text: String,
    /// What to do; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<&'static str>,
}

/// What the engine says of itself (`GET /info`).
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
    /// A bare word for those that the engine finds by itself. None for one that is registered by its type
    /// (`runtimeType`), of which the engine does not tell the file.
    pub(crate) path: Option<String>,
}

/// The process of the engine.
#[derive(Debug)]
pub(crate) struct EngineProcess {
    pub(crate) pid: i32,
    pub(crate) name: String,
    /// The pid file or the unit that led to it.
    pub(crate) by: String,
}

/// Whether a process of this name (`/proc/PID/comm`) serves an engine's API.
pub(crate) fn serves_an_engine(name: &str) -> bool {
    ["dockerd", "balena", "podman"].iter().any(|engine| name.starts_with(engine))
}

/// The units that may run the engine whose socket is called so, without `.sock`.
pub(crate) fn units_of_engine(socket: &str) -> Vec<String> {
    // Of balenaOS: balena.service has the socket balena-engine.sock.
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
    /// It has the runtime's name, but not a version of it in it.
    NoVersion,
    Unreadable {
        why: String,
    },
    Missing,
}

/// Everything that was looked at; an error is why it could not be.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) engine: Result<EngineInfo, String>,
    pub(crate) api: Option<String>,
    /// The registered runtimes that are this runtime or have its name: name, path, file.
    pub(crate) runtimes: Vec<(String, String, RegisteredBinary)>,
    /// The engine's process and how its mount namespace relates to that of process 1.
    pub(crate) mounts: Result<(EngineProcess, Relation), String>,
    /// The state root, or where it will be made.
    pub(crate) state_root: Result<String, String>,
    /// The free bytes of the boot environment; `None` if the host boots in another way.
    pub(crate) boot_environment: Result<Option<usize>, String>,
    /// The units of this program, and whether each is enabled; `None` if it is not installed.
    pub(crate) units: Vec<(&'static str, Result<Option<bool>, String>)>,
    /// Free and all bytes where the engine keeps its data, and where that is.
    pub(crate) disk: Result<(u64, u64, String), String>,
    /// Whether the kernel has overlayfs.
    pub(crate) overlay: Result<bool, String>,
    /// The namespaces that the kernel has not.
    pub(crate) missing_namespaces: Result<Vec<&'static str>, String>,
    pub(crate) kernel_release: Result<String, String>,
}

/// The name under which the documents register this runtime.
const USUAL_NAME: &str = "extension";
/// The least that should be free: an update of an extension needs its size once more.
const FREE_BYTES: u64 = 200_000_000;
/// The room for the longest value that kernel overrides write, with its name and a line's end.
const FREE_ENVIRONMENT: usize = 128;
/// The oldest kernel with all that is used (`openat2`).
const KERNEL: (u32, u32) = (5, 6);

fn line(check: &'static str, level: Level, text: String, mend: &'static str) -> Line {
    Line { check, level, text, mend: (level != Level::Ok).then_some(mend) }
}

/// Judges the facts, in the order in which they depend on each other.
pub(crate) fn judge(facts: &Facts) -> Vec<Line> {
    let mut lines = vec![engine(facts)];
    lines.extend(facts.engine.as_ref().ok().map(|info| runtime(facts, info)));
    lines.extend(facts.engine.is_ok().then(|| mounts(facts)));
    lines.extend(facts.engine.as_ref().ok().map(driver));
    lines.extend([state_root(facts), boot_environment(facts)]);
    lines.extend(facts.units.iter().map(unit));
    lines.extend([disk(facts), kernel(facts), overlay(facts), namespaces(facts)]);
    lines
}

fn engine(facts: &Facts) -> Line {
    let mend = "start the engine, or name its socket with --host unix:///path/to.sock";
    match &facts.engine {
        Ok(info) => {
            let version = info.server_version.as_deref().unwrap_or("unknown");
            let api = facts.api.as_deref().unwrap_or("unknown");
            let text = format!("version {version}, spoken to in version {api} of its API");
            line("engine", Level::Ok, text, mend)
        }
        Err(why) => line("engine", Level::Problem, why.clone(), mend),
    }
}

fn runtime(facts: &Facts, info: &EngineInfo) -> Line {
    const MEND: &str = "register it in the engine's daemon.json: {\"runtimes\": {\"extension\": \
                        {\"path\": \"/usr/bin/balena-extension-runtime\"}}}, and restart the engine";
    const OTHER: &str = "install balena-extension-runtime and balena-extension-manager from the same build, \
                         and restart the engine if the runtime's path has changed";
    const READABLE: &str = "make it readable, or run doctor as root";
    let best = facts.runtimes.iter().min_by_key(|(_, _, binary)| binary);
    match best {
        Some((name, path, RegisteredBinary::SameVersion)) => {
            let text = format!("registered as {name:?}: {path} (same version as the manager)");
            line("runtime", Level::Ok, text, MEND)
        }
        Some((name, path, RegisteredBinary::OtherVersion { version, commit })) => {
            let text = format!(
                "{name:?} is {path}, which is not the manager's version but {version} (commit {commit})"
            );
            line("runtime", Level::Warning, text, OTHER)
        }
        Some((name, path, RegisteredBinary::NoVersion)) => {
            let text = format!("{name:?} is {path}, which does not say its version");
            line("runtime", Level::Warning, text, OTHER)
        }
        Some((name, path, RegisteredBinary::Unreadable { why })) => {
            let text = format!("{name:?} is {path}, whose version cannot be read: {why}");
            line("runtime", Level::Warning, text, READABLE)
        }
        Some((name, path, RegisteredBinary::Missing)) => {
            let text = format!("{name:?} is registered as {path}, which is missing");
            line("runtime", Level::Problem, text, MEND)
        }
        None => unnamed_runtime(info).unwrap_or_else(|| {
            let text = "the engine does not know balena-extension-runtime".to_owned();
            line("runtime", Level::Problem, text, MEND)
        }),
    }
}

/// The runtimes of which the engine does not tell the file: one of them may be this program.
fn unnamed_runtime(info: &EngineInfo) -> Option<Line> {
    const MEND: &str = "register the runtime with its \"path\" to have it checked";
    let runtimes = info.runtimes.iter().flatten();
    let names: Vec<&str> = runtimes
        .filter(|(_, runtime)| runtime.path.as_deref().unwrap_or_default().is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    if let Some(name) = names.iter().find(|name| **name == USUAL_NAME) {
        let text =
            format!("registered as {name:?} by its type; the engine does not tell which file");
        return Some(line("runtime", Level::Ok, text, MEND));
    }
    let listed = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let text = format!("unknown: the engine does not tell the files of {listed}");
    (!names.is_empty()).then(|| line("runtime", Level::Warning, text, MEND))
}

/// In which mount namespace the engine is, and what that means.
fn mounts(facts: &Facts) -> Line {
    const MEND: &str = "look for MountFlags=, PrivateTmp= and the like in the engine's unit; hooks of images run in \
                        the mount namespace of process 1 in any case";
    let unknown = |why: &str| {
        let text = format!("it cannot be determined whether the engine has its own: {why}");
        line("mounts", Level::Warning, text, MEND)
    };
    let (process, relation) = match &facts.mounts {
        Ok(found) => found,
        Err(why) => return unknown(why),
    };
    let EngineProcess { pid, name, by } = process;
    match relation {
        Relation::Same => {
            let text = format!("{name} (process {pid}, by {by}) has those of the host");
            line("mounts", Level::Ok, text, MEND)
        }
        Relation::Other => {
            let text = format!(
                "{name} (process {pid}, by {by}) has a mount namespace of its own; the host has what hooks of \
                 images mount, since they run in that of process 1"
            );
            line("mounts", Level::Ok, text, MEND)
        }
        Relation::Unknown(why) => unknown(why),
    }
}

fn driver(info: &EngineInfo) -> Line {
    const MEND: &str = "set \"storage-driver\": \"overlay2\" in the engine's daemon.json; the initramfs \
                        layers from that one alone";
    let driver = info.driver.as_deref().unwrap_or("unknown");
    let level = if driver == "overlay2" { Level::Ok } else { Level::Warning };
    line("storage-driver", level, driver.to_owned(), MEND)
}

fn state_root(facts: &Facts) -> Line {
    const MEND: &str = "mount /run read-write (a tmpfs), and run this as root";
    match &facts.state_root {
        Ok(path) => line("state-root", Level::Ok, format!("{path} is writable"), MEND),
        Err(why) => line("state-root", Level::Problem, why.clone(), MEND),
    }
}

fn boot_environment(facts: &Facts) -> Line {
    const MEND: &str = "mount the boot partition, or write what is damaged on it anew";
    const FULL: &str = "remove values that nobody needs any more with grub-editenv";
    let check = "boot-environment";
    match facts.boot_environment {
        Ok(None) => {
            let text = "none: this host boots in another way".to_owned();
            line(check, Level::Ok, text, MEND)
        }
        Ok(Some(free)) if free < FREE_ENVIRONMENT => {
            line(check, Level::Warning, format!("only {free} bytes are free"), FULL)
        }
        Ok(Some(free)) => line(check, Level::Ok, format!("{free} bytes are free"), MEND),
        Err(ref why) => line(check, Level::Problem, why.clone(), MEND),
    }
}

fn unit((name, enabled): &(&'static str, Result<Option<bool>, String>)) -> Line {
    const MEND: &str = "systemctl enable it, or nothing cleans up at boot";
    const MISSING: &str =
        "install the units of dist/systemd, or run cleanup at boot in another way";
    match enabled {
        Ok(Some(true)) => line("unit", Level::Ok, format!("{name} is enabled"), MEND),
        Ok(Some(false)) => line("unit", Level::Warning, format!("{name} is not enabled"), MEND),
        Ok(None) => line("unit", Level::Warning, format!("{name} is not installed"), MISSING),
        Err(why) => line("unit", Level::Warning, format!("{name}: {why}"), "run this as root"),
    }
}

fn disk(facts: &Facts) -> Line {
    const MEND: &str = "remove images that nobody needs, for example with docker image prune";
    match &facts.disk {
        Ok((free, all, path)) => {
            let level = if *free < FREE_BYTES { Level::Warning } else { Level::Ok };
            let (free, all) = (bytes::shown(*free), bytes::shown(*all));
            line("disk", level, format!("{free} of {all} are free in {path}"), MEND)
        }
        Err(why) => line("disk", Level::Warning, why.clone(), "name it with --docker-root"),
    }
}

fn kernel(facts: &Facts) -> Line {
    const MEND: &str = "update the OS";
    let release = match &facts.kernel_release {
        Ok(release) => release,
        Err(why) => return line("kernel", Level::Problem, why.clone(), "mount /proc"),
    };
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let level = if version < KERNEL { Level::Problem } else { Level::Ok };
    let text = match level {
        Level::Ok | Level::Warning => release.clone(),
        Level::Problem => {
            format!("{release}, and {}.{} is the oldest that serves", KERNEL.0, KERNEL.1)
        }
    };
    line("kernel", level, text, MEND)
}

fn overlay(facts: &Facts) -> Line {
    const MEND: &str = "use a kernel with CONFIG_OVERLAY_FS, or load its module: modprobe overlay";
    match &facts.overlay {
        Ok(true) => line("overlayfs", Level::Ok, "the kernel has it".to_owned(), MEND),
        Ok(false) => {
            line("overlayfs", Level::Problem, "the kernel does not have it".to_owned(), MEND)
        }
        Err(why) => line("overlayfs", Level::Warning, why.clone(), "mount /proc"),
    }
}

fn namespaces(facts: &Facts) -> Line {
    const MEND: &str = "use a kernel with CONFIG_NAMESPACES and CONFIG_NET_NS";
    match &facts.missing_namespaces {
        Ok(missing) if missing.is_empty() => {
            line("namespaces", Level::Ok, "the kernel has those that are used".to_owned(), MEND)
        }
        Ok(missing) => {
            let text = format!("the kernel does not have: {}", missing.join(", "));
            line("namespaces", Level::Problem, text, MEND)
        }
        Err(why) => line("namespaces", Level::Warning, why.clone(), "mount /proc"),
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

    fn level_of(check: &str, facts: &Facts) -> Level {
        let lines = judge(facts);
        lines.iter().find(|line| line.check == check).unwrap().level
    }

    #[test]
    fn a_host_that_is_set_up_has_nothing_but_ok() {
        let lines = judge(&facts());
        assert!(
            lines.iter().all(|line| line.level == Level::Ok && line.mend.is_none()),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 11);
    }

    #[test]
    fn each_fault_is_found_and_has_a_mend() {
        use Level::{Ok as Fine, Problem, Warning};
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
            let lines = judge(&facts);
            let line = lines.iter().find(|line| line.check == check).unwrap();
            assert_eq!(line.mend.is_some(), level != Fine, "{line:?}");
        }
    }

    #[test]
    fn the_mounts_of_the_engine_are_named_with_what_they_mean() {
        let text = |facts: &Facts| {
            let lines = judge(facts);
            lines.into_iter().find(|line| line.check == "mounts").unwrap().text
        };
        let known = "dockerd (process 7, by /run/docker.pid) has";
        assert!(text(&facts()).starts_with(&format!("{known} those of the host")));
        let apart = text(&Facts { mounts: Ok((process(), Relation::Other)), ..facts() });
        assert!(apart.starts_with(&format!("{known} a mount namespace of its own")), "{apart}");
        assert!(apart.contains("that of process 1"), "{apart}");
        let unknown = text(&Facts { mounts: Err("why".to_owned()), ..facts() });
        assert!(unknown.contains("cannot be determined") && unknown.ends_with("why"), "{unknown}");
    }

    #[test]
    fn a_socket_leads_to_units() {
        assert_eq!(units_of_engine("docker"), ["docker.service"]);
        assert_eq!(units_of_engine("balena-engine"), ["balena-engine.service", "balena.service"]);
        assert!(serves_an_engine("dockerd") && serves_an_engine("balena-engine-d"));
        assert!(!serves_an_engine("systemd") && !serves_an_engine("containerd-shim"));
    }
}
