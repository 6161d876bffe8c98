//! The files of os-release(5), in their order; `model/kernel/os_release.rs` reads them.

use crate::host::os::host_root::HostRoot;
use crate::model::kernel::os_release;

/// `VERSION_ID` of the host.
///
/// # Errors
/// Which file cannot be read, or has no version.
pub(crate) fn version_id(host: &HostRoot) -> Result<String, String> {
    let first = "/etc/os-release";
    let (path, text) = match host.read_if_there(first)? {
        Some(text) => (first, text),
        // os-release(5): the second one stands in for a first one that is not there at all.
        None => {
            let second = "/usr/lib/os-release";
            (second, host.read(second)?)
        }
    };
    os_release::version_id(&text).ok_or_else(|| format!("{:?} has no VERSION_ID", host.shown(path)))
}
