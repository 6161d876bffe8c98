//! The command line of the manager's commands about kernel overrides.

use crate::cli::values::{OutputFormat, abi, seconds};
use crate::model::kernel::abi::Abi;
use clap::{Args, Subcommand};
use std::time::Duration;

/// Judge the kernel override that is armed: commit it, reject it, or leave it pending
///
/// The OS runs this at every boot. A kernel that runs on trial is committed if the health check of the OS
/// (rollback-tests) succeeds; otherwise it is rejected, and the device reboots. Kernels that no deployed extension
/// claims are forgotten. While an OS update can still roll back, no kernel is judged.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  balena-extension-manager validate --settle 60 --retry 60 --attempts 15

Exit status: 0 after every verdict, also if there was nothing to do; 1 if something failed or the health
check could not be run (then no verdict was taken); 4 if the time was up or a signal came. After a rejection
by the health check it is that of systemctl reboot.")]
pub(crate) struct ValidateArguments {
    /// How long the system may settle before the first health check
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) settle: Duration,
    /// Pause between two health checks
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) retry: Duration,
    /// How often the health check is run until it succeeds; at least once
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub(crate) attempts: u32,
    /// The time limit of the whole command. A health check that is still running then is no verdict
    #[arg(long, value_name = "SECONDS", default_value = "1140", value_parser = seconds)]
    pub(crate) deadline: Duration,
    /// Do not reboot after a rejection
    #[arg(long)]
    pub(crate) no_reboot: bool,
}

/// Keep or leave the armed kernel when an OS update commits or rolls back
///
/// The update hooks of the OS call this before they end the time in which the update can roll back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager hup commit    the update is proven, and so is the kernel that runs
  balena-extension-manager hup reject    the update rolls back; the other slot boots what it has committed")]
pub(crate) struct HupArguments {
    #[command(subcommand)]
    pub(crate) command: HupCommand,
}

/// What the OS update does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum HupCommand {
    /// The update is proven: commit the kernel that runs
    #[command(after_help = "Example:\n  balena-extension-manager hup commit")]
    Commit,
    /// The update rolls back: arm what the other slot has committed
    #[command(after_help = "Example:\n  balena-extension-manager hup reject")]
    Reject,
}

/// Print what has happened to kernel overrides: armed, booted, checked, committed, rejected, and by which command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager history
  balena-extension-manager history --format json")]
pub(crate) struct HistoryArguments {
    /// The output format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// Show the kernel overrides of this device, allow a rejected one again, or forget one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager override status
  balena-extension-manager override retry ABI    take a kernel off the list of rejected ones
  balena-extension-manager override forget ABI   boot without a kernel from now on; it can be armed again")]
pub(crate) struct OverrideArguments {
    #[command(subcommand)]
    pub(crate) command: OverrideCommand,
}

/// What to do with overrides.
#[derive(Debug, Subcommand)]
pub(crate) enum OverrideCommand {
    /// Print which kernel is armed, runs, is committed, on trial, rejected or published, and which container claims it
    #[command(after_help = "Example:\n  balena-extension-manager override status --format json")]
    Status {
        /// The output format
        #[arg(long, value_enum, default_value_t)]
        format: OutputFormat,
    },
    /// Take a kernel off the list of rejected ones, so that the next start of its extension arms it again
    #[command(after_help = "Example:\n  balena-extension-manager override retry ABI")]
    Retry {
        /// The whole ABI: 64 lowercase hex digits
        #[arg(value_parser = abi)]
        abi: Abi,
    },
    /// Remove every record of a kernel but its rejection: it is no longer armed, committed or published
    #[command(after_help = "Example:\n  balena-extension-manager override forget ABI")]
    Forget {
        /// The whole ABI: 64 lowercase hex digits
        #[arg(value_parser = abi)]
        abi: Abi,
    },
}
