//! The programs on real ARM kernels: Debian's for arm64 and armhf, in machines that QEMU emulates.
//!
//! The program has two stages. On this machine it makes a root filesystem for each architecture and boots it
//! (`machine.rs`). Cross-compiled, it is process 1 of that machine (`guest.rs`), runs the parts of the test
//! (`parts.rs`) there, and reports each on the console. Each part of each machine is a test, and so is the end of
//! the machine.
//!
//! `tools/arm-tests` builds what runs in there. `make test-arm` does both.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, prints what it saw, and owns the files it writes"
)]

mod architecture;
mod clock;
#[path = "../support/emulated/mod.rs"]
mod emulated;
mod figures;
mod guest;
mod machine;
mod parts;
mod root;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};

use architecture::Architecture;
use machine::Console;
use parts::Part;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::be_process_one();
    }
    if let Some(stage) = std::env::args().nth(1).filter(|word| word.starts_with("in-guest-")) {
        return guest::run_stage(&stage);
    }
    let mut arguments = Arguments::from_args();
    // Both machines at once: a test is a look at what its machine has printed.
    arguments.test_threads = arguments.test_threads.or(Some(Architecture::ALL.len()));
    let mut trials = Vec::new();
    // The first tests are of different machines, so that both boot.
    for part in Part::wanted() {
        for architecture in Architecture::ALL {
            trials.push(trial(architecture, part.name(), move |console| console.part(part)));
        }
    }
    for architecture in Architecture::ALL {
        trials.push(trial(architecture, "every_part_ran_and_the_machine_powered_off", |console| {
            console.print_notes();
            console.verdict()
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test of what a machine has printed. The first one of a machine boots it.
fn trial(
    architecture: &'static Architecture,
    name: &str,
    judge: impl FnOnce(&Console) -> Result<(), String> + Send + 'static,
) -> Trial {
    Trial::test(format!("{}::{name}", architecture.name), move || {
        let console =
            consoles(architecture).get_or_init(|| machine::boot(architecture).map(Arc::new));
        let console = console.as_ref().map_err(Failed::from)?;
        judge(console).map_err(Failed::from)
    })
}

/// What the machine has printed, or why it could not be booted.
fn consoles(architecture: &Architecture) -> &'static OnceLock<Result<Arc<Console>, String>> {
    static CONSOLES: [OnceLock<Result<Arc<Console>, String>>; 2] = [const { OnceLock::new() }; 2];
    let index = Architecture::ALL.iter().position(|known| known.name == architecture.name);
    &CONSOLES[index.unwrap()]
}
