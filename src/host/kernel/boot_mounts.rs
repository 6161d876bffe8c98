//! The boot mounts, and the boot loaders' files on them, which say whether an OS update can still roll back.
//! `model/kernel/block.rs` and `model/kernel/rollback.rs` parse the files and decide. `block.rs` has the one file that
//! this program also writes.

use crate::host::kernel::boot_file;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::mounts;
use crate::model::kernel::rollback::{self, BootFile, BootMount, BootPartition, FILES, Rollback};
use crate::model::text::cause::{chain, in_words};
use std::collections::BTreeSet;
use std::path::Path;

/// Where the boot partition is mounted.
const BOOT: &str = "/mnt/boot";
/// balenaOS mounts each of its partitions on a directory in here.
const MOUNTS: &str = "/mnt";
/// udev makes a link for each partition here, by its label.
const LABELS: [&str; 2] = ["/dev/disk/by-state", "/dev/disk/by-label"];
/// The prefix of the label of an unencrypted boot partition; the rest is its directory in `/mnt`.
const PREFIX: &str = "balena-";

/// Reads the files of all boot mounts, and whether an update can roll back.
pub(crate) fn rollback(host: &HostRoot) -> Rollback {
    Rollback::judge(&boot_mount(host, BOOT), &other_boot_mounts(host))
}

/// The other directories on which a boot partition may be mounted. A device with an encrypted boot partition
/// keeps the boot loader's files on an unencrypted one: `/mnt/efi`, `/mnt/imx`, `/mnt/rpi`, by its label.
fn other_mounts(host: &HostRoot) -> Vec<String> {
    let mounts = host.read("/proc/mounts").unwrap_or_default();
    let mut points = mounts::points_in(&mounts, MOUNTS);
    points.retain(|point| point != BOOT);
    points
}

fn other_boot_mounts(host: &HostRoot) -> Vec<BootMount> {
    let mounted = other_mounts(host);
    let (mut unreadable, mut labels) = (Vec::new(), Vec::new());
    for directory in LABELS {
        match host.names(directory) {
            Ok(names) => labels.extend(names),
            Err(error) if is_absence(&error) => {}
            Err(error) => {
                let shown = host.display_path(directory);
                unreadable.push(Err(format!("cannot list {shown:?}: {}", in_words(&error))));
            }
        }
    }
    let not_mounted: BTreeSet<String> = labels
        .iter()
        .filter_map(|label| Some(label.to_str()?.strip_prefix(PREFIX)?.to_owned()))
        .map(|name| format!("{MOUNTS}/{name}"))
        .filter(|point| point != BOOT && !mounted.contains(point))
        .collect();
    let points = mounted.into_iter().chain(not_mounted);
    unreadable.into_iter().chain(points.map(|point| boot_mount(host, &point))).collect()
}

fn boot_mount(host: &HostRoot, directory: &str) -> BootMount {
    let shown = host.display_path(directory).display().to_string();
    match host.has_directory(directory) {
        Ok(true) => {}
        Ok(false) => return host.dangling(directory).map_or(Ok(None), |link| Err(dangling(&link))),
        Err(error) => return Err(format!("cannot examine {shown:?}: {}", in_words(&error))),
    }
    if !host.is_mount_point(directory)? {
        return Err(format!("no boot partition is mounted at {shown:?}"));
    }
    let files = FILES.iter().filter_map(|(name, form)| {
        let path = format!("{directory}/{name}");
        let can_roll_back = match boot_file::read(host, &path) {
            Ok(Some(bytes)) => rollback::can_roll_back(*form, &bytes).map_err(|error| {
                format!("cannot read {:?}: {}", host.display_path(&path), chain(&error))
            }),
            Ok(None) => Err(dangling(&host.dangling(&path)?)),
            Err(error) => Err(chain(&error)),
        };
        Some(BootFile { path: host.display_path(&path).display().to_string(), can_roll_back })
    });
    Ok(Some(BootPartition { directory: shown, files: files.collect() }))
}

