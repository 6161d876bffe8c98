//! Kernel overrides on a machine that boots: QEMU emulates it, its disk has the partitions of a device, and an initramfs
//! as docs/kernel-override.md asks for boots the armed kernel by kexec.
//!
//! On this machine, the program makes the disk (`device.rs`) and the initramfs (`initramfs.rs`, from the scripts in
//! `guest`), boots it as often as a scenario says (`machine.rs`), and compares what each boot reports with what is
//! expected (`scenarios.rs`). In the guest, it is the engine that makes volumes (`engine.rs`). `power_cuts.rs` looks at
//! the disk as it is after a power cut at any moment of a boot.
//!
//! `make test-boot` runs it; docs/boot-tests.md has its output.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, prints what it saw, and owns the files it writes"
)]

mod device;
#[path = "../support/emulated/mod.rs"]
mod emulated;
mod engine;
mod initramfs;
mod kernel;
mod machine;
mod power_cuts;
mod scenarios;
#[path = "../support/mod.rs"]
mod support;
mod write_log;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use support::{bundle, capture, programs};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(engine::STAGE) {
        engine::serve();
    }
    let trials = scenarios::ALL.into_iter().map(|(name, scenario)| {
        Trial::test(name, move || device::run_scenario(name, scenario).map_err(Into::into))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
