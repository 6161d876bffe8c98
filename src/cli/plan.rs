//! The command line of `plan`: the system that will boot, and how the answer is printed.

use crate::cli::values::{OutputFormat, StatedKernel, os_version, release, stated_kernel};
use clap::{Args, ValueHint};
use std::path::PathBuf;

/// Predict what the next boot, or the next OS, will make of every extension
///
/// The initramfs of the OS layers extensions over the root filesystem at each boot, and may leave some out. plan applies
/// its rules to the engine's store on disk, so it works while the engine is down, and it changes nothing. Without options
/// it predicts the next boot of this OS, with the kernel override that is armed. docs/plan.md has the rules.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager plan
  balena-extension-manager plan --os-root /mnt/sysroot/inactive/os
  balena-extension-manager plan --os-version 6.1.20 --kernel-release 6.6.20-yocto-standard --kernel-abi none

Exit status: 0 if everything that is applied now will be layered; 1 if an extension that is applied now, or \
that may be, will not be layered or may not be, or if something could not be read.")]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) system: StatedSystem,
    /// Print every path that an extension hides, not only the first ten
    #[arg(long)]
    pub(crate) files: bool,
    /// The output format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// What is stated about the system that will boot. By default it is this OS.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct StatedSystem {
    /// The OS that will boot, mounted at or unpacked into DIR: its version, the release of its kernel and its files are
    /// read
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "os_version")]
    pub(crate) os_root: Option<PathBuf>,
    /// The version of the OS that will boot, VERSION_ID of its os-release; what is not stated about it is unknown
    #[arg(long, value_name = "VERSION", value_parser = os_version)]
    pub(crate) os_version: Option<String>,
    /// The release of the kernel that will boot: the whole uname -r
    #[arg(long, value_name = "RELEASE", value_parser = release)]
    pub(crate) kernel_release: Option<String>,
    /// The ABI of the override that will boot; none: the OS's stock kernel
    #[arg(long, value_name = "ABI|none", value_parser = stated_kernel)]
    pub(crate) kernel_abi: Option<StatedKernel>,
    /// How many layers the OS has [default: as many as are found, else 1]
    #[arg(long, value_name = "COUNT")]
    pub(crate) os_layers: Option<u16>,
    /// The page size of the kernel that will boot, which limits the options of the overlay [default: that of the
    /// running kernel]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub(crate) page_size: Option<u32>,
}

impl StatedSystem {
    /// Whether the system is another one, which is not in a directory either.
    pub(crate) fn is_only_stated(&self) -> bool {
        let stated =
            self.os_version.is_some() || self.kernel_release.is_some() || self.kernel_abi.is_some();
        stated && self.os_root.is_none()
    }
}
