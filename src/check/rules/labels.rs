//! Rules about the labels: their grammar, and what the runtime makes of them.

use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;
use crate::model::container::environment::environment;
use crate::model::container::spec::Mount;
use crate::model::extension::claim;
use crate::model::extension::glob::Glob;
use crate::model::extension::label_sources::{Lookup, Store};
use crate::model::extension::labels::{
    ABI, CLASS, KERNEL_VERSION, OS_VERSION, OVERRIDE, REQUIRES_REBOOT,
};
use crate::model::extension::role::{self, NotAnExtension};
use std::collections::BTreeMap;

const PREFIX: &str = "io.balena.image.";
/// The labels below [`PREFIX`] that something reads.
const KNOWN: [&str; 7] = [
    "class",
    "requires-reboot",
    "kernel-version",
    "kernel-abi-id",
    "os-version",
    "override",
    "store",
];
/// The longest rootfs path that an engine hands over is far below this.
const SOME_ROOTFS: &str = "/var/lib/docker/overlay2/0/merged";

/// What the labels say, as far as other rules need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) layering: Layering,
    /// M.m.p, if well-formed.
    pub(crate) kernel_version: Option<String>,
    /// Lower-case hex, if well-formed.
    pub(crate) kernel_abi: Option<String>,
    /// Whether there is any claim on the kernel, well-formed or not.
    pub(crate) claims_kernel: bool,
    /// Whether there were labels to look at.
    pub(crate) known: bool,
}

/// Where the boot-time overlay puts the extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layering {
    /// Below the root filesystem: it adds files.
    #[default]
    Below,
    /// Above it: its files win.
    Above,
}

/// Applies the rules. `None`: what was given has no labels, as a folder has none.
pub(crate) fn check(
    labels: Option<&BTreeMap<String, String>>,
    mounts: &[Mount],
    findings: &mut Findings,
) -> Claims {
    let Some(labels) = labels else {
        let mend = "check the image instead, or give the labels: --label NAME=VALUE";
        findings.add(Rule::NoLabels, "the labels are unknown and were not checked", mend);
        return Claims::default();
    };
    check_class(labels, findings);
    check_names(labels, findings);
    check_environment(labels, mounts, findings);
    let value = |name: &str| labels.get(name).map(String::as_str);
    let mut claims = Claims { known: true, ..Claims::default() };
    if let Some(text) = value(OVERRIDE) {
        claims.layering = Layering::Above;
        if text.parse::<i64>().is_err() {
            let message = format!("{OVERRIDE}={text:?} is not an integer");
            findings.add(Rule::Override, message, "give a number such as 100; the lower one wins");
        }
    }
    for name in REQUIRES_REBOOT {
        let known = ["", "0", "1", "false", "true", "no", "yes"];
        if let Some(text) = value(name).filter(|text| !known.contains(text)) {
            let message = format!("{name}={text:?} is neither true nor false, and counts as true");
            findings.add(Rule::RequiresReboot, message, "say true or false, or leave it out");
        }
    }
    if let Some(Err(error)) = value(OS_VERSION).map(claim::globs) {
        let mend = "as it is, no OS update ever makes the extension stale; write patterns such as \
                    5.*,6.0.[0-3]";
        findings.add(Rule::OsVersion, format!("{OS_VERSION}: {error}"), mend);
    }
    for pattern in value(OS_VERSION).into_iter().flat_map(|text| text.split(',')) {
        check_pattern(pattern.trim(), findings);
    }
    claims.claims_kernel = value(KERNEL_VERSION).is_some() || value(ABI).is_some();
    claims.kernel_version = value(KERNEL_VERSION).and_then(|text| kernel_version(text, findings));
    claims.kernel_abi = value(ABI).and_then(|text| kernel_abi(text, findings));
    claims
}

/// The decision of the runtime itself; for an image the words are others, since it names the
/// annotations and the store of a container.
fn check_class(labels: &BTreeMap<String, String>, findings: &mut Findings) {
    let mend = format!("LABEL {CLASS}=overlay");
    let nowhere = || Lookup::Absent { path: String::new(), store: Store::Unknown };
    match role::role(labels, nowhere) {
        Ok(_) => {}
        Err(NotAnExtension::ClassMissing { .. }) => {
            let message = match labels.len() {
                0 => format!("missing required label {CLASS}: there are no labels"),
                count => format!("missing required label {CLASS} among {count} other(s)"),
            };
            findings.add(Rule::Class, message, mend);
        }
        Err(error @ NotAnExtension::ClassUnsupported { .. }) => {
            findings.add(Rule::Class, error.to_string(), mend);
        }
    }
}

fn check_names(labels: &BTreeMap<String, String>, findings: &mut Findings) {
    for name in labels.keys() {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if KNOWN.contains(&rest) {
            continue;
        }
        let plain = |text: &str| text.to_lowercase().replace(['_', '.', ' '], "-");
        let meant = KNOWN.iter().find(|known| distance(&plain(rest), known) <= 2);
        let message = format!("nothing reads the label {name:?}");
        match meant {
            Some(meant) => findings.add(
                Rule::LabelUnknown,
                format!("{message}; {PREFIX}{meant} is a label"),
                format!("rename it to {PREFIX}{meant}, unless a hook of yours reads it"),
            ),
            None => findings.add(
                Rule::LabelUnknown,
                message,
                "if a hook of yours reads it, --allow label-unknown; otherwise remove it",
            ),
        }
    }
}

