//! The entry points for the parsers of the manager: what the host and an image say.

use super::glob_grammar;
use super::{assert_no_prefix, assert_one_line, assert_printable};
use crate::check::read::archive;
use crate::check::rules::rule::{Allowed, Rule};
use crate::check::rules::{self, machine::TargetMachine, report};
use crate::model::container::deploy_record::{
    DeployRecord, HookOutput, MountNamespace, RecordedCall,
};
use crate::model::extension::claim::{Claims, Judgement, Running, globs};
use crate::model::extension::glob::Glob;
use crate::model::extension::labels::OS_VERSION;
use crate::model::kernel::mounts::MountedOverlays;
use crate::model::kernel::os_release;

/// An `os-version` label and the running version, with a NUL between (`model/extension/glob.rs`,
/// `model/extension/claim.rs`).
pub fn os_version(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (label, version) = text.split_once('\0').unwrap_or((&text, "2.113.4"));
    let patterns: Vec<&str> =
        label.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
    let mut documented = Some(false);
    for pattern in &patterns {
        let expected = glob_grammar::matches(pattern, version);
        documented = documented.and_then(|sofar| Some(sofar | expected?));
        match Glob::parse(pattern) {
            // A star is not tried again behind a later one, which shows when a class takes a `/`.
            Ok(glob) if !(version.contains('/') && pattern.contains('[')) => {
                assert_eq!(Some(glob.matches(version)), expected, "{pattern:?} on {version:?}");
            }
            Ok(_) => assert!(expected.is_some(), "{pattern:?}"),
            Err(error) => {
                assert_eq!(expected, None, "{pattern:?}");
                assert_one_line(&error);
            }
        }
    }
    assert_eq!(globs(label).is_ok(), documented.is_some());
    let running = Running { os_version: Ok(version.to_owned()), ..unread() };
    let claims = Claims::of(|name| (name == OS_VERSION).then_some(label));
    let judgement = claims.judge(&running);
    match documented {
        // Absent, empty or malformed keeps.
        None => assert_eq!(judgement, Judgement::Unclaimed),
        Some(_) if patterns.is_empty() => assert_eq!(judgement, Judgement::Unclaimed),
        Some(_) if version.contains('/') => {}
        Some(true) => assert_eq!(judgement, Judgement::Holds),
        Some(false) => assert!(matches!(judgement, Judgement::Violated(_))),
    }
}

fn unread() -> Running {
    let why = || Err("it was not read".to_owned());
    Running { kernel_release: why(), abi: Err("it was not read".to_owned()), os_version: why() }
}

/// os-release(5) (`model/kernel/os_release.rs`): as it is; and as a value that is written as the page says.
pub fn os_release(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(version) = os_release::version_id(&text) {
        assert!(!version.is_empty() && !version.contains('\n'));
        let assigned = text.lines().rfind(|line| line.trim().starts_with("VERSION_ID="));
        let assigned = assigned.expect("a version comes from somewhere");
        // It is the value without quotes and nothing else.
        let mut left = assigned.chars();
        assert!(version.chars().all(|wanted| left.any(|found| found == wanted)));
        let raw = assigned.trim().split_once('=').expect("it was assigned").1;
        let none_of: &[char] = match raw.chars().next() {
            _ if raw.contains('\\') => &[],
            Some('"') => &['"'],
            Some('\'') => &['\''],
            Some(_) | None => &['"', '\'', ' ', '\t'],
        };
        assert!(!version.contains(none_of), "{assigned:?}");
    }
    let value: String = text.chars().filter(|found| !found.is_control()).collect();
    let escaped: String = value.chars().flat_map(escape).collect();
    let mut forms = vec![format!("VERSION_ID=\"{escaped}\"")];
    if !value.contains('\'') {
        forms.push(format!("VERSION_ID='{value}'"));
    }
    if value.chars().all(|found| found.is_ascii_alphanumeric() || "._+-~^:".contains(found)) {
        forms.push(format!("VERSION_ID={value}"));
    }
    let expected = Some(value).filter(|value| !value.is_empty());
    for form in forms {
        let file = format!("VERSION_ID=0\nID=\"balena-os\"\n{form}\nVERSION=\"x\"\n");
        assert_eq!(os_release::version_id(&file), expected, "{form:?}");
    }
}

