//! The findings of a check, and the report: for people as text, for programs as JSON.

use crate::check::rules::rule::{Allowed, Rule, Severity};
use crate::model::text::cause::on_one_line;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The version of the JSON. It increases when a field is removed or changes its meaning.
const SCHEMA: u32 = 1;
/// The most findings of one rule in the text.
const SHOWN: usize = 10;
/// The most findings of one rule that are kept, and the length of their texts: an image may have a million
/// files and megabytes of labels.
const KEPT: usize = 10_000;
const TEXT_MAX: usize = 2000;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CheckFinding {
    pub(crate) rule: Rule,
    pub(crate) severity: Severity,
    /// Inside the rootfs, without a leading slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    pub(crate) message: String,
    pub(crate) fix: String,
    /// Whether `--allow` accepts it.
    pub(crate) allowed: bool,
}

/// Collects findings while the rules are applied.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    kept: Vec<CheckFinding>,
    /// The number of findings by rule and whether they are allowed.
    counts: BTreeMap<(Rule, bool), usize>,
    allowed: Vec<Allowed>,
}

impl Findings {
    pub(crate) fn new(allowed: &[Allowed]) -> Self {
        Self { allowed: allowed.to_vec(), ..Self::default() }
    }

    pub(crate) fn add(&mut self, rule: Rule, message: impl Into<String>, fix: impl Into<String>) {
        self.push(rule, None, message.into(), fix.into());
    }

    pub(crate) fn add_at(
        &mut self,
        rule: Rule,
        path: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.push(rule, Some(path.to_owned()), message.into(), fix.into());
    }

    fn push(&mut self, rule: Rule, path: Option<String>, message: String, fix: String) {
        let severity = rule.severity();
        let allowed = self.allowed.iter().any(|allowed| allowed.accepts(rule, path.as_deref()));
        let count = self.counts.entry((rule, allowed)).or_default();
        *count += 1;
        if *count <= KEPT {
            let (message, fix) = (cut(message), cut(fix));
            self.kept.push(CheckFinding { rule, severity, path, message, fix, allowed });
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let is_boundary = |end: &usize| text.is_char_boundary(*end);
        text.truncate((0..=TEXT_MAX).rev().find(is_boundary).unwrap_or_default());
        text.push('…');
    }
    text
}

/// The result of checking one input.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CheckReport {
    pub(crate) subject: String,
    pub(crate) kind: &'static str,
    pub(crate) errors: usize,
    pub(crate) warnings: usize,
    pub(crate) notes: usize,
    pub(crate) allowed: usize,
    /// The number of findings that are counted, but not listed.
    pub(crate) unlisted: usize,
    /// The worst first, then by rule and path.
    pub(crate) findings: Vec<CheckFinding>,
    #[serde(skip)]
    counts: BTreeMap<(Rule, bool), usize>,
}

impl CheckReport {
    pub(crate) fn new(subject: String, kind: &'static str, findings: Findings) -> Self {
        let Findings { kept: mut findings, counts, .. } = findings;
        findings.sort_by_cached_key(|finding| {
            let CheckFinding { allowed, severity, rule, path, .. } = finding;
            (*allowed, Reverse(*severity), *rule, path.clone())
        });
        let sum = |counted: &dyn Fn(Rule, bool) -> bool| {
            let counts = counts.iter().filter(|((rule, allowed), _)| counted(*rule, *allowed));
            counts.map(|(_, count)| count).sum::<usize>()
        };
        let count =
            |severity: Severity| sum(&|rule, allowed| rule.severity() == severity && !allowed);
        Self {
            subject,
            kind,
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            allowed: sum(&|_, allowed| allowed),
            unlisted: sum(&|_, _| true).saturating_sub(findings.len()),
            findings,
            counts,
        }
    }

    /// The highest severity of the findings that are not allowed.
    pub(crate) fn worst(&self) -> Option<Severity> {
        let open = self.findings.iter().filter(|finding| !finding.allowed);
        open.map(|finding| finding.severity).max()
    }

    /// The report for people, with the first findings of each rule.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut shown = 0;
        let mut open = self.findings.iter().filter(|finding| !finding.allowed).peekable();
        while let Some(finding) = open.next() {
            shown += 1;
            if shown <= SHOWN {
                finding.write(&mut text);
            }
            if open.peek().is_none_or(|next| next.rule != finding.rule) {
                self.write_hidden(finding.rule, &mut text);
                shown = 0;
            }
        }
        let has_no_labels = self.findings.iter().any(|finding| finding.rule == Rule::NoLabels);
        let verdict = match self.worst() {
            Some(Severity::Error) => "would fail",
            Some(Severity::Warning) => "may not do what you mean",
            Some(Severity::Note) | None if has_no_labels => {
                "no errors, but the labels were not checked"
            }
            Some(Severity::Note) | None => "fine",
        };
        let allowed = match self.allowed {
            0 => String::new(),
            count => format!(", {count} allowed"),
        };
        // A formatter into a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "{} ({}): {verdict}: {}, {}, {}{allowed}",
            on_one_line(self.subject.as_str()),
            self.kind,
            counted(self.errors, "error"),
            counted(self.warnings, "warning"),
            counted(self.notes, "note"),
        );
        text
    }

    fn write_hidden(&self, rule: Rule, text: &mut String) {
        let hidden =
            self.counts.get(&(rule, false)).copied().unwrap_or_default().saturating_sub(SHOWN);
        if hidden > 0 {
            let where_else = if hidden + SHOWN > KEPT { "most" } else { "all" };
            let rule = rule.name();
            let _ =
                writeln!(text, "    and {hidden} more of [{rule}]: --format json has {where_else}");
        }
    }
}

