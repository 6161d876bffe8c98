//! The oldest compiler that builds the programs is named in several files. Checks that they agree.

use super::Source;

/// Where a file names it: the text before the version.
const BEFORE: [(&str, &str); 5] = [
    ("Cargo.toml", "\nrust-version = \""),
    ("clippy.toml", "msrv = \""),
    ("README.md", "Rust "),
    ("ARCHITECTURE.md", "\nRust "),
    (".ci/run", "\noldest_rust="),
];

/// Files that do not name a version, or another one than Cargo.toml.
pub(crate) fn disagreements(read: impl Fn(&str) -> Source) -> Vec<String> {
    let named = BEFORE.map(|(path, before)| {
        let text = read(path).text;
        let version = text.split(before).skip(1).find_map(version_at_the_start);
        (path, version.unwrap_or_else(|| "no version".to_owned()))
    });
    let expected = named[0].1.clone();
    let wrong = named.iter().filter(|(_, version)| *version != expected || version.contains(' '));
    wrong.map(|(path, version)| format!("{path}: {version}, and Cargo.toml: {expected}")).collect()
}

fn version_at_the_start(text: &str) -> Option<String> {
    let version: String =
        text.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    let version = version.trim_end_matches('.');
    version.contains('.').then(|| version.to_owned())
}

#[test]
fn a_file_that_names_another_compiler_or_none_is_found() {
    let read = |path: &str| {
        let text = match path {
            "Cargo.toml" => "[package]\nrust-version = \"1.85\"\n",
            "clippy.toml" => "msrv = \"1.86\"\n",
            "README.md" => "Rust is nice. You need Rust 1.85 or newer.",
            "ARCHITECTURE.md" => "nothing",
            _ => "\noldest_rust=1.85.",
        };
        Source::planted(path, text)
    };
    let expected = [
        "clippy.toml: 1.86, and Cargo.toml: 1.85",
        "ARCHITECTURE.md: no version, and Cargo.toml: 1.85",
    ];
    assert_eq!(disagreements(read), expected);
}
