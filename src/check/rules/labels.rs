//! Rules about the labels: their syntax, and what the runtime does with them.

use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::model::container::environment::environment;
use crate::model::container::spec::Mount;
use crate::model::extension::claim;
use crate::model::extension::glob::Glob;
use crate::model::extension::label_sources::{Lookup, Store};
use crate::model::extension::labels::{
    ABI, CLASS, IMAGE_PREFIX, KERNEL_VERSION, OS_VERSION, OVERRIDE, REQUIRES_REBOOT,
};
use crate::model::extension::role::{self, NotAnExtension};
use std::collections::BTreeMap;

/// The labels below [`IMAGE_PREFIX`] that something reads.
const KNOWN: [&str; 7] = [
    "class",
    "requires-reboot",
    "kernel-version",
    "kernel-abi-id",
    "os-version",
    "override",
    "store",
];
/// The rules that cannot be applied without labels.
pub(super) const NEED_LABELS: [Rule; 14] = [
    Rule::Class,
    Rule::LabelUnknown,
    Rule::LabelEnvironment,
    Rule::LabelCollision,
    Rule::Override,
    Rule::RequiresReboot,
    Rule::OsVersion,
    Rule::OsVersionPattern,
    Rule::KernelVersion,
    Rule::KernelAbi,
    Rule::KernelAbiFile,
    Rule::KernelOverride,
    Rule::ModuleSymvers,
    Rule::ModuleClaim,
];
/// Much shorter than the longest rootfs path of an engine, so that no label is called too long by mistake.
const SOME_ROOTFS: &str = "/var/lib/docker/overlay2/0/merged";

/// The facts about the labels that other rules need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelFacts {
    pub(crate) placement: Placement,
    /// M.m.p, if well-formed.
    pub(crate) kernel_version: Option<String>,
    /// Lower-case hex, if well-formed.
    pub(crate) kernel_abi: Option<String>,
    /// Whether there is a claim on the kernel, well-formed or not.
    pub(crate) claims_kernel: bool,
    /// Whether the labels are known at all.
    pub(crate) known: bool,
}

/// Where the boot-time overlay puts the extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Below the root filesystem: it adds files.
    #[default]
    Below,
    /// Above the root filesystem: its files replace the host's.
    Above,
}

/// Applies the rules. `None`: the input cannot have labels, such as a rootfs.
pub(crate) fn check(
    labels: Option<&BTreeMap<String, String>>,
    mounts: &[Mount],
    findings: &mut Findings,
) -> LabelFacts {
    let Some(labels) = labels else {
        let names: Vec<&str> = NEED_LABELS.iter().map(|rule| rule.name()).collect();
        let message = format!(
            "the input has no labels, so these rules were not applied: {}",
            names.join(", ")
        );
        let fix = format!(
            "check the image, or pass each label that the image will have: --label {CLASS}=overlay"
        );
        findings.add(Rule::NoLabels, message, fix);
        return LabelFacts::default();
    };
    check_class(labels, findings);
    check_names(labels, findings);
    check_environment(labels, mounts, findings);
    let value = |name: &str| labels.get(name).map(String::as_str);
    let mut facts = LabelFacts { known: true, ..LabelFacts::default() };
    if let Some(text) = value(OVERRIDE) {
        facts.placement = Placement::Above;
        if text.parse::<i64>().is_err() {
            let message = format!("{OVERRIDE}={text:?} is not an integer");
            let fix = "use a number such as 100; the extension with the lower number wins";
            findings.add(Rule::Override, message, fix);
        }
    }
    for name in REQUIRES_REBOOT {
        let known = ["", "0", "1", "false", "true", "no", "yes"];
        if let Some(text) = value(name).filter(|text| !known.contains(text)) {
            let message = format!("{name}={text:?} is neither true nor false, and counts as true");
            findings.add(Rule::RequiresReboot, message, "set it to true or false, or remove it");
        }
    }
    if let Some(Err(error)) = value(OS_VERSION).map(claim::globs) {
        let fix = "write patterns such as 5.*,6.0.[0-3]; with a malformed one, the extension would be \
                   kept on every OS";
        findings.add(Rule::OsVersion, format!("{OS_VERSION}: {error}"), fix);
    }
    for pattern in value(OS_VERSION).into_iter().flat_map(|text| text.split(',')) {
        check_pattern(pattern.trim(), findings);
    }
    facts.claims_kernel = value(KERNEL_VERSION).is_some() || value(ABI).is_some();
    facts.kernel_version = value(KERNEL_VERSION).and_then(|text| kernel_version(text, findings));
    facts.kernel_abi = value(ABI).and_then(|text| kernel_abi(text, findings));
    facts
}

