//! The running kernel, from `/proc`: its release, its ABI, what it has mounted, when it booted.

use crate::host::host_root::HostRoot;
use crate::host::os_release;
use crate::model::claim::{self, Running};
use crate::model::mounts::Layering;
use std::time::{Duration, SystemTime};

/// Reads what claims are held against. What cannot be read is in it as the reason.
pub(crate) fn running(host: &HostRoot) -> Running {
    Running {
        kernel_release: release(host),
        abi: host.read("/proc/cmdline").map(|cmdline| claim::abi_of(&cmdline)),
        os_version: os_release::version_id(host),
    }
}

/// `uname -r`.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn release(host: &HostRoot) -> Result<String, String> {
    let release = host.read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    if release.is_empty() {
        return Err("/proc/sys/kernel/osrelease is empty".to_owned());
    }
    Ok(release)
}

/// What is layered over the host's files.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn layering(host: &HostRoot) -> Result<Layering, String> {
    host.read("/proc/mounts").map(|mounts| Layering::parse(&mounts))
}

/// When the kernel booted, by the clock as it is now.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn boot_time(host: &HostRoot) -> Result<SystemTime, String> {
    let stat = host.read("/proc/stat")?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let seconds = seconds.ok_or_else(|| "/proc/stat has no btime".to_owned())?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
