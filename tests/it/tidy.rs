//! The house rules that a program can check. Each check is a pure function from sources to violations, with a
//! test that it finds a planted one. The tests here run the checks over this repository.

mod errors;
mod files;
mod imports;
mod oldest_compiler;
mod type_names;
mod used_paths;

use std::path::Path;

/// A file of the repository.
pub(crate) struct Source {
    /// Relative to the top of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    #[cfg(test)]
    fn planted(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

/// All Rust files below these folders of the repository.
fn rust_files(folders: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in folders {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut sources);
    }
    assert!(sources.len() > 10, "there must be something to check");
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            sources.push(Source { path: relative.to_str().unwrap().to_owned(), text });
        }
    }
}

/// Text files below a directory, by their path in it.
fn files_below(directory: &str) -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let (mut found, mut left) = (Vec::new(), vec![top.clone()]);
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let relative = path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned();
                found
                    .push(Source { path: relative, text: std::fs::read_to_string(&path).unwrap() });
            }
        }
    }
    found
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Fails with all violations.
fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

const EVERYTHING: [&str; 3] = ["src", "tests", "benches"];

#[test]
fn each_layer_uses_only_what_the_table_allows() {
    none(&imports::violations(&rust_files(&["src"])));
}

#[test]
fn no_two_layers_and_no_two_files_of_a_layer_import_each_other_in_a_circle() {
    none(&imports::cycles(&rust_files(&["src"])));
}

#[test]
fn every_file_begins_with_its_description() {
    none(&files::without_a_word(&rust_files(&EVERYTHING)));
}

#[test]
fn no_file_is_too_long() {
    none(&files::too_long(&rust_files(&EVERYTHING)));
}

#[test]
fn no_file_has_a_meaningless_name() {
    none(&files::named_for_nothing(&rust_files(&EVERYTHING)));
}

#[test]
fn the_text_of_every_error_is_recorded() {
    none(&errors::unrecorded(&rust_files(&["src"]), &files_below("tests/golden/errors")));
}

#[test]
fn every_dependency_has_its_reason_in_the_architecture() {
    none(&files::unexplained_dependencies(&read("Cargo.toml"), &read("ARCHITECTURE.md")));
}

#[test]
fn a_type_name_is_defined_in_one_file_only() {
    none(&type_names::defined_twice(&rust_files(&["src"])));
}

#[test]
fn all_files_name_the_same_oldest_compiler() {
    let read = |path: &str| Source { path: path.to_owned(), text: read(path) };
    none(&oldest_compiler::disagreements(read));
}

#[test]
fn the_architecture_can_be_read_in_one_sitting() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 150, "ARCHITECTURE.md has {lines} lines");
}