/// The runtime's own decision. The message differs, because the runtime's names the annotations of a
/// container and the engine's data directory.
fn check_class(labels: &BTreeMap<String, String>, findings: &mut Findings) {
    let nowhere = || Lookup::Absent { path: String::new(), store: Store::Unknown };
    let role = role::of_annotations(labels);
    let message = match role.unwrap_or_else(|| role::of_store(labels.len(), nowhere())) {
        Ok(_) => return,
        Err(NotAnExtension::ClassMissing { .. }) => match labels.len() {
            0 => format!("missing required label {CLASS}: there are no labels"),
            count => format!("missing required label {CLASS} (other labels: {count})"),
        },
        Err(error @ NotAnExtension::ClassUnsupported { .. }) => error.to_string(),
    };
    findings.add(Rule::Class, message, format!("LABEL {CLASS}=overlay"));
}

fn check_names(labels: &BTreeMap<String, String>, findings: &mut Findings) {
    for name in labels.keys() {
        if name.strip_prefix(IMAGE_PREFIX).is_some_and(|rest| !KNOWN.contains(&rest)) {
            let fix = format!(
                "rename it if it should be one of {}; if one of your hooks reads it, pass --allow \
                 label-unknown; otherwise remove it",
                KNOWN.join(", ")
            );
            findings.add(Rule::LabelUnknown, format!("nothing reads the label {name:?}"), fix);
        }
    }
}

/// Builds the environment that the runtime would build.
fn check_environment(labels: &BTreeMap<String, String>, mounts: &[Mount], findings: &mut Findings) {
    match environment(SOME_ROOTFS, labels, mounts) {
        Ok(environment) => {
            for name in environment.collisions {
                let message = format!("more than one label or mount sets {name} for the hooks");
                let fix = "rename one of them: the last one wins";
                findings.add(Rule::LabelCollision, message, fix);
            }
        }
        Err(error) => {
            let fix = "rename or shorten the label: the runtime would refuse the container";
            findings.add(Rule::LabelEnvironment, error.to_string(), fix);
        }
    }
}

/// Finds a pattern that is well-formed but matches no version, such as a range.
fn check_pattern(pattern: &str, findings: &mut Findings) {
    let Ok(glob) = Glob::parse(pattern) else { return };
    let odd = |letter: &char| letter.is_whitespace() || "<>=^~|{}();\"'/&!@#$%".contains(*letter);
    let is_x = |part: &str| part.eq_ignore_ascii_case("x");
    let why = match glob.literals().find(odd) {
        Some(letter) => format!("no version contains {letter:?}"),
        None if pattern.split('.').any(is_x) => "x matches only itself, not any number".to_owned(),
        None => return,
    };
    let message = format!("{OS_VERSION}: the pattern {pattern:?} matches no version: {why}");
    let fix = "write globs, separated by commas: 2.119.*,2.12[0-9].*; ranges are not supported";
    findings.add(Rule::OsVersionPattern, message, fix);
}

fn kernel_version(text: &str, findings: &mut Findings) -> Option<String> {
    // Everything up to the first dash is compared, also what follows the third number: 6.12.47+rpt.
    let is_digit = |letter: char| letter.is_ascii_digit();
    let is_number = |part: &str| !part.is_empty() && part.chars().all(is_digit);
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    let begins = matches!(parts[..], [major, minor, rest]
        if is_number(major) && is_number(minor) && rest.starts_with(is_digit));
    let odd = |letter: char| letter == '-' || letter == '/' || letter.is_whitespace();
    if begins && !text.contains(odd) {
        return Some(text.to_owned());
    }
    let fix = match text.split_once('-') {
        Some((release, _)) => format!("use {release:?}: only the part before the first dash"),
        None => "use the output of uname -r up to its first dash: 6.1.83, or 6.12.47+rpt".into(),
    };
    let message = format!("{KERNEL_VERSION}={text:?} is not a kernel release up to its first dash");
    findings.add(Rule::KernelVersion, message, fix);
    None
}