impl CheckFinding {
    fn write(&self, text: &mut String) {
        let (severity, rule) = (self.severity.name(), self.rule.name());
        let path = self.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
        let place = on_one_line(path);
        let (message, fix) = (on_one_line(&*self.message), on_one_line(&*self.fix));
        let _ = writeln!(text, "{severity} [{rule}] {place}{message}\n    fix: {fix}");
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The reports as one JSON document.
pub(crate) fn json(reports: &[CheckReport]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct CheckDocument<'a> {
        schema: u32,
        reports: &'a [CheckReport],
    }
    let mut text = serde_json::to_string_pretty(&CheckDocument { schema: SCHEMA, reports })?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> Allowed {
        Allowed::parse(text).unwrap()
    }

    fn report(count: usize, allowed: &[Allowed]) -> CheckReport {
        let mut findings = Findings::new(allowed);
        findings.add(Rule::NoLabels, "it has no labels", "pass some");
        for index in 0..count {
            findings.add_at(Rule::SetUid, &format!("f{index:03}"), "is setuid", "chmod u-s it");
        }
        findings.add_at(Rule::Hook, "hooks/start", "bad\x1b[2J", "remove it");
        CheckReport::new("./x".to_owned(), "directory", findings)
    }

    #[test]
    fn people_see_the_worst_first_and_a_sum() {
        assert_eq!(
            report(1, &[]).text(),
            "error [hook] hooks/start: bad\\u{1b}[2J\n    fix: remove it\n\
             warning [setuid] f000: is setuid\n    fix: chmod u-s it\n\
             note [no-labels] it has no labels\n    fix: pass some\n\
             ./x (directory): would fail: 1 error, 1 warning, 1 note\n"
        );
        let text = report(12, &[allowed("hook")]).text();
        assert!(text.contains("f009") && !text.contains("f010"), "{text}");
        assert!(text.contains("and 2 more of [setuid]: --format json has all\n"), "{text}");
        assert!(text.ends_with(
            "./x (directory): may not do what you mean: 0 errors, 12 warnings, 1 note, 1 allowed\n"
        ));
    }

    #[test]
    fn a_million_findings_are_counted_but_not_kept() {
        let report = report(KEPT + 5, &[]);
        assert_eq!((report.warnings, report.unlisted), (KEPT + 5, 5));
        assert_eq!(report.findings.len(), KEPT + 2);
        assert!(report.text().contains("and 9995 more of [setuid]: --format json has most\n"));
        let mut findings = Findings::default();
        findings.add(Rule::Class, "ü".repeat(5000), "remove it");
        let report = CheckReport::new(String::new(), "", findings);
        assert_eq!(report.findings[0].message.chars().count(), TEXT_MAX / 2 + 1);
    }

    /// Also if the note is allowed: it is about what was checked, not a fault of the extension.
    #[test]
    fn an_input_without_labels_is_never_fine() {
        for allow in [&[][..], &[allowed("no-labels")]] {
            let mut findings = Findings::new(allow);
            findings.add(Rule::NoLabels, "it has no labels", "pass some");
            let text = CheckReport::new("x".to_owned(), "directory", findings).text();
            assert!(text.contains("x (directory): no errors, but the labels were not checked:"));
            assert!(!text.contains("fine"), "{text}");
        }
    }

    #[test]
    fn one_path_is_allowed_and_another_counts() {
        let report = report(2, &[allowed("hook:hooks"), allowed("setuid:f000")]);
        assert_eq!((report.errors, report.warnings, report.allowed), (0, 1, 2));
        assert_eq!(report.worst(), Some(Severity::Warning));
        // However many are allowed, the one that is not is listed.
        let mut findings = Findings::new(&[allowed("setuid:a")]);
        for index in 0..KEPT + 5 {
            findings.add_at(Rule::SetUid, &format!("a/{index}"), "is setuid", "chmod u-s it");
        }
        findings.add_at(Rule::SetUid, "b", "is setuid", "chmod u-s it");
        let report = CheckReport::new(String::new(), "", findings);
        assert_eq!(report.findings[0].path.as_deref(), Some("b"));
        assert_eq!((report.warnings, report.allowed, report.unlisted), (1, KEPT + 5, 5));
    }

    #[test]
    fn an_allowed_finding_is_kept_but_does_not_count() {
        let report = report(3, &[allowed("hook"), allowed("setuid")]);
        assert_eq!(report.worst(), Some(Severity::Note));
        assert_eq!((report.errors, report.warnings, report.allowed), (0, 0, 4));
        let json = json(&[report]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["reports"][0]["findings"][1]["rule"], "hook");
        assert_eq!(value["reports"][0]["findings"][1]["allowed"], true);
    }
}
