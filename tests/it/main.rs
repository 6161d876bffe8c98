//! Black-box tests of the built program: every verb, every refusal, and what is left afterwards.
//!
//! `RUNTIME_UNDER_TEST` names the binary (default: the one at the top of the checkout). The suite can
//! run against another runtime too; what makes sense for this one alone (its own words, its own
//! fields) is in modules called `only_ours`, so `cargo test --test it -- --skip only_ours` compares.
//!
//! The tests need root, because hooks run on the host, and nothing that Debian does not always have.
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
mod manager;
mod programs_only_ours;
mod runtime;
mod seccomp_filter;
#[path = "../support/mod.rs"]
mod support;
mod tidy;
mod troubleshooting;

use support::{bundle, capture, finished, leftovers, proc_fs, process, programs};
