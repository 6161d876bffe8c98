//! Black-box tests of the built program: every verb, every refusal, and what is left afterwards.
//!
//! `RUNTIME_UNDER_TEST` and `MANAGER_UNDER_TEST` name the programs (default: those at the top of the checkout).
//! The suite can test another runtime too: tests of this runtime's own messages and fields are in modules
//! called `only_ours`, so `cargo test --test it -- --skip only_ours` compares the two.
//!
//! The tests need root, because hooks run on the host, and only programs that every Debian has.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it saw, and owns the files it writes"
)]

mod conformance;
mod container;
mod full_pipe;
#[path = "golden.rs"]
mod only_ours_golden;
mod intruder;
mod kernel_override_document;
mod large_numbers;
mod manager;
mod programs_only_ours;
mod runtime;
mod seccomp_filter;
#[path = "../support/mod.rs"]
mod support;
mod tidy;
mod tools;
mod troubleshooting;

use support::{bundle, capture, finished, leftovers, numbers, proc_fs, process, programs};
