//! Unbreakable: the runtime killed at every system call, with a fault injected at every system call,
//! raced against itself, and shown pids that are not its own.
//!
//! One program in two stages. The outer one, [`outside`], starts each trial of [`trials`] in a pid and a
//! mount namespace of its own. The inner one, [`inside`], is process 1 there: whatever the runtime
//! leaves running becomes its child, and when it ends, however it ends, the kernel takes everything
//! along. So "no process is left" is a statement about all processes, not about those one thought of.
//!
//! `RUNTIME_UNDER_TEST` names the runtime (default: the one at the top of the checkout);
//! `STRESS=short` (the default) runs a representative part, `STRESS=full` all of it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::exit,
    clippy::wildcard_enum_match_arm,
    clippy::as_conversions,
    clippy::zombie_processes,
    reason = "a test fails by panicking, prints what it saw, owns the files it writes, and reaps all \
              children in one place"
)]

mod between;
mod bundle;
mod bystander;
mod calls;
mod checks;
mod crash;
mod crowd;
mod deed;
mod fault;
mod fleet;
mod identity;
mod inside;
mod outside;
mod processes;
mod races;
mod records;
mod report;
mod scenario;
mod tracer;
mod trials;
mod truth;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(bystander::BYSTANDER).is_some() {
        return bystander::main();
    }
    match std::env::var(inside::TRIAL) {
        Ok(name) => inside::run(&name),
        Err(_) => outside::run_all(),
    }
}
