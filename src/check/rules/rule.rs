//! The rules by name, with how bad it is to break one. docs/check.md explains each.

use serde::{Serialize, Serializer};

/// How bad a finding is; the order is that of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Worth knowing; never changes the exit status.
    Note,
    /// It may well not do what the author means.
    Warning,
    /// It will be refused, or it will not work.
    Error,
}

impl Severity {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! rules {
    ($($rule:ident $name:literal $severity:ident $summary:literal,)*) => {
        /// A rule that an extension can break.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Rule {
            $($rule,)*
        }

        impl Rule {
            /// Every rule, in the order of the documentation.
            pub(crate) const ALL: &[Self] = &[$(Self::$rule,)*];

            /// The name, for `--allow` and for reports. Names never change their meaning.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$rule => $name,)*
                }
            }

            pub(crate) fn severity(self) -> Severity {
                match self {
                    $(Self::$rule => Severity::$severity,)*
                }
            }

            /// What it is about, in a line.
            pub(crate) fn summary(self) -> &'static str {
                match self {
                    $(Self::$rule => $summary,)*
                }
            }
        }
    };
}

rules! {
    NoLabels "no-labels" Note "what was given has no labels, so their rules were not applied",
    Class "class" Error "io.balena.image.class is missing or is not overlay",
    LabelUnknown "label-unknown" Warning "a label io.balena.image.* that nothing reads",
    LabelEnvironment "label-environment" Error "a label that no environment variable can hold",
    LabelCollision "label-collision" Warning "labels or mounts that share one variable",
    Override "override" Error "io.balena.image.override is not an integer",
    RequiresReboot "requires-reboot" Warning "a requires-reboot that is neither yes nor no",
    OsVersion "os-version" Error "io.balena.image.os-version has a malformed pattern",
    OsVersionPattern "os-version-pattern" Warning "a pattern of os-version that no version matches",
    KernelVersion "kernel-version" Error "io.balena.image.kernel-version does not begin with M.m.p",
    KernelAbi "kernel-abi" Error "io.balena.image.kernel-abi-id is not 64 lower-case hex digits",
    KernelAbiFile "kernel-abi-file" Error "no file in /boot has the hash that kernel-abi-id names",
    KernelOverride "kernel-override" Warning "a kernel, which the runtime does not install yet",
    ModuleSymvers "module-symvers" Error "a kernel without the Module.symvers of its modules",
    BootMarker "boot-marker" Error "/boot/.fabricating is there",
    ModuleRelease "module-release" Error "modules for another kernel release than claimed",
    ModuleClaim "module-claim" Warning "kernel modules without a claim on the kernel",
    Layer "layer" Error "an image that engines refuse to load",
    LayerZstd "layer-zstd" Warning "a layer that older engines cannot unpack",
    PathOut "path-out" Warning "a path in a layer that leads out of the rootfs",
    CutOff "cut-off" Warning "an archive whose end is not marked",
    Configuration "configuration" Error "a config.json that the runtime refuses",
    Command "command" Error "the image has no command",
    HealthCheck "health-check" Warning "the image has a health check",
    Empty "empty" Error "there is nothing in the rootfs",
    Hook "hook" Error "a hook that is not an executable file",
    HookName "hook-name" Warning "a file that is named almost like a hook",
    HookFormat "hook-format" Error "a hook that is neither a script nor a program",
    HookLineEnds "hook-line-ends" Error "a hook whose lines end in CR LF",
    HookFirstLine "hook-first-line" Error "a hook whose first line is longer than the kernel reads",
    HookInterpreter "hook-interpreter" Error "a hook whose interpreter the host lacks",
    HookHost "hook-host" Warning "a hook that needs something the host may lack",
    HookArchitecture "hook-architecture" Error "a hook for another processor",
    Architecture "architecture" Error "a program, library or module for another processor",
    ForeignData "foreign-data" Warning "an ELF file for another processor that nothing is seen to run",
    MountedOver "mounted-over" Warning "files in run, proc, sys or dev",
    IndexFile "index-file" Warning "an index that should cover the host's files as well",
    HostFile "host-file" Warning "a file that belongs to each host alone",
    HiddenByHost "hidden-by-host" Warning "a file that the host already has (--against)",
    TypeConflict "type-conflict" Error "a folder where the host has none, or the reverse (--against)",
    FolderMode "folder-mode" Warning "a folder with other permissions than the host's (--against)",
    Whiteout "whiteout" Warning "a whiteout",
    SetUid "setuid" Warning "a setuid or setgid file",
    Capability "capability" Warning "a file with capabilities",
    WorldWritable "world-writable" Warning "a file or folder that everybody may change",
    SpecialFile "special-file" Warning "a device, FIFO or socket",
    Owner "owner" Warning "a file that belongs to a user of the build machine",
    LinkOut "link-out" Warning "a link that leads out of the rootfs",
}

