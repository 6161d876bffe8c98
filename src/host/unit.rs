//! The units of systemd, by their files: whether one is installed and enabled (systemd.unit(5)).

use crate::host::host_root::HostRoot;
use std::path::PathBuf;

/// Where units are installed, and below which they are enabled by links (systemd.unit(5)).
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Whether the unit is enabled; `None` if it is not installed.
pub(crate) fn is_enabled(host: &HostRoot, unit: &str) -> Option<bool> {
    let folders = FOLDERS.map(|folder| host.path(folder));
    let wanted = |folder: &PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let below = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.ends_with(".wants") || name.ends_with(".requires")
        });
        // A link that leads nowhere from here may lead somewhere on its own host.
        below.into_iter().any(|entry| entry.path().join(unit).symlink_metadata().is_ok())
    };
    if folders.iter().any(wanted) {
        return Some(true);
    }
    folders.iter().any(|folder| folder.join(unit).exists()).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_enabled_by_a_link_wherever_that_leads() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        assert_eq!(is_enabled(&host, "x.service"), None);
        let installed = host.path(FOLDERS[2]);
        std::fs::create_dir_all(&installed).unwrap();
        std::fs::File::create(installed.join("x.service")).unwrap();
        assert_eq!(is_enabled(&host, "x.service"), Some(false));
        let wants = host.path(FOLDERS[0]).join("multi-user.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("/nowhere/x.service", wants.join("x.service")).unwrap();
        assert_eq!(is_enabled(&host, "x.service"), Some(true));
    }
}
