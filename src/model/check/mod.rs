//! What would go wrong with an extension, found before it is shipped: pure rules over a listing of
//! its files and over its labels. `host/image` reads both; `manager/check.rs` brings them together.
//!
//! A rule has one name and one severity for ever, because people put names into their build scripts
//! (`--allow NAME`). docs/check.md explains each; a test holds it to this list.

pub(crate) mod against;
pub(crate) mod content;
mod files;
pub(crate) mod hooks;
mod kernel;
pub(crate) mod labels;
pub(crate) mod report;
pub(crate) mod rule;
pub(crate) mod tree;

use crate::model::check::report::{Findings, Report};
use crate::model::check::rule::Rule;
use crate::model::check::tree::Tree;
use crate::model::spec::Mount;
use std::collections::BTreeMap;
use std::fmt;

/// What is checked.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    /// As it was named, with the image's own name where one archive holds several.
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) tree: Tree,
    /// `None` where there is nothing that could have labels.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) mounts: Vec<Mount>,
    /// Of an image's configuration.
    pub(crate) image: Option<Image>,
    /// Why the runtime would refuse the bundle's configuration.
    pub(crate) refusal: Option<String>,
}

/// What a check was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A rootfs as a folder.
    #[default]
    Folder,
    /// A folder with `config.json`.
    Bundle,
    /// An image: an archive, or from an engine.
    Image,
    /// The files of a container as one archive, without labels.
    Export,
}

impl Origin {
    fn noun(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Bundle => "bundle",
            Self::Image => "image",
            Self::Export => "export",
        }
    }
}

/// What an image's configuration says beside the labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// Whether there is a `Cmd` or an `Entrypoint`.
    pub(crate) has_command: bool,
    pub(crate) has_health_check: bool,
}

/// The processor that the extension is for, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// As `uname -m` says it.
    pub(crate) name: String,
    /// Half a sentence: "this machine is x86_64".
    why: String,
}

impl Machine {
    pub(crate) fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into() }
    }

    /// By the name that images and Go have for it.
    pub(crate) fn of_image(architecture: &str) -> Self {
        let name = match architecture {
            "amd64" => "x86_64",
            "386" => "i686",
            "arm64" => "aarch64",
            "arm" => "armv7l",
            other => other,
        };
        Self::new(name, format!("the image says that it is for {architecture}"))
    }

    /// Whether it runs programs for `found`. Processors with 64 bits run those of their own family
    /// with 32, and whether the host's kernel lets them cannot be known here.
    pub(crate) fn runs(&self, found: &str) -> bool {
        let smaller = matches!((self.family(), found), ("x86_64", "i686") | ("aarch64", "armv7l"));
        smaller || self.loads(found)
    }

    /// Whether its kernel loads modules for `found`: only those that were built as it was itself.
    pub(crate) fn loads(&self, found: &str) -> bool {
        self.family() == found
    }

    /// As `model/hook_failure.rs` names what an ELF file is for: by family, and some not at all.
    fn family(&self) -> &str {
        match self.name.as_str() {
            "x86_64" | "aarch64" | "riscv32" | "riscv64" | "s390x" => self.name.as_str(),
            "i386" | "i486" | "i586" | "i686" => "i686",
            "ppc" | "powerpc" => "ppc",
            name if name.starts_with("ppc64") => "ppc64le",
            name if name.starts_with("mips") => "mips",
            name if name.starts_with("arm") => "armv7l",
            _ => "another machine",
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

/// Applies every rule. `host` holds what [`against::wanted_of_host`] asked for.
pub(crate) fn check(
    subject: &Subject,
    host: Option<&Tree>,
    machine: Option<&Machine>,
    allowed: &[Rule],
) -> Report {
    let mut findings = Findings::default();
    let tree = &subject.tree;
    if let Some(why) = &subject.refusal {
        let mend = "what an engine writes is always accepted; correct what was changed by hand";
        findings.add(Rule::Configuration, why.clone(), mend);
    }
    if let Some(image) = &subject.image {
        check_image(image, &mut findings);
    }
    let claims = labels::check(subject.labels.as_ref(), &subject.mounts, &mut findings);
    hooks::check(tree, host, machine, &mut findings);
    kernel::check(tree, &claims, &mut findings);
    files::check(tree, host, machine, subject.origin, &claims, &mut findings);
    if let Some(host) = host {
        against::check(tree, host, subject.origin, &claims, &mut findings);
    }
    Report::new(subject.name.clone(), subject.origin.noun(), findings, allowed)
}

fn check_image(image: &Image, findings: &mut Findings) {
    if !image.has_command {
        let message = "the image has no command, and engines refuse to make a container of it";
        findings.add(Rule::Command, message, "add a dummy: CMD [\"none\"]; it never runs");
    }
    if image.has_health_check {
        let message = "the image has a health check, but an extension has no process to ask";
        let mend = "HEALTHCHECK NONE: every container of it would be shown as unhealthy";
        findings.add(Rule::HealthCheck, message, mend);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The names of the rules that are broken, in the order of a report.
    pub(crate) fn rules(findings: Findings) -> Vec<&'static str> {
        let report = Report::new(String::new(), "", findings, &[]);
        report.findings.iter().map(|finding| finding.rule.name()).collect()
    }

    #[test]
    fn an_image_without_a_command_or_with_a_health_check_is_told() {
        let image = Image { has_command: false, has_health_check: true };
        let labels = BTreeMap::from([("io.balena.image.class".to_owned(), "overlay".to_owned())]);
        let subject = Subject {
            origin: Origin::Image,
            tree: tree::tests::tree(&[("a", tree::tests::file(0o644, b""))]),
            labels: Some(labels),
            image: Some(image),
            ..Subject::default()
        };
        let report = check(&subject, None, None, &[]);
        let found: Vec<_> = report.findings.iter().map(|finding| finding.rule.name()).collect();
        assert_eq!(found, ["command", "health-check"]);
    }

    #[test]
    fn processors_run_the_programs_of_their_own_family() {
        assert!(Machine::of_image("amd64").runs("x86_64"));
        assert!(Machine::of_image("arm").runs("armv7l"));
        assert!(Machine::of_image("arm64").runs("armv7l"));
        assert!(!Machine::of_image("arm64").runs("x86_64"));
        assert!(Machine::new("armv6l", "x").runs("armv7l"));
        assert!(Machine::of_image("mips64le").runs("mips"));
        assert!(Machine::of_image("386").runs("i686") && !Machine::of_image("386").runs("x86_64"));
        assert!(Machine::of_image("loong64").runs("another machine"));
        assert!(!Machine::of_image("loong64").runs("x86_64"));
    }
}