/// A name that no rule has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no rule {name:?}; the rules are {}", names())]
pub(crate) struct Unknown {
    pub(crate) name: String,
}

fn names() -> String {
    Rule::ALL.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ")
}

impl Rule {
    /// The rule of that name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn parse(name: &str) -> Result<Self, Unknown> {
        let found = Self::ALL.iter().copied().find(|rule| rule.name() == name);
        found.ok_or_else(|| Unknown { name: name.to_owned() })
    }
}

/// What breaks a rule and is accepted: everything, or what lies at or below one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) rule: Rule,
    /// Without slashes at its ends.
    pub(crate) path: Option<String>,
}

impl Allowed {
    /// Reads `RULE` or `RULE:PATH`.
    ///
    /// # Errors
    /// There is no such rule.
    pub(crate) fn parse(text: &str) -> Result<Self, Unknown> {
        let (rule, path) = match text.split_once(':') {
            Some((rule, path)) => (rule, Some(path.trim_matches('/').to_owned())),
            None => (text, None),
        };
        Ok(Self { rule: Rule::parse(rule)?, path })
    }

    /// Whether it accepts a finding of `rule` about the file at `path`.
    pub(crate) fn accepts(&self, rule: Rule, path: Option<&str>) -> bool {
        let is_at_or_below = |own: &String| {
            let rest = path.and_then(|path| path.strip_prefix(own.as_str()));
            rest.is_some_and(|rest| own.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        self.rule == rule && self.path.as_ref().is_none_or(is_at_or_below)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_by_its_name_and_a_wrong_name_is_told_the_right_ones() {
        for rule in Rule::ALL {
            assert_eq!(Rule::parse(rule.name()), Ok(*rule));
        }
        let error = Rule::parse("setuit").unwrap_err().to_string();
        assert!(error.contains("\"setuit\"") && error.contains("setuid"), "{error}");
    }

    #[test]
    fn what_is_allowed_is_a_rule_or_a_path_of_it() {
        let allowed = Allowed::parse("setuid:/usr/bin/").unwrap();
        assert_eq!(allowed.path.as_deref(), Some("usr/bin"));
        for (path, expected) in [
            (Some("usr/bin"), true),
            (Some("usr/bin/x"), true),
            (Some("usr/binx"), false),
            (Some("usr"), false),
            (None, false),
        ] {
            assert_eq!(allowed.accepts(Rule::SetUid, path), expected, "{path:?}");
            assert!(!allowed.accepts(Rule::Owner, path));
            assert!(Allowed::parse("setuid").unwrap().accepts(Rule::SetUid, path));
        }
        assert!(Allowed::parse("setuit:x").is_err());
    }

    #[test]
    fn every_rule_has_its_section_in_the_documentation() {
        let document = include_str!("../../../docs/check.md");
        for rule in Rule::ALL {
            let heading = format!("### `{}` ({})", rule.name(), rule.severity().name());
            assert!(document.contains(&heading), "docs/check.md lacks the heading {heading:?}");
        }
        let sections = document.lines().filter(|line| line.starts_with("### `")).count();
        assert_eq!(sections, Rule::ALL.len(), "docs/check.md explains a rule that is none");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct Unknown { name };
}
