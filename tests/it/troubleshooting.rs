//! `docs/troubleshooting.md`: a message that it quotes is a message of the programs or of an engine.

use std::path::Path;

/// The engines' own messages, and the states in which they list a container.
const OF_ENGINES: [&str; 14] = [
    "Unknown runtime specified extension",
    "unknown or invalid runtime name: extension",
    "default OCI runtime \"extension\" not found",
    "No command specified",
    "exec: \"/none\": stat /none: no such file or directory",
    "cannot start a container that has stopped",
    "timeout waiting for containerd to start",
    "Exited (0)",
    "Exited (1)",
    "Restarting (0)",
    "unhealthy",
    "Created",
    "Up",
    "dockerd",
];
/// The words of a quotation that are commands, not messages.
const COMMANDS: [&str; 4] = ["docker run", "docker start", "cleanup --stale-os", "roll back"];

/// The quotations of which `sources` does not have the words. A quotation is the code in a bold line, or in the first
/// cell of the table of hook failures.
fn unknown<'a>(document: &'a str, sources: &str) -> Vec<&'a str> {
    let bold = document.lines().filter(|line| line.starts_with("**"));
    let cells = document.lines().filter_map(|line| line.strip_prefix("| `… ")?.split('`').next());
    let quoted = bold.flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted
        .chain(cells)
        .filter(|quotation| !OF_ENGINES.contains(quotation) && !COMMANDS.contains(quotation))
        .filter(|quotation| fragments(quotation).any(|fragment| !sources.contains(fragment)))
        .collect()
}

/// The parts of a message between the values in it.
fn fragments(quotation: &str) -> impl Iterator<Item = &str> {
    quotation
        .split(['…', '"', '\\'])
        .flat_map(|part| part.split("hooks/start"))
        .flat_map(|part| part.split("hooks/create"))
        .flat_map(|part| part.split(" ID "))
        .flat_map(|part| part.split(|letter: char| letter.is_ascii_digit()))
        .map(|part| part.trim_matches([' ', ',', ':', '(', ')']))
        .filter(|part| part.len() > 3)
}

/// All sources in one text, with each string on one line.
fn sources() -> String {
    let mut text = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => text.push_str(&std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap().to_owned();
    lines.fold(first, |joined, line| joined + line.trim_start())
}

#[test]
fn every_message_that_the_page_quotes_is_one_of_the_programs_or_of_an_engine() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
    let document = std::fs::read_to_string(path).unwrap();
    let unknown = unknown(&document, &sources());
    assert!(unknown.is_empty(), "docs/troubleshooting.md quotes what nothing says: {unknown:#?}");
}

#[test]
fn a_planted_message_that_nothing_says_is_found() {
    let sources = "cannot open {path}: exited with status {status}";
    for (document, found) in [
        ("**`cannot open \"/x\"`**", 0),
        ("**`cannot close \"/x\"`**", 1),
        ("**`Exited (0)`, and nothing more**", 0),
        ("| `… exited with status 3: …` | why |", 0),
        ("| `… ended with status 3: …` | why |", 1),
        ("no `message` here", 0),
    ] {
        assert_eq!(unknown(document, sources).len(), found, "{document}");
    }
}