/// How many letters must be changed, added or removed to make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        let mut next = vec![before];
        for (other, above) in right.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(letter != *other);
            before = replaced.min(above + 1).min(before + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// The environment that the runtime would build.
fn check_environment(labels: &BTreeMap<String, String>, mounts: &[Mount], findings: &mut Findings) {
    match environment(SOME_ROOTFS, labels, mounts) {
        Ok(environment) => {
            for name in environment.collisions {
                let message = format!("more than one label or mount sets {name} for the hooks");
                findings.add(Rule::LabelCollision, message, "rename one: the last one wins");
            }
        }
        Err(error) => {
            let mend = "rename or shorten it: the runtime refuses the container";
            findings.add(Rule::LabelEnvironment, error.to_string(), mend);
        }
    }
}

/// A pattern that is well-formed and matches no version, as ranges do.
fn check_pattern(pattern: &str, findings: &mut Findings) {
    let Ok(glob) = Glob::parse(pattern) else { return };
    let odd = |letter: &char| letter.is_whitespace() || "<>=^~|{}();\"'/&!@#$%".contains(*letter);
    let is_x = |part: &str| part.eq_ignore_ascii_case("x");
    let why = match glob.literals().find(odd) {
        Some(letter) => format!("no version has the character {letter:?}"),
        None if pattern.split('.').any(is_x) => {
            "x stands for itself, not for any number".to_owned()
        }
        None => return,
    };
    let meant: Vec<&str> =
        pattern.split('.').map(|part| if is_x(part) { "*" } else { part }).collect();
    let mend = match pattern.contains(|letter| odd(&letter)) {
        false => format!("write {}", meant.join(".")),
        true => {
            "these are globs, with commas between: 2.119.*,2.12[0-9].*; a range has no other way"
                .to_owned()
        }
    };
    let message = format!("{OS_VERSION}: the pattern {pattern:?} matches no version: {why}");
    findings.add(Rule::OsVersionPattern, message, mend);
}

fn kernel_version(text: &str, findings: &mut Findings) -> Option<String> {
    // What follows the third number, up to the first dash, is compared too: 6.12.47+rpt.
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut parts = text.splitn(3, '.');
    let number =
        |part: Option<&str>| part.is_some_and(|it| !it.is_empty() && digits(it) == it.len());
    let begins = number(parts.next()) && number(parts.next());
    let third = parts.next().is_some_and(|part| digits(part) > 0);
    let odd = |letter: char| letter == '-' || letter == '/' || letter.is_whitespace();
    if begins && third && !text.contains(odd) {
        return Some(text.to_owned());
    }
    let mend = match text.split_once('-') {
        Some((release, _)) => format!("{release:?}: it is compared up to the first dash"),
        None => "what uname -r says up to its first dash: 6.1.83, or 6.12.47+rpt".to_owned(),
    };
    findings.add(
        Rule::KernelVersion,
        format!("{KERNEL_VERSION}={text:?} is not what stands before the first dash of a release"),
        mend,
    );
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
    let shown: String = text.chars().take(80).collect();
    let message = format!("{ABI}={shown:?} is not 64 lower-case hex digits: {why}");
    findings.add(Rule::KernelAbi, message, "the output of sha256sum for the kernel image");
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;
    use std::collections::BTreeMap;

    fn apply(pairs: &[(&str, &str)]) -> (Claims, Vec<&'static str>) {
        let mut labels: BTreeMap<String, String> = pairs
            .iter()
            .map(|(name, text)| (format!("io.balena.{name}"), (*text).to_owned()))
            .collect();
        labels.entry(CLASS.to_owned()).or_insert_with(|| "overlay".to_owned());
        let mut findings = Findings::default();
        let claims = check(Some(&labels), &[], &mut findings);
        (claims, rules(findings))
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
        let (claims, _) = apply(&[("image.kernel-version", "6.1"), ("image.override", "1")]);
        assert_eq!(claims.layering, Layering::Above);
        assert!(claims.claims_kernel && claims.kernel_version.is_none() && claims.known);
        let (claims, _) = apply(&[("image.kernel-version", "6.1.83")]);
        assert_eq!(claims.kernel_version.as_deref(), Some("6.1.83"));
    }

    #[test]
    fn without_labels_there_is_a_note_and_with_others_an_error() {
        let mut findings = Findings::default();
        assert_eq!(check(None, &[], &mut findings), Claims::default());
        let none = BTreeMap::new();
        check(Some(&none), &[], &mut findings);
        let other = BTreeMap::from([("maintainer".to_owned(), "x".to_owned())]);
        check(Some(&other), &[], &mut findings);
        assert_eq!(rules(findings), ["class", "class", "no-labels"]);
    }

    #[test]
    fn a_typing_error_is_a_few_letters_away() {
        assert_eq!(distance("kernel-abi", "kernel-abi-id"), 3);
        assert_eq!(distance("overide", "override"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
