//! Stress tests: the runtime is killed at every system call, gets a fault at every system call, runs
//! concurrently with itself, and finds pids that other processes have. The power is cut while the manager changes the
//! records of kernel overrides. `try` is killed at every system call.
//!
//! The program has two stages. The outer one, [`trial_runner`], starts each trial of [`trials`] in its own pid
//! and mount namespace. The inner one, [`trial_process`], is process 1 there: processes that the runtime leaves
//! behind become its children, and the kernel ends them all with it. So "no process is left" is a statement
//! about all processes.
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

mod actual_state;
mod bystander;
mod checks;
mod concurrent_calls;
mod container;
mod crash;
mod cut_commands;
mod cut_device;
mod cut_faults;
mod cut_sweep;
mod deploy_records;
mod disk;
mod fault;
mod identity;
mod kind;
mod many_containers;
mod paused_verb;
mod power_cut;
mod processes;
mod races;
mod recorder;
mod report;
mod strike;
mod sweep;
mod swept_verbs;
mod system_calls;
mod tracer;
mod trial_process;
mod trial_runner;
mod trials;
mod view_killed;

#[path = "../support/mod.rs"]
mod support;

use support::{bundle, capture, finished, leftovers, proc_fs, programs};

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(bystander::BYSTANDER).is_some() {
        return bystander::main();
    }
    match std::env::var(trial_process::TRIAL) {
        Ok(name) => trial_process::run(&name),
        Err(_) => trial_runner::run_all(),
    }
}
