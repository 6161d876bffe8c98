//! A type name is defined in one file only, so that a reader who meets it knows which type it is.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;
use super::used_paths::code_without_tests;

/// Every file that can fail has an error type of its own.
const IN_MANY_FILES: [&str; 1] = ["Error"];

/// The type names that several files define, with these files.
pub(crate) fn defined_twice(sources: &[Source]) -> Vec<String> {
    let mut files: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.path.ends_with("_tests.rs")) {
        for name in code_without_tests(&source.text).lines().filter_map(defined_type) {
            files.entry(name.to_owned()).or_default().insert(&source.path);
        }
    }
    let twice = files.into_iter().filter(|(_, files)| files.len() > 1);
    let twice = twice.filter(|(name, _)| !IN_MANY_FILES.contains(&name.as_str()));
    let list = |files: BTreeSet<&str>| files.into_iter().collect::<Vec<_>>().join(", ");
    twice.map(|(name, files)| format!("{name} is defined in {}", list(files))).collect()
}

/// The name of the type that a line defines.
fn defined_type(line: &str) -> Option<&str> {
    let mut item = line.trim_start();
    for visibility in ["pub(crate) ", "pub(super) ", "pub "] {
        item = item.strip_prefix(visibility).unwrap_or(item);
    }
    let kinds = ["struct ", "enum ", "trait ", "union "];
    // A `type` that is indented is an associated type.
    let alias = line.starts_with("type ") || line.starts_with("pub");
    let name = kinds
        .iter()
        .find_map(|kind| item.strip_prefix(kind))
        .or_else(|| item.strip_prefix("type ").filter(|_| alias))?;
    let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    Some(&name[..end.unwrap_or(name.len())])
}

#[test]
fn a_type_name_in_two_files_is_found() {
    let plant = |path, text| Source::planted(path, text);
    let sources = [
        plant(
            "src/model/a.rs",
            "pub(crate) struct Report<'a> {\n}\nenum Error {}\ntype Id = u8;\n",
        ),
        plant("src/host/b.rs", "    enum Report {}\npub enum Error {}\npub(crate) type Id = u8;\n"),
        plant(
            "src/host/c.rs",
            "// struct Report;\nstruct Reporter;\nimpl X for Y {\n    type Id = u8;\n}\n",
        ),
        plant("src/host/d.rs", "#[cfg(test)]\nmod tests {\n    struct Report;\n}\n"),
        plant("src/host/d_tests.rs", "struct Reporter;\n"),
    ];
    let expected =
        ["Id", "Report"].map(|name| format!("{name} is defined in src/host/b.rs, src/model/a.rs"));
    assert_eq!(defined_twice(&sources), expected);
    assert_eq!(defined_twice(&sources[1..]), [""; 0]);
}
