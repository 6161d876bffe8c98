//! The running system: kernel release, kernel ABI, OS version, mounted overlays, boot time.

use crate::host::engine::layer_links;
use crate::host::engine::stored_containers::DataRoot;
use crate::host::os::host_root::HostRoot;
use crate::model::extension::claim::{self, Running};
use crate::model::kernel::mounts::{HostOverlays, MountedOverlays};
use crate::model::kernel::os_release;
use std::time::{Duration, SystemTime};

/// The files of os-release(5), in their order.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Reads the facts that claims are compared with. A fact that cannot be read is the reason why.
pub(crate) fn running(host: &HostRoot) -> Running {
    Running {
        kernel_release: release(host),
        abi: host.read("/proc/cmdline").map(|cmdline| claim::abi_of(&cmdline)),
        os_version: os_version(host),
    }
}

/// `uname -r`.
pub(crate) fn release(host: &HostRoot) -> Result<String, String> {
    let release = host.read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    if release.is_empty() {
        return Err("/proc/sys/kernel/osrelease is empty".to_owned());
    }
    Ok(release)
}

/// `VERSION_ID` of os-release.
pub(crate) fn os_version(host: &HostRoot) -> Result<String, String> {
    let [first, second] = OS_RELEASE;
    let (path, text) = match host.read_if_there(first)? {
        Some(text) => (first, text),
        // os-release(5): the second file counts only if the first one does not exist.
        None => (second, host.read(second)?),
    };
    os_release::version_id(&text)
        .ok_or_else(|| format!("{:?} has no VERSION_ID", host.display_path(path)))
}

/// The overlays that are mounted over the host's files. `stores` are the data roots of engines that may have
/// the layers.
pub(crate) fn overlays(host: &HostRoot, stores: &[DataRoot]) -> Result<HostOverlays, String> {
    let mounts = host.read("/proc/mounts")?;
    Ok(layer_links::follow(host, MountedOverlays::parse(&mounts), stores))
}

/// The page size of the running kernel, in bytes.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// When the kernel booted, by the current clock.
pub(crate) fn boot_time(host: &HostRoot) -> Result<SystemTime, String> {
    let stat = host.read("/proc/stat")?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let seconds = seconds.ok_or_else(|| "/proc/stat has no btime".to_owned())?;
    // A clock that was never set can give any number.
    let booted = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    booted.ok_or_else(|| format!("/proc/stat has an impossible btime: {seconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_time_of(stat: &str) -> Result<SystemTime, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        let mut file = std::fs::File::create(folder.path().join("proc/stat")).unwrap();
        std::io::Write::write_all(&mut file, stat.as_bytes()).unwrap();
        boot_time(&HostRoot::new(folder.path().to_owned()))
    }

    #[test]
    fn the_boot_time_is_read_and_an_absurd_one_is_an_error() {
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(boot_time_of("cpu 1\nbtime 1\n"), Ok(second));
        for absurd in ["", "btime", "btime -1", "btime x", "btime 99999999999999999999"] {
            assert_eq!(boot_time_of(absurd), Err("/proc/stat has no btime".to_owned()), "{absurd}");
        }
        for seconds in [u64::MAX, i64::MAX.unsigned_abs() + 1] {
            let error = boot_time_of(&format!("btime {seconds}\n")).unwrap_err();
            assert!(error.contains("impossible btime"), "{error}");
        }
        assert!(boot_time_of(&format!("btime {}\n", i64::MAX)).is_ok());
    }
}
