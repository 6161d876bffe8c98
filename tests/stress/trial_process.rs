//! The inner stage: process 1 of the namespaces of one trial. All it writes is in a filesystem in
//! memory that ends with them.

use crate::report::Report;
use crate::trials::{self, Extent};
use nix::sys::signal::SigSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The name of the trial: tells the inner stage from the outer one.
pub(crate) const TRIAL: &str = "STRESS_TRIAL";
/// The runtime under test, absolute.
pub(crate) const RUNTIME: &str = "STRESS_RUNTIME";
/// What the names of all cgroups of this trial start with.
pub(crate) const CGROUP: &str = "STRESS_CGROUP";
/// A folder that every Debian has, to hide under the filesystem in memory.
const SCRATCH: &str = "/mnt";
/// Where the runtime records deploys: a trial sees its own alone, and leaves the machine none.
const RUN: &str = "/run";

pub(crate) fn run(name: &str) -> ExitCode {
    SigSet::all().thread_unblock().expect("sigprocmask");
    std::thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        // The outer stage has gone away; the kernel ends the other processes.
        std::process::exit(130);
    });
    for folder in [SCRATCH, RUN] {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "stress", folder]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount a tmpfs on {folder}");
    }
    let mut report = Report::default();
    let trial = trials::all(Extent::of_this_run()).into_iter().find(|(known, _)| known == name);
    let (_, trial) = trial.unwrap_or_else(|| panic!("there is no trial {name}"));
    trial(&mut report);
    report.close()
}

/// The folder that a trial may fill.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(SCRATCH)
}

/// What the runtime has recorded of deploys (docs/manager.md).
pub(crate) fn records() -> PathBuf {
    PathBuf::from(RUN).join("balena-extension-runtime-deploys")
}

pub(crate) fn runtime() -> PathBuf {
    std::env::var_os(RUNTIME).map(PathBuf::from).expect("the outer stage names the runtime")
}

pub(crate) fn cgroup_prefix() -> String {
    std::env::var(CGROUP).expect("the outer stage names the cgroup")
}
