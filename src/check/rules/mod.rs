//! Finds before an extension ships what would go wrong with it: pure rules over a listing of its files and
//! over its labels. `check/read` reads both; `manager/check.rs` connects them.
//!
//! A rule keeps its name and severity for ever, because people write names into build scripts
//! (`--allow NAME`). docs/check.md explains each rule; a test compares it with `rule.rs`.

pub(crate) mod image_documents;
pub(crate) mod tar_header;
pub(crate) mod layer;
pub(crate) mod unpack;
pub(crate) mod tree;
pub(crate) mod rule;
pub(crate) mod content;
pub(crate) mod labels;
pub(crate) mod hooks;
mod files;
mod kernel;
pub(crate) mod machine;
pub(crate) mod against;
pub(crate) mod report;

use crate::check::rules::image_documents::Configuration;
use crate::check::rules::labels::LabelFacts;
use crate::check::rules::layer::LayerFacts;
use crate::check::rules::machine::TargetMachine;
use crate::check::rules::report::{CheckReport, Findings};
use crate::check::rules::rule::{Allowed, Rule};
use crate::check::rules::tree::FileTree;
use crate::model::container::spec::Mount;
use std::collections::BTreeMap;

/// The extension that is checked.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    /// The argument, with the image's own name if that differs.
    pub(crate) name: String,
    pub(crate) input: InputKind,
    pub(crate) tree: FileTree,
    /// `None` if the input cannot have labels.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) layers: LayerFacts,
    pub(crate) image: Option<Configuration>,
    /// Why the runtime would refuse the bundle's configuration.
    pub(crate) refusal: Option<String>,
}

/// The kind of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum InputKind {
    /// A rootfs.
    #[default]
    Directory,
    /// A directory with `config.json`.
    Bundle,
    /// An image: an archive, or from an engine.
    Image,
    /// The files of a container as one archive, without labels.
    Export,
}

impl InputKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Bundle => "bundle",
            Self::Image => "image",
            Self::Export => "export",
        }
    }
}

/// What the rules about files look at.
pub(crate) struct Files<'a> {
    pub(crate) tree: &'a FileTree,
    pub(crate) input: InputKind,
    pub(crate) claims: LabelFacts,
    /// The root filesystem of `--against`.
    pub(crate) host: Option<&'a FileTree>,
    pub(crate) machine: &'a TargetMachine,
}

/// Applies every rule. `host` has the paths of [`against::paths_on_host`].
pub(crate) fn check(
    subject: &Subject,
    host: Option<&FileTree>,
    machine: &TargetMachine,
    allowed: &[Allowed],
) -> CheckReport {
    let mut findings = Findings::new(allowed);
    if let Some(why) = &subject.refusal {
        let fix = "undo the manual changes to config.json: the runtime accepts what engines write";
        findings.add(Rule::Configuration, why.clone(), fix);
    }
    if let Some(image) = &subject.image {
        check_image(image, &mut findings);
    }
    let claims = labels::check(subject.labels.as_ref(), &subject.mounts, &mut findings);
    layer::check(&subject.layers, &mut findings);
    // A rule about files proves nothing if some files are unknown.
    if !subject.layers.is_unread {
        let Subject { tree, input, .. } = subject;
        let files = Files { tree, input: *input, claims, host, machine };
        hooks::check(&files, &mut findings);
        kernel::check(tree, &files.claims, &mut findings);
        files::check(&files, &mut findings);
        against::check(&files, &mut findings);
    }
    CheckReport::new(subject.name.clone(), subject.input.noun(), findings)
}

fn check_image(image: &Configuration, findings: &mut Findings) {
    if !image.has_command {
        let message = "the image has no command, and engines refuse to create a container from it";
        findings.add(Rule::Command, message, "add a dummy: CMD [\"/none\"]; it never runs");
    }
    if image.has_health_check {
        let message = "the image has a health check, but an extension has no process to check";
        let fix = "HEALTHCHECK NONE; otherwise every container of the image is shown as unhealthy";
        findings.add(Rule::HealthCheck, message, fix);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::LazyLock;

    static X86_64: LazyLock<TargetMachine> =
        LazyLock::new(|| TargetMachine::new("x86_64", "this machine is x86_64"));

    /// The files of an image without labels, for a host that is not known.
    pub(crate) fn files(tree: &FileTree) -> Files<'_> {
        let claims = LabelFacts::default();
        Files { tree, input: InputKind::Image, claims, host: None, machine: &X86_64 }
    }

    /// The names of the rules that are broken, in the order of a report.
    pub(crate) fn rules(findings: Findings) -> Vec<&'static str> {
        let report = CheckReport::new(String::new(), "", findings);
        report.findings.iter().map(|finding| finding.rule.name()).collect()
    }

    #[test]
    fn an_image_without_a_command_or_with_a_health_check_is_reported() {
        let config = br#"{"config":{"Healthcheck":{"Test":["CMD","x"]}}}"#;
        let image = Configuration::parse(config, "c").unwrap();
        let labels = BTreeMap::from([("io.balena.image.class".to_owned(), "overlay".to_owned())]);
        let subject = Subject {
            input: InputKind::Image,
            tree: tree::tests::tree(&[("a", tree::tests::file(0o644, b""))]),
            labels: Some(labels),
            image: Some(image),
            ..Subject::default()
        };
        let report = check(&subject, None, &X86_64, &[]);
        let found: Vec<_> = report.findings.iter().map(|finding| finding.rule.name()).collect();
        assert_eq!(found, ["command", "health-check"]);
    }
}
