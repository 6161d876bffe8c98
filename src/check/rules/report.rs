//! What a check found, and how it is told: to people, and to programs as JSON.

use crate::check::rules::rule::{Allowed, Rule, Severity};
use crate::model::text::cause::on_one_line;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The version of the JSON. It grows when a field changes its meaning or goes; fields may be added.
const SCHEMA: u32 = 1;
/// How many findings of one rule people are shown.
const SHOWN: usize = 10;
/// How many findings of one rule are kept, and how long their texts may be: an image may have a
/// million files and megabytes of labels.
const KEPT: usize = 10_000;
const TEXT_MAX: usize = 2000;

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    pub(crate) severity: Severity,
    /// Inside the rootfs, without a leading slash; absent where no file is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) mend: String,
    /// Whether `--allow` names the rule.
    pub(crate) allowed: bool,
}

/// Collects findings while the rules are applied.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    kept: Vec<Finding>,
    /// How many there are of each rule, those apart that are allowed.
    counts: BTreeMap<(Rule, bool), usize>,
    allowed: Vec<Allowed>,
}

impl Findings {
    /// None yet, and what will be accepted.
    pub(crate) fn new(allowed: &[Allowed]) -> Self {
        Self { allowed: allowed.to_vec(), ..Self::default() }
    }

    /// A finding about no file in particular.
    pub(crate) fn add(&mut self, rule: Rule, message: impl Into<String>, mend: impl Into<String>) {
        self.push(rule, None, message.into(), mend.into());
    }

    /// A finding about the file at `path`.
    pub(crate) fn add_at(
        &mut self,
        rule: Rule,
        path: &str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.push(rule, Some(path.to_owned()), message.into(), mend.into());
    }

    fn push(&mut self, rule: Rule, path: Option<String>, message: String, mend: String) {
        let severity = rule.severity();
        let allowed = self.allowed.iter().any(|allowed| allowed.accepts(rule, path.as_deref()));
        let count = self.counts.entry((rule, allowed)).or_default();
        *count += 1;
        if *count <= KEPT {
            let (message, mend) = (brief(message), brief(mend));
            self.kept.push(Finding { rule, severity, path, message, mend, allowed });
        }
    }

    /// The paths of the findings of one rule.
    #[cfg(test)]
    pub(crate) fn of(&self, rule: Rule) -> impl Iterator<Item = Option<&str>> {
        self.kept.iter().filter(move |it| it.rule == rule).map(|it| it.path.as_deref())
    }
}

fn brief(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let is_boundary = |end: &usize| text.is_char_boundary(*end);
        text.truncate((0..=TEXT_MAX).rev().find(is_boundary).unwrap_or_default());
        text.push('…');
    }
    text
}

/// What was checked and what was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// What was given, as its reader calls it.
    pub(crate) subject: String,
    pub(crate) kind: &'static str,
    pub(crate) errors: usize,
    pub(crate) warnings: usize,
    pub(crate) notes: usize,
    pub(crate) allowed: usize,
    /// How many findings are counted and not listed: 10,000 of a rule are.
    pub(crate) unlisted: usize,
    /// The worst first, then by rule and path.
    pub(crate) findings: Vec<Finding>,
    #[serde(skip)]
    counts: BTreeMap<(Rule, bool), usize>,
}

impl Report {
    /// Sorts the findings and counts them.
    pub(crate) fn new(subject: String, kind: &'static str, findings: Findings) -> Self {
        let Findings { kept: mut findings, counts, .. } = findings;
        findings.sort_by(|left, right| {
            let key = |finding: &Finding| (finding.allowed, std::cmp::Reverse(finding.severity));
            (key(left), left.rule, &left.path).cmp(&(key(right), right.rule, &right.path))
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

    /// The worst that was found and not allowed.
    pub(crate) fn worst(&self) -> Option<Severity> {
        let open = self.findings.iter().filter(|finding| !finding.allowed);
        open.map(|finding| finding.severity).max()
    }

    /// The report for people. Of many findings of one rule the first are shown.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut shown = 0;
        let mut open = self.findings.iter().filter(|finding| !finding.allowed).peekable();
        while let Some(finding) = open.next() {
            shown += 1;
            if shown <= SHOWN {
                finding.tell(&mut text);
            }
            if open.peek().is_none_or(|next| next.rule != finding.rule) {
                self.more(finding.rule, &mut text);
                shown = 0;
            }
        }
        let verdict = match self.worst() {
            Some(Severity::Error) => "would fail",
            Some(Severity::Warning) => "may not do what you mean",
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

    /// How many findings of `rule` were not shown.
    fn more(&self, rule: Rule, text: &mut String) {
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

impl Finding {
    fn tell(&self, text: &mut String) {
        let severity = self.severity.name();
        let place = match &self.path {
            Some(path) => format!("{}: ", on_one_line(path.as_str())),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "{severity} [{}] {place}{}",
            self.rule.name(),
            on_one_line(self.message.as_str())
        );
        let _ = writeln!(text, "    {}", on_one_line(self.mend.as_str()));
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The reports as JSON, one document.
///
/// # Errors
/// None that is known: there is no map with other keys than strings in it.
pub(crate) fn json(reports: &[Report]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: u32,
        reports: &'a [Report],
    }
    let mut text = serde_json::to_string_pretty(&Document { schema: SCHEMA, reports })?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> Allowed {
        Allowed::parse(text).unwrap()
    }

    fn report(count: usize, allowed: &[Allowed]) -> Report {
        let mut findings = Findings::new(allowed);
        findings.add(Rule::NoLabels, "it has no labels", "give some");
        for index in 0..count {
            findings.add_at(Rule::SetUid, &format!("f{index:03}"), "is setuid", "chmod u-s it");
        }
        findings.add_at(Rule::Hook, "hooks/start", "bad\x1b[2J", "mend it");
        Report::new("./x".to_owned(), "folder", findings)
    }

    #[test]
    fn people_see_the_worst_first_and_a_sum() {
        assert_eq!(
            report(1, &[]).text(),
            "error [hook] hooks/start: bad\\u{1b}[2J\n    mend it\n\
             warning [setuid] f000: is setuid\n    chmod u-s it\n\
             note [no-labels] it has no labels\n    give some\n\
             ./x (folder): would fail: 1 error, 1 warning, 1 note\n"
        );
        let text = report(12, &[allowed("hook")]).text();
        assert!(text.contains("f009") && !text.contains("f010"), "{text}");
        assert!(text.contains("and 2 more of [setuid]: --format json has all\n"), "{text}");
        assert!(text.ends_with(
            "./x (folder): may not do what you mean: 0 errors, 12 warnings, 1 note, 1 allowed\n"
        ));
    }

    #[test]
    fn a_million_findings_are_counted_and_not_kept() {
        let report = report(KEPT + 5, &[]);
        assert_eq!((report.warnings, report.unlisted), (KEPT + 5, 5));
        assert_eq!(report.findings.len(), KEPT + 2);
        assert!(report.text().contains("and 9995 more of [setuid]: --format json has most\n"));
        let mut findings = Findings::default();
        findings.add(Rule::Class, "ü".repeat(5000), "mend it");
        let report = Report::new(String::new(), "", findings);
        assert_eq!(report.findings[0].message.chars().count(), TEXT_MAX / 2 + 1);
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
        let report = Report::new(String::new(), "", findings);
        assert_eq!(report.findings[0].path.as_deref(), Some("b"));
        assert_eq!((report.warnings, report.allowed, report.unlisted), (1, KEPT + 5, 5));
    }

    #[test]
    fn what_is_allowed_is_kept_and_does_not_count() {
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
