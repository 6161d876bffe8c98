//! The runtime under real engines: dockerd, containerd and Podman, as they are installed here and as
//! a newer Debian ships them.
//!
//! The program has three stages, which [`sandbox::STAGE`] distinguishes. The outermost starts a sandbox for
//! every row of [`rows`] and cleans up after it. The middle one is process 1 of that sandbox and prepares it as
//! a separate machine. The innermost runs the tests. The tests use no engine of the host and write nothing to
//! the host.
//!
//! `RUNTIME_UNDER_TEST` and `MANAGER_UNDER_TEST` name the programs (default: those at the top of the checkout),
//! `ENGINE_ROWS` the rows (default: all). `WRITE_ENGINES_MD=1` writes the results to docs/engines.md; without
//! it they are compared with that file.
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
    reason = "a test fails by panicking, prints what it saw, and owns the files it writes"
)]

mod cgroups;
mod command;
mod cri;
mod ctr;
mod deployment;
mod docker;
mod engine;
mod engines_document;
mod feature_table;
mod generated_archives;
mod image;
mod interrupts;
mod leftovers;
mod podman;
mod processes;
mod rows;
mod sandbox;
mod scenarios_command_lines;
mod scenarios_cri;
mod scenarios_ctr;
mod scenarios_docker;
mod scenarios_every_engine;
mod scenarios_failing_hooks;
mod scenarios_kernel;
mod scenarios_killed;
mod scenarios_killed_shim;
mod scenarios_manager;
mod scenarios_manager_check;
mod scenarios_manager_load;
mod scenarios_manager_plan;
mod scenarios_manager_stores;
mod scenarios_manager_try;
mod scenarios_manager_volumes;
mod scenarios_mounts;
mod scenarios_network;
mod scenarios_podman;
mod scenarios_podman_stores;
#[path = "../support/mod.rs"]
mod support;
mod test_list;

use support::{capture, finished, numbers, proc_fs, process, programs};

use std::process::ExitCode;
use std::sync::Arc;

use engine::Engines;
use libtest_mimic::Arguments;
use test_list::Suite;

fn main() -> ExitCode {
    match std::env::var(sandbox::STAGE).as_deref() {
        Err(_) => rows::run_all(),
        Ok(sandbox::INIT) => sandbox::be_process_one(),
        Ok(sandbox::TESTS) => run_tests(),
        Ok(other) => panic!("{}={other}: no such stage", sandbox::STAGE),
    }
}

/// The innermost stage: runs every scenario on every engine, then checks what is left.
fn run_tests() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most tests wait for an engine, not for a CPU.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let before = leftovers::Snapshot::take();
    let engines = Arc::new(Engines::default());

    let mut suite = Suite::of_this_row();
    suite.test("the_programs_the_engines_need_are_installed", command::require_programs);
    // The longest first, because the tests that start last determine the total time.
    scenarios_every_engine::add_to(&mut suite, &engines);
    scenarios_failing_hooks::add_to(&mut suite, &engines);
    scenarios_docker::add_to(&mut suite, &engines);
    scenarios_kernel::add_to(&mut suite);
    scenarios_killed_shim::add_to(&mut suite);
    scenarios_killed::add_to(&mut suite, &engines);
    scenarios_mounts::add_to(&mut suite, &engines);
    scenarios_network::add_to(&mut suite);
    scenarios_podman::add_to(&mut suite, &engines);
    scenarios_podman_stores::add_to(&mut suite);
    scenarios_ctr::add_to(&mut suite, &engines);
    scenarios_cri::add_to(&mut suite, &engines);
    scenarios_command_lines::add_to(&mut suite);
    scenarios_manager::add_to(&mut suite);
    scenarios_manager_check::add_to(&mut suite, &engines);
    scenarios_manager_load::add_to(&mut suite);
    scenarios_manager_plan::add_to(&mut suite);
    scenarios_manager_stores::add_to(&mut suite);
    scenarios_manager_try::add_to(&mut suite);
    scenarios_manager_volumes::add_to(&mut suite);
    let passed = suite.passed();
    let conclusion = libtest_mimic::run(&arguments, suite.into_trials());
    if arguments.list {
        return ExitCode::SUCCESS;
    }

    // The trials held the other references, so this stops the engines.
    drop(engines);
    let mut after = Suite::of_this_row();
    after.test("nothing_is_left_of_all_this", move || before.compare());
    let swept = libtest_mimic::run(&Arguments::default(), after.into_trials());
    engines_document::leave(&passed.lock().unwrap());
    if conclusion.has_failed() || swept.has_failed() {
        return ExitCode::from(101);
    }
    ExitCode::SUCCESS
}
