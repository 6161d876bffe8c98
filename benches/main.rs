//! The benchmarks, `make bench`, `make bench-manager` and `make bench-kernel`: one program, whose first argument says
//! which of them to run. `tools/bench` builds what they measure, and gives this program mounts and
//! processes of its own, with a tmpfs on `/run`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table on the terminal is what a benchmark is for"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the rules on files and the environment are for the programs; this is scratch data"
)]
#![allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "statistics on samples of a known number; a failed expectation must end the benchmark"
)]

mod goal;
mod kernel;
mod lifecycle;
mod manager;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Every failure ends the benchmark and no caller branches on it, so a sentence is enough.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let outcome = match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("lifecycle") => lifecycle::run(),
        Some("manager") => manager::run(),
        Some("kernel") => kernel::run(),
        Some(manager::MEASURE) => manager::measure(words),
        _ => Err("run this by `make bench`, `make bench-manager` or `make bench-kernel`".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A directory that `tools/bench` has prepared: `BENCH_DIR` holds the programs, `SCRATCH` is on a tmpfs.
fn prepared(name: &str) -> Result<PathBuf> {
    Ok(variable(name).ok_or_else(|| format!("{name} is not set"))?.into())
}

/// The number of rounds: `N`, or the default of the benchmark.
fn rounds(default: usize) -> Result<usize> {
    match variable("N") {
        Some(text) => match text.parse() {
            Ok(rounds) if rounds > 0 => Ok(rounds),
            _ => Err(format!("N={text}: not a number of rounds").into()),
        },
        None => Ok(default),
    }
}