fn dangling(link: &Path) -> String {
    format!("the target of the link {link:?} is missing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    const CLOSED: &str = "# GRUB Environment Block\nupgrade_available=1\n###";
    const OPEN: &str = "# GRUB Environment Block\n###";
    const MOUNTED: &str = "/dev/sda1 /mnt/boot vfat rw 0 0\n";

    /// A host with these files; the text of a directory is empty.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, HostRoot) {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        for (path, text) in [&[("/proc/mounts", "")], files].concat() {
            let shown = host.display_path(path);
            match path.ends_with('/') {
                true => std::fs::create_dir_all(shown).unwrap(),
                false => {
                    std::fs::create_dir_all(shown.parent().unwrap()).unwrap();
                    File::create(shown).unwrap().write_all(text.as_bytes()).unwrap();
                }
            }
        }
        (folder, host)
    }

    fn word(host: &HostRoot) -> &'static str {
        match rollback(host) {
            Rollback::Impossible => "impossible",
            Rollback::Possible { .. } => "possible",
            Rollback::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn the_files_of_every_boot_loader_on_every_boot_mount_are_read() {
        let mounts = ("/proc/mounts", MOUNTED);
        let both = ("/proc/mounts", "/a /mnt/boot ext4 rw 0 0\n/b /mnt/efi vfat rw 0 0\n");
        let label = ("/dev/disk/by-label/balena-efi", "");
        for (files, expected) in [
            (&[][..], "impossible"),
            (&[("/mnt/boot/", "")], "unknown"),
            (&[("/mnt/boot/bootenv", OPEN)], "unknown"),
            (&[mounts, ("/mnt/boot/", "")], "unknown"),
            (&[mounts, ("/mnt/boot/bootenv", OPEN)], "impossible"),
            (&[mounts, ("/mnt/boot/bootenv", CLOSED)], "possible"),
            (&[mounts, ("/mnt/boot/bootenv", "torn")], "unknown"),
            (&[mounts, ("/mnt/boot/bootenv/", "")], "unknown"),
            (&[mounts, ("/mnt/boot/grubenv", CLOSED)], "possible"),
            (&[mounts, ("/mnt/boot/EFI/BOOT/grubenv", CLOSED)], "possible"),
            (&[mounts, ("/mnt/boot/grub/grubenv", CLOSED)], "possible"),
            (&[mounts, ("/mnt/boot/resinOS_uEnv.txt", "upgrade_available=1\n")], "possible"),
            (&[mounts, ("/mnt/boot/resinOS_uEnv.txt", "upgrade_available=0\n")], "impossible"),
            (
                &[mounts, ("/mnt/boot/bootenv", OPEN), ("/mnt/boot/grub/grubenv", CLOSED)],
                "possible",
            ),
            (&[mounts, ("/mnt/boot/bootenv", OPEN), ("/mnt/boot/grubenv", "")], "unknown"),
            // A device with an encrypted boot partition, and one that has none, with the same OS.
            (&[both, ("/mnt/boot/x", ""), ("/mnt/efi/bootenv", CLOSED)], "possible"),
            (&[both, ("/mnt/boot/x", ""), ("/mnt/efi/bootenv", OPEN)], "impossible"),
            (&[mounts, ("/mnt/boot/bootenv", OPEN), ("/mnt/efi/", ""), label], "unknown"),
            (&[mounts, ("/mnt/boot/bootenv", OPEN), ("/mnt/efi/", "")], "impossible"),
        ] {
            let (_folder, host) = host(files);
            assert_eq!(word(&host), expected, "{files:?}: {:?}", rollback(&host));
        }
        let (_folder, host) = host(&[("/mnt/boot/bootenv", OPEN)]);
        std::fs::remove_file(host.display_path("/proc/mounts")).unwrap();
        assert_eq!(word(&host), "unknown", "what is mounted cannot be read");
    }

    #[test]
    fn a_link_to_a_directory_that_is_not_mounted_is_not_a_missing_file() {
        let (_folder, host) = host(&[("/proc/mounts", MOUNTED), ("/mnt/boot/bootenv", OPEN)]);
        assert_eq!(word(&host), "impossible");
        symlink("/mnt/efi/EFI", host.display_path("/mnt/boot/EFI")).unwrap();
        let Rollback::Unknown { why } = rollback(&host) else { panic!() };
        assert!(why.contains("mnt/boot/EFI\" is missing"), "{why}");
    }
}
