//! The names of the rules, and how severe it is to break one. docs/check.md explains each.

use serde::Serialize;

/// How severe a finding is, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Never changes the exit status.
    Note,
    /// The extension may not do what the author intends.
    Warning,
    /// The extension will be refused, or will not work.
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
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub(crate) enum Rule {
            $(#[serde(rename = $name)] $rule,)*
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

            /// A description in one line.
            pub(crate) fn summary(self) -> &'static str {
                match self {
                    $(Self::$rule => $summary,)*
                }
            }
        }
    };
}

rules! {
    NoLabels "no-labels" Note "the input has no labels, so rules were not applied",
    Class "class" Error "io.balena.image.class is missing or is not overlay",
    LabelUnknown "label-unknown" Warning "an io.balena.image.* label that nothing reads",
    LabelEnvironment "label-environment" Error "a label that no environment variable can hold",
    LabelCollision "label-collision" Warning "labels or mounts that set the same variable",
    Override "override" Error "io.balena.image.override is not an integer",
    RequiresReboot "requires-reboot" Warning "a requires-reboot that is neither true nor false",
    OsVersion "os-version" Error "io.balena.image.os-version has a malformed pattern",
    OsVersionPattern "os-version-pattern" Warning "a pattern of os-version that no version matches",
    KernelVersion "kernel-version" Error "io.balena.image.kernel-version is not M.m.p",
    KernelAbi "kernel-abi" Error "io.balena.image.kernel-abi-id is not 64 lower-case hex digits",
    KernelAbiFile "kernel-abi-file" Error "no file in /boot has the hash that kernel-abi-id names",
    KernelOverride "kernel-override" Note "a kernel, which the device boots on trial",
    ModuleSymvers "module-symvers" Error "a kernel without the Module.symvers of its modules",
    BootMarker "boot-marker" Error "the file /boot/.fabricating",
    ModuleRelease "module-release" Error "modules for another kernel than the label claims",
    ModuleClaim "module-claim" Warning "kernel modules without a label for the kernel",
    Layer "layer" Error "an image that engines refuse to load",
    LayerZstd "layer-zstd" Warning "a layer that older engines cannot unpack",
    PathOut "path-out" Warning "a path in a layer that leads out of the rootfs",
    CutOff "cut-off" Warning "an export without an end mark",
    Configuration "configuration" Error "a config.json that the runtime refuses",
    Command "command" Error "the image has no command",
    HealthCheck "health-check" Warning "the image has a health check",
    Empty "empty" Error "a rootfs without files",
    Hook "hook" Error "a hook that is not an executable file",
    HookName "hook-name" Warning "a file that is named almost like a hook",
    HookFormat "hook-format" Error "a hook that is neither a script nor a program",
    HookLineEnds "hook-line-ends" Error "a hook whose lines end in CR LF",
    HookFirstLine "hook-first-line" Error "a hook whose first line is longer than the kernel reads",
    HookInterpreter "hook-interpreter" Error "a hook whose interpreter the host lacks",
    HookHost "hook-host" Warning "a hook that needs a program the host may lack",
    HookArchitecture "hook-architecture" Error "a hook for another processor",
    Architecture "architecture" Error "a program, library or module for another processor",
    ForeignData "foreign-data" Warning "data that is an ELF file for another processor",
    MountedOver "mounted-over" Warning "files in run, proc, sys or dev",
    IndexFile "index-file" Warning "an index that should list the host's files too",
    HostFile "host-file" Warning "a file that belongs to each host",
    HiddenByHost "hidden-by-host" Warning "a file that the host already has (--against)",
    TypeConflict "type-conflict" Error "a directory in place of a file, or the reverse (--against)",
    DirectoryMode "directory-mode" Warning "a directory with other permissions (--against)",
    Whiteout "whiteout" Warning "a whiteout",
    SetUid "setuid" Warning "a setuid or setgid file",
    Capability "capability" Warning "a file with capabilities",
    WorldWritable "world-writable" Warning "a file or directory that everybody can change",
    SpecialFile "special-file" Warning "a device, FIFO or socket",
    Owner "owner" Warning "a file that belongs to a user of the build machine",
    LinkOut "link-out" Warning "a link that leads out of the rootfs",
}

/// A name that is not the name of a rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown rule {name:?}; the rules are {}", names())]
pub(crate) struct UnknownRule {
    pub(crate) name: String,
}

fn names() -> String {
    Rule::ALL.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ")
}

impl Rule {
    pub(crate) fn parse(name: &str) -> Result<Self, UnknownRule> {
        let found = Self::ALL.iter().copied().find(|rule| rule.name() == name);
        found.ok_or_else(|| UnknownRule { name: name.to_owned() })
    }
}

/// Findings of a rule that are accepted: all, or those at and below one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) rule: Rule,
    /// Without slashes at either end.
    pub(crate) path: Option<String>,
}

impl Allowed {
    /// Reads `RULE` or `RULE:PATH`.
    pub(crate) fn parse(text: &str) -> Result<Self, UnknownRule> {
        let (rule, path) = match text.split_once(':') {
            Some((rule, path)) => (rule, Some(path.trim_matches('/').to_owned())),
            None => (text, None),
        };
        Ok(Self { rule: Rule::parse(rule)?, path })
    }

    /// Whether a finding of `rule` about the file at `path` is accepted.
    pub(crate) fn accepts(&self, rule: Rule, path: Option<&str>) -> bool {
        let is_at_or_below = |own: &String| {
            let rest = path.and_then(|path| path.strip_prefix(own.as_str()));
            rest.is_some_and(|rest| own.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        self.rule == rule && self.path.as_ref().is_none_or(is_at_or_below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_by_its_name_and_a_wrong_name_gets_a_list() {
        for rule in Rule::ALL {
            assert_eq!(Rule::parse(rule.name()), Ok(*rule));
        }
        let error = Rule::parse("setuit").unwrap_err().to_string();
        assert!(error.contains("\"setuit\"") && error.contains("setuid"), "{error}");
    }

    #[test]
    fn findings_are_allowed_by_rule_or_by_rule_and_path() {
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
        assert_eq!(sections, Rule::ALL.len(), "docs/check.md has a section of an unknown rule");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct UnknownRule { name };
}
