//! The root filesystem slot that runs: the device of `/mnt/sysroot/active`, compared with the labels of both slots.

use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::mounts;
use crate::model::kernel::records::Slot;
use std::io;
use std::path::{Path, PathBuf};

/// Where the root filesystem that runs is mounted, whatever is layered over it.
const ACTIVE: &str = "/mnt/sysroot/active";
/// The links by label.
const LABELS: [(&str, Slot); 4] = [
    ("/dev/disk/by-label/resin-rootA", Slot::A),
    ("/dev/disk/by-label/balena-rootA", Slot::A),
    ("/dev/disk/by-label/resin-rootB", Slot::B),
    ("/dev/disk/by-label/balena-rootB", Slot::B),
];

/// Why the slot is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownSlot {
    #[error("the running root filesystem slot is unknown: {why}")]
    Mounts { why: String },
    #[error(
        "the running root filesystem slot is unknown: nothing is mounted at {ACTIVE} (by {mounts:?})"
    )]
    NotMounted { mounts: PathBuf },
    #[error("the running root filesystem slot is unknown: cannot find the device {path:?}")]
    Device { path: PathBuf, source: io::Error },
    #[error(
        "the running root filesystem slot is unknown: {device:?} is the device of {ACTIVE}, and no label of slot A \
         or B in /dev/disk/by-label leads to it"
    )]
    NoLabel { device: PathBuf },
    #[error(
        "the running root filesystem slot is unknown: the labels of both slots lead to {device:?}"
    )]
    BothLabels { device: PathBuf },
}

/// Finds the slot that runs. It is never guessed.
pub(crate) fn running(host: &HostRoot) -> Result<Slot, UnknownSlot> {
    let mounts = host.read("/proc/mounts").map_err(|why| UnknownSlot::Mounts { why })?;
    let source = mounts::source_of(&mounts, ACTIVE);
    let Some(source) = source else {
        return Err(UnknownSlot::NotMounted { mounts: host.display_path("/proc/mounts") });
    };
    let device = find(host, Path::new(&source))?.ok_or_else(|| UnknownSlot::Device {
        path: host.display_path(&source),
        source: io::ErrorKind::NotFound.into(),
    })?;
    let mut slots = Vec::new();
    for (label, slot) in LABELS {
        if find(host, Path::new(label))?.as_ref() == Some(&device) && !slots.contains(&slot) {
            slots.push(slot);
        }
    }
    match slots.as_slice() {
        [slot] => Ok(*slot),
        [] => Err(UnknownSlot::NoLabel { device }),
        _ => Err(UnknownSlot::BothLabels { device }),
    }
}

/// The device that a path leads to; `None` if it leads nowhere.
fn find(host: &HostRoot, path: &Path) -> Result<Option<PathBuf>, UnknownSlot> {
    match host.find(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(source) => Err(UnknownSlot::Device { path: host.display_path(path), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn slot(mounts: &str, links: &[(&str, &str)]) -> Result<Slot, UnknownSlot> {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        for directory in ["proc", "dev/disk/by-label"] {
            std::fs::create_dir_all(folder.path().join(directory)).unwrap();
        }
        let mut file = std::fs::File::create(folder.path().join("proc/mounts")).unwrap();
        std::io::Write::write_all(&mut file, mounts.as_bytes()).unwrap();
        for device in ["sda2", "sda3"] {
            std::fs::File::create(folder.path().join("dev").join(device)).unwrap();
        }
        symlink("sda3", folder.path().join("dev/root")).unwrap();
        for (label, target) in links {
            symlink(target, folder.path().join("dev/disk/by-label").join(label)).unwrap();
        }
        running(&host)
    }

    #[test]
    fn the_slot_is_the_one_whose_label_leads_to_the_mounted_device() {
        let both = [("resin-rootA", "../../sda2"), ("resin-rootB", "../../sda3")];
        let balena = [("balena-rootA", "/dev/sda2"), ("balena-rootB", "/dev/sda3")];
        let active = |device: &str| {
            format!("/dev/sda9 / ext4 rw 0 0\n{device} /mnt/sysroot/active ext4 ro 0 0\n")
        };
        assert_eq!(slot(&active("/dev/sda2"), &both).unwrap(), Slot::A);
        assert_eq!(slot(&active("/dev/sda3"), &both).unwrap(), Slot::B);
        assert_eq!(slot(&active("/dev/root"), &both).unwrap(), Slot::B);
        assert_eq!(slot(&active("/dev/sda2"), &balena).unwrap(), Slot::A);
        // The first of several lines.
        let twice = format!("{}overlay /mnt/sysroot/active overlay ro 0 0\n", active("/dev/sda2"));
        assert_eq!(slot(&twice, &both).unwrap(), Slot::A);
    }

    #[test]
    fn what_is_not_certain_is_unknown() {
        let both = [("resin-rootA", "../../sda2"), ("resin-rootB", "../../sda3")];
        for (mounts, links, expected) in [
            ("", both.as_slice(), "nothing is mounted"),
            ("/dev/sda2 /mnt/sysroot/active2 ext4 ro 0 0\n", &both, "nothing is mounted"),
            ("/dev/sdz /mnt/sysroot/active ext4 ro 0 0\n", &both, "cannot find the device"),
            ("/dev/sda2 /mnt/sysroot/active ext4 ro 0 0\n", &[], "no label"),
            (
                "/dev/sda2 /mnt/sysroot/active ext4 ro 0 0\n",
                &[("resin-rootA", "../../sda2"), ("balena-rootB", "../../sda2")],
                "both slots",
            ),
            (
                "/dev/sda2 /mnt/sysroot/active ext4 ro 0 0\n",
                &[("resin-rootA", "resin-rootA")],
                "cannot find the device",
            ),
        ] {
            let error = slot(mounts, links).unwrap_err().to_string();
            assert!(error.contains(expected), "{mounts:?}: {error}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum UnknownSlot {
        Mounts { why }, NotMounted { mounts }, Device { path, source }, NoLabel { device },
        BothLabels { device },
    }
}
