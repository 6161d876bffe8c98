//! What would go wrong with an extension, found before it is shipped: pure rules over a listing of
//! its files and over its labels. `check/read` reads both; `manager/check.rs` brings them together.
//!
//! A rule has one name and one severity for ever, because people put names into their build scripts
//! (`--allow NAME`). docs/check.md explains each; a test holds it to this list.

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
mod layers;
pub(crate) mod machine;
pub(crate) mod against;
pub(crate) mod report;

use crate::check::rules::layer::LayerFacts;
use crate::check::rules::machine::Machine;
use crate::check::rules::report::{Findings, Report};
use crate::check::rules::rule::{Allowed, Rule};
use crate::check::rules::tree::Tree;
use crate::model::container::spec::Mount;
use std::collections::BTreeMap;

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
    /// Of the layers that the tree was made of.
    pub(crate) layers: LayerFacts,
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

/// Applies every rule. `host` holds what [`against::wanted_of_host`] asked for.
pub(crate) fn check(
    subject: &Subject,
    host: Option<&Tree>,
    machine: Option<&Machine>,
    allowed: &[Allowed],
) -> Report {
    let mut findings = Findings::new(allowed);
    let tree = &subject.tree;
    if let Some(why) = &subject.refusal {
        let mend = "what an engine writes is always accepted; correct what was changed by hand";
        findings.add(Rule::Configuration, why.clone(), mend);
    }
    if let Some(image) = &subject.image {
        check_image(image, &mut findings);
    }
    let claims = labels::check(subject.labels.as_ref(), &subject.mounts, &mut findings);
    layers::check(&subject.layers, &mut findings);
    // Of files that are not known whole nothing is said: each of them could be the one that is missed.
    if !subject.layers.is_unread {
        hooks::check(tree, host, machine, &mut findings);
        kernel::check(tree, &claims, &mut findings);
        files::check(tree, host, machine, subject.origin, &claims, &mut findings);
        if let Some(host) = host {
            against::check(tree, host, subject.origin, &claims, &mut findings);
        }
    }
    Report::new(subject.name.clone(), subject.origin.noun(), findings)
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
        let report = Report::new(String::new(), "", findings);
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
}
