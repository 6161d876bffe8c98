//! Whether a unit of systemd is installed and enabled, by its files (systemd.unit(5)).

use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::text::cause::in_words;
use rustix::fs::OFlags;
use std::io;

/// The directories of units. A unit is enabled by a link below one of them.
const DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Whether the unit is enabled; `None` if it is not installed.
pub(crate) fn is_enabled(host: &HostRoot, unit: &str) -> Result<Option<bool>, String> {
    let mut is_installed = false;
    for directory in DIRECTORIES {
        let failed = |error: io::Error| {
            format!("cannot list {:?}: {}", host.display_path(directory), in_words(&error))
        };
        let names = match host.names(directory) {
            Ok(names) => names,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return Err(failed(error)),
        };
        for name in names.iter().filter_map(|name| name.to_str()) {
            if name == unit {
                is_installed = true;
            }
            if name.ends_with(".wants") || name.ends_with(".requires") {
                // A link that is dangling here need not be so on its own host.
                let path = format!("{directory}/{name}/{unit}");
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
        let installed = host.display_path(DIRECTORIES[2]);
        std::fs::create_dir_all(&installed).unwrap();
        std::fs::File::create(installed.join("x.service")).unwrap();
        assert_eq!(is_enabled(&host, "x.service"), Ok(Some(false)));
        let wants = host.display_path(DIRECTORIES[0]).join("multi-user.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("/nowhere/x.service", wants.join("x.service")).unwrap();
        assert_eq!(is_enabled(&host, "x.service"), Ok(Some(true)));
    }
}
