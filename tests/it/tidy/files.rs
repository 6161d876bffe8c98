//! Checks of files as a whole: their first line, length and name; and of the dependencies.

use std::path::Path;

use super::Source;

const MAX_LINES: usize = 500;
/// Names that do not say what is in the file.
const SAYING_NOTHING: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "info", "data", "misc"];

/// Files that do not start with `//!`.
pub(crate) fn without_a_word(sources: &[Source]) -> Vec<String> {
    let silent = sources.iter().filter(|source| !source.text.starts_with("//! "));
    silent.map(|source| format!("{}: does not start with //!", source.path)).collect()
}

/// Files that are too long to be read.
pub(crate) fn too_long(sources: &[Source]) -> Vec<String> {
    let lines = sources.iter().map(|source| (&source.path, source.text.lines().count()));
    let long = lines.filter(|(_, lines)| *lines > MAX_LINES);
    long.map(|(path, lines)| format!("{path}: {lines} lines, at most {MAX_LINES}")).collect()
}

/// Files and directories with a name that says nothing.
pub(crate) fn named_for_nothing(sources: &[Source]) -> Vec<String> {
    let bad = sources.iter().filter(|source| {
        let without_extension = Path::new(&source.path).with_extension("");
        let mut names = without_extension.iter().filter_map(|name| name.to_str());
        names.any(|name| SAYING_NOTHING.contains(&name))
    });
    bad.map(|source| format!("{}: the name says nothing", source.path)).collect()
}

/// Dependencies in `manifest` that `architecture` does not name.
pub(crate) fn unexplained_dependencies(manifest: &str, architecture: &str) -> Vec<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let words: Vec<&str> = architecture.split(|letter| !is_word(letter)).collect();
    let missing = dependencies(manifest).into_iter().filter(|name| !words.contains(name));
    missing.map(|name| format!("ARCHITECTURE.md does not say why {name} is there")).collect()
}

/// The names in every table of dependencies.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.trim_end_matches(']').ends_with("dependencies");
        } else if inside && !line.starts_with('#') {
            names.extend(line.split_once('=').map(|(name, _)| name.trim()));
        }
    }
    names
}

#[test]
fn a_file_without_a_description_is_found() {
    let sources =
        [Source::planted("a.rs", "//! A.\n"), Source::planted("b.rs", "use x;\n//! B.\n")];
    assert_eq!(without_a_word(&sources), ["b.rs: does not start with //!"]);
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let sources = [500, 501].map(|lines| Source::planted("a.rs", &"x\n".repeat(lines)));
    assert_eq!(too_long(&sources), ["a.rs: 501 lines, at most 500"]);
}

#[test]
fn a_meaningless_name_is_found() {
    let paths =
        ["src/host/utils.rs", "src/common/mod.rs", "src/host/os/process.rs", "src/database.rs"];
    let found = named_for_nothing(&paths.map(|path| Source::planted(path, "")));
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_dependency_without_a_reason_is_found() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\nserde = \"1\"\n# why = so\nnew = { version = \"1\" }\n\
                    [target.'cfg(unix)'.dependencies]\nodd = \"1\"\n[lints.rust]\nunsafe_code = \"deny\"\n";
    let found = unexplained_dependencies(manifest, "| serde | JSON |\nanew renewed\n");
    let names: Vec<&str> = found.iter().map(|text| text.split(' ').nth(5).unwrap()).collect();
    assert_eq!(names, ["new", "odd"]);
}
