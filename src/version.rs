//! The output of `--version`. Engines parse the runtime's: Docker takes the last word of the line with `version`, and
//! the line that starts with `commit:`.
//!
//! Each output is one constant, and so contiguous in the program's file. `doctor` reads the runtime's there, because
//! it must not execute a file that another user may have changed.

use crate::model::container::spec::OCI_VERSION;

/// The version that the build was given, or the package's.
pub(crate) const VERSION: &str = match option_env!("BALENA_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The commit that the build was given.
pub(crate) const COMMIT: &str = match option_env!("BALENA_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Joins texts at compile time.
macro_rules! joined {
    ($parts:expr) => {{
        const BYTES: [u8; length(&$parts)] = join(&$parts);
        match std::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => "",
        }
    }};
}

/// The output of the runtime.
pub(crate) const RUNTIME: &str = joined!(answer("balena-extension-runtime version "));
/// The output of the manager.
pub(crate) const MANAGER: &str = joined!(answer("balena-extension-manager version "));

const fn answer(start: &str) -> [&str; 7] {
    [start, VERSION, "\ncommit: ", COMMIT, "\nspec: ", OCI_VERSION, "\n"]
}

const fn length(parts: &[&str]) -> usize {
    let (mut length, mut rest) = (0, parts);
    while let [part, others @ ..] = rest {
        length += part.len();
        rest = others;
    }
    length
}

#[expect(clippy::indexing_slicing, reason = "an index out of bounds does not compile here")]
const fn join<const LENGTH: usize>(parts: &[&str]) -> [u8; LENGTH] {
    let (mut text, mut at, mut rest) = ([0; LENGTH], 0, parts);
    while let [part, others @ ..] = rest {
        let mut bytes = part.as_bytes();
        while let [byte, more @ ..] = bytes {
            text[at] = *byte;
            at += 1;
            bytes = more;
        }
        rest = others;
    }
    text
}

/// The longest version or commit that is read from a program.
const VALUE_MAX: usize = 200;

/// Finds the answer of a runtime in a piece of a program: its version and its commit.
pub(crate) fn runtime_in(piece: &[u8]) -> Option<(String, String)> {
    let mut lines = piece.split(|&byte| byte == b'\n');
    let (mut version, mut commit) = (lines.next()?, lines.next()?);
    for spec in lines {
        let found = spec.starts_with(b"spec: ").then(|| lines_of_runtime(version, commit));
        if let Some(found) = found.flatten() {
            return Some(found);
        }
        (version, commit) = (commit, spec);
    }
    None
}

/// The first two lines of an answer. Anything may stand before it on the first one.
fn lines_of_runtime(version: &[u8], commit: &[u8]) -> Option<(String, String)> {
    let start = b"balena-extension-runtime version ";
    let at = version.windows(start.len()).rposition(|seen| seen == start)?;
    let is_sane = |text: &String| (1..=VALUE_MAX).contains(&text.len());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).ok().filter(is_sane);
    Some((text(version.get(at + start.len()..)?)?, text(commit.strip_prefix(b"commit: ")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_runtime_is_found_in_its_answer_wherever_that_stands() {
        let own = Some((VERSION.to_owned(), COMMIT.to_owned()));
        for piece in [RUNTIME.to_owned(), format!("a\nb{RUNTIME}c"), format!("\n\n{RUNTIME}\n")] {
            assert_eq!(runtime_in(piece.as_bytes()), own, "{piece:?}");
        }
        assert!(RUNTIME.ends_with(&format!("\nspec: {OCI_VERSION}\n")));
    }

    #[test]
    fn no_other_program_has_one() {
        let name = "balena-extension-runtime version ";
        for piece in [
            MANAGER.to_owned(),
            String::new(),
            name.to_owned(),
            format!("{name}\ncommit: x\nspec: 1"),
            format!("{name}1\ncommit: \nspec: 1"),
            format!("{name}1\nspec: 1"),
            format!("{name}{}\ncommit: x\nspec: 1", "1".repeat(VALUE_MAX + 1)),
            format!("{name}1\ncommit: x\n"),
            "runc version 1\ncommit: x\nspec: 1\n".to_owned(),
        ] {
            assert_eq!(runtime_in(piece.as_bytes()), None, "{piece:?}");
        }
    }
}
