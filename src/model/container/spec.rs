//! The part of an OCI bundle's `config.json` that is read. Unknown properties are ignored, as the
//! runtime-spec demands ("Extensibility"), and so are mounts, seccomp and all else that only a
//! long-lived process would need.

use crate::model::text::json_object::only_objects;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// The newest runtime-spec this runtime knows; `--version`, `features` and state name it.
pub(crate) const OCI_VERSION: &str = "1.3.0";

/// A checked `config.json`.
#[derive(Debug)]
pub(crate) struct Spec {
    /// `root.path` as written: absolute, or relative to the bundle.
    pub(crate) root_path: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: SpecHooks,
    pub(crate) network: Network,
    pub(crate) cgroups_path: Option<String>,
    pub(crate) terminal: Terminal,
}

/// A mount of the spec: the parts that hooks get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct Mount {
    pub(crate) destination: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) source: String,
}

/// The network namespace of the proxy (`linux.namespaces`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// No entry: the runtime's own.
    Inherited,
    /// An entry without a path: a new one.
    New,
    /// An entry with a path: that one.
    Joined(String),
}

/// `process.terminal` and `process.consoleSize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    None,
    Pty { rows: u16, columns: u16 },
}

/// The lifecycle hooks of the spec (config.md, "POSIX-platform Hooks"), in listed order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub(crate) struct SpecHooks {
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) prestart: Vec<SpecHook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) create_runtime: Vec<SpecHook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) create_container: Vec<SpecHook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) start_container: Vec<SpecHook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststart: Vec<SpecHook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststop: Vec<SpecHook>,
}

/// One hook of the spec. `args` is the whole argument vector, its first element included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct SpecHook {
    pub(crate) path: String,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<String>,
    /// Seconds, above zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<i64>,
}

/// Why a `config.json` is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidSpec {
    #[error("it is not a valid OCI configuration: {0}")]
    Json(#[source] serde_json::Error),
    #[error("its {place} is not valid")]
    Part { place: &'static str, source: serde_json::Error },
    #[error("it has no ociVersion")]
    NoVersion,
    #[error("unsupported ociVersion {version:?}, must be SemVer 1.x such as {OCI_VERSION}")]
    Version { version: String },
    #[error("it has no process (an engine writes one for every image; an image needs a CMD)")]
    NoProcess,
    #[error("it has no root.path")]
    NoRoot,
    #[error("{place} has a NUL byte")]
    Nul { place: String },
    #[error("hook {place} has path {path:?}, which must be absolute")]
    HookPath { place: String, path: String },
    #[error("hook {place} has timeout {timeout}, which must be above zero")]
    HookTimeout { place: String, timeout: i64 },
    #[error("linux.namespaces has the network path {path:?}, which must be absolute")]
    NetworkPath { path: String },
    #[error("linux.namespaces has {count} entries of type network, at most one is allowed")]
    Networks { count: usize },
}

#[derive(Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
struct RawSpec {
    oci_version: Option<String>,
    process: Option<RawProcess>,
    root: Option<RawRoot>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    mounts: Vec<Mount>,
    #[serde(default, deserialize_with = "null_is_default")]
    hooks: SpecHooks,
    #[serde(default, deserialize_with = "null_is_default")]
    linux: RawLinux,
}

#[derive(Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
struct RawProcess {
    #[serde(default, deserialize_with = "null_is_default")]
    terminal: bool,
    /// Ignored unless `terminal` is true, whatever it is.
    console_size: Option<Box<RawValue>>,
    /// Ignored unless a hook gets it.
    env: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(remote = "Self")]
struct RawSize {
    height: u64,
    width: u64,
}

#[derive(Deserialize)]
#[serde(remote = "Self")]
struct RawRoot {
    #[serde(default, deserialize_with = "null_is_default")]
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
struct RawLinux {
    #[serde(deserialize_with = "null_is_default")]
    namespaces: Vec<RawNamespace>,
    cgroups_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(remote = "Self")]
struct RawNamespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    path: String,
}

only_objects!(RawSpec, RawProcess, RawSize, RawRoot, RawLinux, RawNamespace; written: Mount, SpecHooks, SpecHook);

/// Engines written in Go write an empty list or map as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Spec {
    /// Reads and checks the bytes of a `config.json`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, InvalidSpec> {
        let mut raw: RawSpec = serde_json::from_slice(bytes).map_err(InvalidSpec::Json)?;
        let version = raw.oci_version.ok_or(InvalidSpec::NoVersion)?;
        if !is_version_one(&version) {
            return Err(InvalidSpec::Version { version });
        }
        let process = raw.process.ok_or(InvalidSpec::NoProcess)?;
        let root_path = raw.root.map(|root| root.path).unwrap_or_default();
        if root_path.is_empty() {
            return Err(InvalidSpec::NoRoot);
        }
        refuse_nul("root.path", &root_path)?;
        if raw.hooks.of_the_container().any(|hook| hook.env.is_empty()) {
            let env = part("process.env", process.env)?.unwrap_or_default();
            raw.hooks.default_environment(&environment(env));
        }
        raw.hooks.check()?;
        let terminal = match process.terminal {
            true => {
                let size = part("process.consoleSize", process.console_size)?;
                let size = size.unwrap_or(RawSize { height: 0, width: 0 });
                let clamp = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
                Terminal::Pty { rows: clamp(size.height), columns: clamp(size.width) }
            }
            false => Terminal::None,
        };
        Ok(Self {
            root_path,
            annotations: raw.annotations,
            mounts: raw.mounts,
            hooks: raw.hooks,
            network: network(raw.linux.namespaces)?,
            cgroups_path: raw.linux.cgroups_path.filter(|path| !path.is_empty()),
            terminal,
        })
    }
}

