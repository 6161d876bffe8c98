//! Tests of the package, the units, the man pages and completions, the snippets for engines and the recipe.
//! Each file is given to the program that reads it.
//!
//! The package is really installed, with apt-get, in a copy of this machine's root filesystem: an overlay in
//! its own mount namespace, without a network, which ends with the test. Such a copy is also booted to test the
//! unit.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it saw, and owns the files it writes"
)]

mod boot;
mod documents;
mod machine;
mod metrics;
mod package;
mod recipe;
mod release;
mod rollback;
mod snippets;

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use finished::Finished;
use support::{bundle, capture, finished, programs};

/// The top of the checkout.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn dist(path: &str) -> PathBuf {
    top().join("dist").join(path)
}

/// The time that apt, dpkg and a boot may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(1800);

fn run(command: &mut Command) -> Finished {
    capture::start(command).finish_within(LIMIT)
}

fn manager(words: &[&str]) -> Finished {
    run(Command::new(programs::manager()).args(words))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory below `dist/`, sorted.
fn files(folder: &str) -> Vec<PathBuf> {
    let items = std::fs::read_dir(dist(folder)).unwrap();
    let mut files: Vec<PathBuf> = items.map(|item| item.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "dist/{folder} is empty");
    files
}