fn kernel_abi(text: &str, findings: &mut Findings) -> Option<String> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(digit) {
        return Some(text.to_owned());
    }
    let why = match text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true if text.len() == 64 => "it has upper-case letters".to_owned(),
        true => format!("it has {} digits", text.len()),
        false => "it has other characters".to_owned(),
    };
    let start: String = text.chars().take(80).collect();
    let message = format!("{ABI}={start:?} is not 64 lower-case hex digits: {why}");
    findings.add(Rule::KernelAbi, message, "use the output of sha256sum for the kernel image");
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::report::CheckReport;
    use crate::check::rules::tests::rules;
    use std::collections::BTreeMap;

    fn apply(pairs: &[(&str, &str)]) -> (LabelFacts, Vec<&'static str>) {
        let mut labels: BTreeMap<String, String> = pairs
            .iter()
            .map(|(name, text)| (format!("io.balena.{name}"), (*text).to_owned()))
            .collect();
        labels.entry(CLASS.to_owned()).or_insert_with(|| "overlay".to_owned());
        let mut findings = Findings::default();
        let facts = check(Some(&labels), &[], &mut findings);
        (facts, rules(findings))
    }

    #[test]
    fn each_label_has_its_grammar() {
        let abi = "0123456789abcdef".repeat(4);
        for (name, text, expected) in [
            ("image.class", "overlay", vec![]),
            ("image.class", "volume", vec!["class"]),
            ("image.override", "-5", vec![]),
            ("image.override", "high", vec!["override"]),
            ("image.override", "", vec!["override"]),
            ("image.override", "1.5", vec!["override"]),
            ("image.requires-reboot", "true", vec![]),
            ("update.requires-reboot", "no", vec![]),
            ("update.requires-reboot", "maybe", vec!["requires-reboot"]),
            ("update.requires-reboot", "False", vec!["requires-reboot"]),
            ("image.os-version", "5.*,6.0.[0-3]", vec![]),
            ("image.os-version", "5.[", vec!["os-version"]),
            ("image.os-version", "2.119.x", vec!["os-version-pattern"]),
            ("image.os-version", ">=2.119.0", vec!["os-version-pattern"]),
            ("image.os-version", "^2.119", vec!["os-version-pattern"]),
            ("image.os-version", "2.{118,119}.*", vec!["os-version-pattern"; 2]),
            ("image.os-version", "2.119.* 2.120.*", vec!["os-version-pattern"]),
            ("image.os-version", " 2.119.* , 2.12[^5].*", vec![]),
            ("image.os-version", "2.119.4+rev1,2024.1.1,x86-*", vec![]),
            ("image.kernel-version", "6.1.83", vec![]),
            ("image.kernel-version", "6.12.47+rpt", vec![]),
            ("image.kernel-version", "6.1.21+", vec![]),
            ("image.kernel-version", "5.15.153.1", vec![]),
            ("image.kernel-version", "6.6.30_1", vec![]),
            ("image.kernel-version", "6.1.83 ", vec!["kernel-version"]),
            ("image.kernel-version", "6..1", vec!["kernel-version"]),
            ("image.kernel-version", "6.1.83-yocto", vec!["kernel-version"]),
            ("image.kernel-version", "6.1", vec!["kernel-version"]),
            ("image.kernel-version", "6.1.x", vec!["kernel-version"]),
            ("image.kernel-abi-id", &abi, vec![]),
            ("image.kernel-abi-id", &abi.to_uppercase(), vec!["kernel-abi"]),
            ("image.kernel-abi-id", abi.trim_start_matches('0'), vec!["kernel-abi"]),
            ("image.kernel-abi-id", "x", vec!["kernel-abi"]),
            ("image.kernel_version", "6.1.83", vec!["label-unknown"]),
            ("image.kernel-abi", "x", vec!["label-unknown"]),
            ("image.a=b", "x", vec!["label-environment", "label-unknown"]),
            ("service-name", "x", vec![]),
        ] {
            assert_eq!(apply(&[(name, text)]).1, expected, "{name}={text}");
        }
        let both = [("image.kernel-version", "6.1.83"), ("image.kernel_version", "1")];
        assert_eq!(apply(&both).1, ["label-unknown", "label-collision"]);
    }

    #[test]
    fn what_is_well_formed_is_a_claim() {
        let (facts, _) = apply(&[("image.kernel-version", "6.1"), ("image.override", "1")]);
        assert_eq!(facts.placement, Placement::Above);
        assert!(facts.claims_kernel && facts.kernel_version.is_none() && facts.known);
        let (facts, _) = apply(&[("image.kernel-version", "6.1.83")]);
        assert_eq!(facts.kernel_version.as_deref(), Some("6.1.83"));
    }

    #[test]
    fn without_labels_there_is_a_note_and_with_others_an_error() {
        let mut findings = Findings::default();
        assert_eq!(check(None, &[], &mut findings), LabelFacts::default());
        let none = BTreeMap::new();
        check(Some(&none), &[], &mut findings);
        let other = BTreeMap::from([("maintainer".to_owned(), "x".to_owned())]);
        check(Some(&other), &[], &mut findings);
        assert_eq!(rules(findings), ["class", "class", "no-labels"]);
    }

    #[test]
    fn without_labels_every_rule_that_needs_them_is_named() {
        let mut findings = Findings::default();
        check(None, &[], &mut findings);
        let report = CheckReport::new(String::new(), "", findings);
        let note = &report.findings[0];
        assert!(note.fix.contains("--label io.balena.image.class=overlay"), "{note:?}");
        for rule in NEED_LABELS {
            assert!(note.message.contains(rule.name()), "{note:?}");
        }
        let of_labels = Rule::Class..=Rule::KernelAbi;
        for rule in Rule::ALL.iter().filter(|rule| of_labels.contains(rule)) {
            assert!(NEED_LABELS.contains(rule), "{rule:?}");
        }
    }
}