impl SpecHooks {
    /// The lists with the names that the spec gives them, in lifecycle order.
    pub(crate) fn lists(&self) -> [(&'static str, &[SpecHook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }

    /// Those that the specification runs in the container's namespaces.
    fn of_the_container(&mut self) -> impl Iterator<Item = &mut SpecHook> {
        self.create_container.iter_mut().chain(&mut self.start_container)
    }

    /// Gives the hooks of the container that have no environment the container's, as runc does
    /// (libcontainer: `populateProcessEnvironment` in its init, which runs them; `SetDefaultEnv` later).
    fn default_environment(&mut self, environment: &[String]) {
        for hook in self.of_the_container().filter(|hook| hook.env.is_empty()) {
            hook.env = environment.to_vec();
        }
    }

    fn check(&self) -> Result<(), InvalidSpec> {
        for (list, hooks) in self.lists() {
            for (index, hook) in hooks.iter().enumerate() {
                let place = format!("hooks.{list}[{index}]");
                if !hook.path.starts_with('/') {
                    return Err(InvalidSpec::HookPath { place, path: hook.path.clone() });
                }
                if let Some(timeout) = hook.timeout.filter(|&timeout| timeout <= 0) {
                    return Err(InvalidSpec::HookTimeout { place, timeout });
                }
                for text in hook.args.iter().chain(&hook.env).chain([&hook.path]) {
                    refuse_nul(&place, text)?;
                }
            }
        }
        Ok(())
    }
}

/// `process.env` with the last value of each variable, in the order of those.
fn environment(mut env: Vec<String>) -> Vec<String> {
    let name = |variable: &str| variable.split_once('=').map(|(name, _)| name.to_owned());
    let mut seen = BTreeSet::new();
    env.reverse();
    env.retain(|variable| name(variable).is_some_and(|name| !name.is_empty() && seen.insert(name)));
    env.reverse();
    env
}

/// Reads a part that is needed after all. Line and column of an error are counted from its beginning.
fn part<T: DeserializeOwned>(
    place: &'static str,
    written: Option<Box<RawValue>>,
) -> Result<Option<T>, InvalidSpec> {
    let read = |text: Box<RawValue>| serde_json::from_str(text.get());
    written.map(read).transpose().map_err(|source| InvalidSpec::Part { place, source })
}

fn network(namespaces: Vec<RawNamespace>) -> Result<Network, InvalidSpec> {
    let mut networks: Vec<RawNamespace> =
        namespaces.into_iter().filter(|namespace| namespace.kind == "network").collect();
    let count = networks.len();
    match (networks.pop(), count) {
        (None, _) => Ok(Network::Inherited),
        (Some(entry), 1) if entry.path.is_empty() => Ok(Network::New),
        (Some(entry), 1) if !entry.path.starts_with('/') => {
            Err(InvalidSpec::NetworkPath { path: entry.path })
        }
        (Some(entry), 1) => {
            refuse_nul("linux.namespaces: the network path", &entry.path)?;
            Ok(Network::Joined(entry.path))
        }
        (Some(_), count) => Err(InvalidSpec::Networks { count }),
    }
}

fn refuse_nul(place: &str, text: &str) -> Result<(), InvalidSpec> {
    if text.contains('\0') { Err(InvalidSpec::Nul { place: place.to_owned() }) } else { Ok(()) }
}

/// Whether `text` is SemVer (semver.org, 2.0.0) with major version 1. Engines send `1.0.2-dev`.
fn is_version_one(text: &str) -> bool {
    // Either of the two may be missing, which is as good as an allowed one.
    let (rest, build) = text.split_once('+').unwrap_or((text, "none"));
    let (core, pre_release) = rest.split_once('-').unwrap_or((rest, "none"));
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_label = |part: &str| !part.is_empty() && part.bytes().all(is_allowed);
    // Without leading zeros.
    let is_number = |part: &str| part.parse::<u64>().is_ok_and(|number| number.to_string() == part);
    let core: Vec<&str> = core.split('.').collect();
    matches!(*core, ["1", minor, patch] if is_number(minor) && is_number(patch))
        && build.split('.').chain(pre_release.split('.')).all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Spec, String> {
        Spec::parse(text.as_bytes()).map_err(|error| crate::model::text::cause::chain(&error))
    }

    #[test]
    fn the_versions_that_engines_send_are_accepted() {
        for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.2.0+dev", "1.0.0-rc.5+build.7"] {
            assert!(is_version_one(version), "{version}");
        }
        for version in ["2.0.0", "1", "1.0", "1.0.0.0", "1.a.0", "", "01.0.0", "1.0.0-", "v1.0.0"] {
            assert!(!is_version_one(version), "{version}");
        }
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        let spec =
            parse(r#"{"ociVersion":"1.0.2","process":{},"root":{"path":"rootfs"}}"#).unwrap();
        assert_eq!(spec.root_path, "rootfs");
        assert_eq!(spec.network, Network::Inherited);
        assert_eq!(spec.terminal, Terminal::None);
        assert!(spec.annotations.is_empty() && spec.mounts.is_empty());
    }

    #[test]
    fn null_lists_and_unknown_properties_are_fine() {
        let spec = parse(
            r#"{"ociVersion":"1.0.2-dev","process":{"terminal":null,"capabilities":{"bounding":["CAP_NEW"]}},
            "root":{"path":"/r","readonly":true},"mounts":null,"hooks":{"prestart":null},"annotations":null,
            "linux":{"namespaces":null,"seccomp":{"defaultAction":"SCMP_ACT_NEWER"}},"vm":{}}"#,
        );
        assert!(spec.is_ok(), "{spec:?}");
    }

    #[test]
    fn the_network_entry_decides_the_namespace() {
        let with = |namespaces: &str| {
            let text = format!(
                r#"{{"ociVersion":"1.0.0","process":{{}},"root":{{"path":"r"}},"linux":{{"namespaces":{namespaces}}}}}"#
            );
            parse(&text).map(|spec| spec.network)
        };
        assert_eq!(with(r#"[{"type":"pid"}]"#).unwrap(), Network::Inherited);
        assert_eq!(with(r#"[{"type":"network"}]"#).unwrap(), Network::New);
        assert_eq!(with(r#"[{"type":"network","path":""}]"#).unwrap(), Network::New);
        let joined = with(r#"[{"type":"network","path":"/proc/1/ns/net"}]"#).unwrap();
        assert_eq!(joined, Network::Joined("/proc/1/ns/net".to_owned()));
        let relative = with(r#"[{"type":"network","path":"proc/1/ns/net"}]"#).unwrap_err();
        assert!(relative.contains("must be absolute"), "{relative}");
        let twice = with(r#"[{"type":"network"},{"type":"network"}]"#).unwrap_err();
        assert!(twice.contains("2 entries of type network"), "{twice}");
    }

    #[test]
    fn the_environment_of_the_container_is_looked_at_only_if_a_hook_gets_it() {
        let with = |hook: &str| {
            let text = format!(
                r#"{{"ociVersion":"1.0.0","process":{{"env":3}},"root":{{"path":"r"}},"hooks":{{"startContainer":[{hook}]}}}}"#
            );
            parse(&text)
        };
        assert!(with("").is_ok() && with(r#"{"path":"/x","env":["A=1"]}"#).is_ok());
        let error = with(r#"{"path":"/x"}"#).unwrap_err();
        assert!(error.contains("expected a sequence"), "{error}");
        let variables = ["A=1", "B", "=x", "C==", "A=2"].map(str::to_owned).to_vec();
        assert_eq!(environment(variables), ["C==", "A=2"]);
    }

    #[test]
    fn each_defect_is_named() {
        let base = |extra: &str| {
            format!(r#"{{"ociVersion":"1.0.0","process":{{}},"root":{{"path":"r"}}{extra}}}"#)
        };
        for (text, expected) in [
            (r#"{"process":{},"root":{"path":"r"}}"#.to_owned(), "no ociVersion"),
            (base("").replace("1.0.0", "2.0.0"), r#"unsupported ociVersion "2.0.0""#),
            (base("").replace(r#""process":{},"#, ""), "no process"),
            (base("").replace(r#"{"path":"r"}"#, "{}"), "no root.path"),
            (base("").replace(r#""r""#, r#""a\u0000""#), "root.path has a NUL byte"),
            (base(r#","annotations":{"a":1}"#), "invalid type: integer `1`"),
            (base(r#","mounts":3"#), "expected a sequence"),
            (base(r#","hooks":{"poststop":[{"path":"x"}]}"#), r#"hooks.poststop[0] has path "x""#),
            (base(r#","hooks":{"prestart":[{"path":"/x","timeout":0}]}"#), "timeout 0"),
            (
                base("").replace("{}", r#"{"terminal":true,"consoleSize":{"height":24}}"#),
                "missing field `width` at line 1",
            ),
            ("[]".to_owned(), "not a valid OCI configuration"),
            (String::new(), "EOF while parsing"),
            ("[".repeat(100_000), "not a valid OCI configuration"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{error}\n does not say {expected}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidSpec {
        Json(_), Part { place, source }, NoVersion, Version { version }, NoProcess, NoRoot, Nul { place },
        HookPath { place, path }, HookTimeout { place, timeout }, NetworkPath { path },
        Networks { count },
    }
}
