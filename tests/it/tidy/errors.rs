//! Checks that every error has its text in `tests/golden/errors/`. That the text is right is what
//! `golden_errors` of the library checks, which each file with errors has.

use super::Source;

/// Files whose golden file has not one line for each error, and golden files of no source file.
pub(crate) fn unrecorded(sources: &[Source], golden: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources {
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        let errors = code.matches("#[error(").count();
        let path = golden_path(&source.path);
        let recorded = golden.iter().find(|golden| golden.path == path);
        let lines = recorded.map_or(0, |golden| golden.text.lines().count());
        if errors != lines {
            violations.push(format!(
                "{}: {errors} errors, but {lines} in tests/golden/errors/{path}: list them in `errors!` at the end \
                 of the file, then WRITE_GOLDEN=1 cargo test --lib golden_errors",
                source.path
            ));
        }
    }
    let is_known =
        |golden: &Source| sources.iter().any(|source| golden_path(&source.path) == golden.path);
    let unknown = golden.iter().filter(|golden| !is_known(golden));
    violations.extend(
        unknown.map(|golden| format!("tests/golden/errors/{}: no source file", golden.path)),
    );
    violations
}

/// `src/runtime/mod.rs` has `runtime.txt`.
fn golden_path(source: &str) -> String {
    let stem = source.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    format!("{stem}.txt")
}

#[test]
fn an_error_without_a_line_and_a_line_without_an_error_are_found() {
    let sources = [
        Source::planted("src/a/mod.rs", "#[error(\"x\")]\n#[error(transparent)]\n"),
        Source::planted("src/a/b.rs", "#[error(\"x\")]\n#[cfg(test)]\n#[error(\"of a test\")]\n"),
        Source::planted("src/c.rs", ""),
    ];
    let golden = ["a.txt", "a/b.txt"].map(|path| Source::planted(path, "A: x\n"));
    let found = unrecorded(&sources, &golden);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("src/a/mod.rs: 2 errors, but 1 in"), "{found:?}");
    let golden = ["a/b.txt", "gone.txt"].map(|path| Source::planted(path, "A: x\n"));
    assert_eq!(unrecorded(&sources, &golden).len(), 2);
}
