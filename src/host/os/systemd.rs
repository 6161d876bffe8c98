//! The units of systemd, by their files: whether one is installed and enabled (systemd.unit(5)).

use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::text::cause::in_words;
use rustix::fs::OFlags;
use std::io;

/// Where units are installed, and below which they are enabled by links (systemd.unit(5)).
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Whether the unit is enabled; `None` if it is not installed.
///
/// # Errors
/// A sentence that says which folder cannot be looked into.
pub(crate) fn is_enabled(host: &HostRoot, unit: &str) -> Result<Option<bool>, String> {
    let mut is_installed = false;
    for folder in FOLDERS {
        let failed =
            |error: io::Error| format!("look into {:?}: {}", host.shown(folder), in_words(&error));
        let names = match host.names(folder) {
            Ok(names) => names,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(failed(error)),
        };
        for name in names.iter().filter_map(|name| name.to_str()) {
            if name == unit {
                is_installed = true;
            }
            if name.ends_with(".wants") || name.ends_with(".requires") {
                // A link that leads nowhere from here may lead somewhere on its own host.
                let path = format!("{folder}/{name}/{unit}");
                match host.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
                    Ok(_) => return Ok(Some(true)),
                    Err(error) if is_absence(&error) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
    }
    Ok(is_installed.then_some(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_enabled_by_a_link_wherever_that_leads() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        assert_eq!(is_enabled(&host, "x.service"), Ok(None));
        let installed = host.shown(FOLDERS[2]);
        std::fs::create_dir_all(&installed).unwrap();
        std::fs::File::create(installed.join("x.service")).unwrap();
        assert_eq!(is_enabled(&host, "x.service"), Ok(Some(false)));
        let wants = host.shown(FOLDERS[0]).join("multi-user.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("/nowhere/x.service", wants.join("x.service")).unwrap();
        assert_eq!(is_enabled(&host, "x.service"), Ok(Some(true)));
    }
}
