//! The tables of docs/engines.md: they are generated from the results of the rows, and every run compares them.
//!
//! `WRITE_ENGINES_MD=1` writes the lines of the rows that ran, and the list of the features that do not apply.
//! The comparison leaves out versions, which change with every update of the system.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::feature_table::{Cell, ENGINES, features};
use crate::rows;

/// The directory in the sandbox where the tests of a row write their results.
pub(crate) const RESULTS: &str = "/run/results";
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/engines.md");
const BEGIN: &str = "<!-- made by WRITE_ENGINES_MD=1 make e2e; do not edit from here … -->\n";
const END: &str = "<!-- … to here -->\n";

/// The results of one row.
pub(crate) struct Results {
    row: String,
    passed: BTreeSet<String>,
    /// The versions of the engines, as they report them, by the engine's name.
    versions: Vec<(String, String)>,
}

/// In the sandbox: writes the tests that passed and the versions of the engines.
pub(crate) fn leave(passed: &BTreeSet<String>) {
    let mut text = String::new();
    for name in passed {
        writeln!(text, "passed {name}").unwrap();
    }
    for (engine, program) in [
        ("docker", "dockerd"),
        ("containerd", "containerd"),
        ("cri", "containerd"),
        ("podman", "podman"),
    ] {
        let said = Command::new(program).arg("--version").output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let is_version = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
        let version = said.split_whitespace().find(is_version).expect("a version");
        let version = version.split(['~', '+', ',']).next().unwrap();
        writeln!(text, "version {engine} {version}").unwrap();
    }
    fs::write(Path::new(RESULTS).join("results"), text).unwrap();
}

/// Outside: reads the results of a row from `dir`.
pub(crate) fn collect(row: &str, dir: &Path) -> Result<Results, String> {
    let file = dir.join("results");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut results =
        Results { row: row.to_owned(), passed: BTreeSet::new(), versions: Vec::new() };
    for line in text.lines() {
        match *line.split(' ').collect::<Vec<_>>() {
            ["passed", name] => {
                results.passed.insert(name.to_owned());
            }
            ["version", engine, version] => {
                results.versions.push((engine.to_owned(), version.to_owned()));
            }
            _ => return Err(format!("{}: {line:?}", file.display())),
        }
    }
    Ok(results)
}

/// Writes the document, or compares it with the results.
pub(crate) fn check(results: &[Results]) -> Result<(), String> {
    let old = fs::read_to_string(DOCUMENT).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let (head, rest) = old.split_once(BEGIN).ok_or("docs/engines.md has lost its first marker")?;
    let (table, tail) = rest.split_once(END).ok_or("docs/engines.md has lost its last marker")?;
    let new = render(results, table)?;
    if std::env::var_os("WRITE_ENGINES_MD").is_some_and(|value| value == "1") {
        return fs::write(DOCUMENT, format!("{head}{BEGIN}{new}{END}{tail}"))
            .map_err(|error| format!("{DOCUMENT}: {error}"));
    }
    let known: BTreeSet<String> = table.lines().map(without_version).collect();
    let missing: Vec<&str> =
        new.lines().filter(|line| !known.contains(&without_version(line))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "docs/engines.md does not say what this run showed (WRITE_ENGINES_MD=1 make e2e writes it):\n{}",
        missing.join("\n")
    ))
}

/// A line of the first table without its version column; other lines unchanged.
fn without_version(line: &str) -> String {
    let mut cells: Vec<&str> = line.split(" | ").collect();
    if cells.len() > 6 {
        cells.remove(1);
    }
    cells.join(" | ")
}

/// The tables. The lines of rows that did not run are those of `old`.
fn render(results: &[Results], old: &str) -> Result<String, String> {
    let features = features();
    let mut text = String::from("\n| Engine | Version | Row |");
    for (feature, _) in &features {
        write!(text, " {feature} |").unwrap();
    }
    write!(text, "\n{}\n", "|---".repeat(features.len() + 3) + "|").unwrap();
    for (place, (engine, title)) in ENGINES.iter().enumerate() {
        for row in rows::NAMES {
            let Some(Results { passed, versions, .. }) = results.iter().find(|of| of.row == row)
            else {
                let is_it = |line: &&str| {
                    let cells: Vec<&str> = line.split(" | ").collect();
                    cells[0] == format!("| {title}") && cells.get(2) == Some(&row)
                };
                old.lines().filter(is_it).for_each(|line| writeln!(text, "{line}").unwrap());
                continue;
            };
            let version = versions.iter().find(|(name, _)| name == engine);
            let version = version.ok_or_else(|| format!("{row}: no version of {engine}"))?;
            write!(text, "| {title} | {} | {row} |", version.1).unwrap();
            for (feature, cells) in &features {
                let mark = match cells[place] {
                    Cell::NotApplicable(_) => "n/a",
                    Cell::Shown(tests) => {
                        let full = |test: &&str| format!("{row}::{engine}::{test}");
                        if let Some(test) =
                            tests.iter().map(full).find(|test| !passed.contains(test))
                        {
                            return Err(format!("{feature}: {test} did not run, or failed"));
                        }
                        "✓"
                    }
                };
                write!(text, " {mark} |").unwrap();
            }
            text.push('\n');
        }
    }
    text.push_str("\nn/a means:\n\n| Engine | Feature | Why it does not apply |\n|---|---|---|\n");
    for (place, (_, title)) in ENGINES.iter().enumerate() {
        // In the order of the columns; features with the same reason share a line.
        let mut lines: Vec<(&str, Vec<&str>)> = Vec::new();
        for (feature, cells) in &features {
            let Cell::NotApplicable(reason) = cells[place] else { continue };
            match lines.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, names)) => names.push(feature),
                None => lines.push((reason, vec![feature])),
            }
        }
        for (reason, names) in lines {
            writeln!(text, "| {title} | {} | {reason} |", names.join(", ")).unwrap();
        }
    }
    text.push('\n');
    Ok(text)
}
