//! The inner stage: process 1 of the namespaces of one trial. It only writes to a filesystem in memory, which
//! ends with the namespaces.

use crate::report::Report;
use crate::trials::{self, Extent};
use nix::sys::signal::SigSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The name of the trial. It is only set in the inner stage.
pub(crate) const TRIAL: &str = "STRESS_TRIAL";
/// The absolute path of the runtime under test.
pub(crate) const RUNTIME: &str = "STRESS_RUNTIME";
/// The prefix of the names of all cgroups of this trial.
pub(crate) const CGROUP: &str = "STRESS_CGROUP";
/// A directory that every Debian has. The filesystem in memory is mounted over it.
pub(crate) const SCRATCH: &str = "/mnt";
/// The runtime records deploys here. A trial sees only its own and leaves none on the machine.
const RUN: &str = "/run";

pub(crate) fn run(name: &str) -> ExitCode {
    SigSet::all().thread_unblock().expect("sigprocmask");
    std::thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        // The outer stage has ended; the kernel ends the other processes.
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

/// The directory that a trial may fill.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(SCRATCH)
}

/// The directory of the deploy records (docs/manager.md).
pub(crate) fn records() -> PathBuf {
    PathBuf::from(RUN).join("balena-extension-runtime-deploys")
}

pub(crate) fn runtime() -> PathBuf {
    std::env::var_os(RUNTIME).map(PathBuf::from).expect("the outer stage names the runtime")
}

pub(crate) fn cgroup_prefix() -> String {
    std::env::var(CGROUP).expect("the outer stage names the cgroup")
}