/// Shell special characters have a backslash before them.
fn escape(found: char) -> impl Iterator<Item = char> {
    let quote = matches!(found, '"' | '$' | '`' | '\\').then_some('\\');
    quote.into_iter().chain([found])
}

/// `/proc/mounts` (`model/kernel/mounts.rs`).
pub fn mounts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read = MountedOverlays::parse(&text);
    let named = &read.overlays;
    let overlays = || {
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.filter(|fields| fields.len() > 3 && fields[2] == "overlay")
    };
    assert_eq!(named.root, overlays().any(|fields| fields[1] == "/"));
    for layer in &named.layers {
        assert!(!layer.is_empty() && !layer.contains(['/', ' ', ',', ':']), "{layer:?}");
        let is_named = |fields: Vec<&str>| {
            let below = |last: &str| fields[3].contains(&format!("{layer}/{last}"));
            below("diff") || below("merged") || below("_data")
        };
        assert!(overlays().any(is_named), "{layer:?}");
    }
    // A mount of anything else tells nothing, wherever it stands, nor does an engine's own.
    let other = format!(
        "/dev/x /boot ext4 rw,lowerdir=/a/overlay2/zz/diff 0 0\n\
         overlay /d/overlay2/yy/merged overlay rw,lowerdir=/d/overlay2/xx/diff 0 0\n{text}"
    );
    assert_eq!(MountedOverlays::parse(&other), read);
}

/// The record of a deploy (`model/container/deploy_record.rs`), and what a hook printed in one.
pub fn deploy_record(bytes: &[u8]) {
    let heard = HookOutput::new("hooks/start", bytes, MountNamespace::Host);
    let step = RecordedCall {
        verb: "start".to_owned(),
        time: "2026-01-02T03:04:05Z".to_owned(),
        error: Some(String::from_utf8_lossy(bytes).into_owned()),
        refused: None,
        warnings: vec![String::from_utf8_lossy(bytes).into_owned(); 20],
        hooks: vec![heard; 20],
    };
    let known = match DeployRecord::parse(bytes) {
        Ok(known) => {
            assert_no_prefix(bytes, |prefix| DeployRecord::parse(prefix).is_ok());
            Some(known)
        }
        Err(error) => {
            assert_one_line(&error);
            None
        }
    };
    let id = known.as_ref().map(|known| known.id.clone()).unwrap_or_default();
    for record in [known.clone(), Some(DeployRecord::after(known, &id, step))].into_iter().flatten()
    {
        let written = record.to_bytes().expect("a record is JSON");
        assert_eq!(DeployRecord::parse(&written).expect("what was written is read"), record);
        assert_no_prefix(&written, |prefix| DeployRecord::parse(prefix).is_ok());
        let last = record.last_error().map(|(verb, _)| verb.to_owned());
        assert!(last.is_none_or(|verb| verb != "delete"));
    }
}

/// An archive of an image (`check/read/archive.rs`, `check/rules/image_documents.rs`), and every rule of `check` for
/// what is in it.
pub fn image_archive(bytes: &[u8]) {
    let subjects = match archive::read(bytes) {
        Ok(subjects) => subjects,
        Err(error) => return assert_one_line(&error),
    };
    let machine = TargetMachine::new("x86_64", "this machine is x86_64");
    let allowed = |rule: &Rule| Allowed { rule: *rule, path: None };
    let everything: Vec<Allowed> = Rule::ALL.iter().map(allowed).collect();
    for subject in subjects {
        for (path, _) in subject.tree.iter() {
            let inside = |part: &str| !matches!(part, "" | "." | "..");
            assert!(path.split('/').all(inside), "{path:?}");
        }
        // The host has the same files, so that all rules have something to compare.
        let report = rules::check(&subject, Some(&subject.tree), &machine, &[]);
        for line in report.text().lines() {
            assert_printable(line);
        }
        report::json(std::slice::from_ref(&report)).expect("a report is JSON");
        let allowed = rules::check(&subject, None, &machine, &everything);
        assert_eq!(allowed.worst(), None);
    }
}
