//! The boot mounts, and the boot loaders' files on them, read under the shared lock that their writers respect.
//! `model/kernel/block.rs` and `model/kernel/rollback.rs` parse the files and decide whether an OS update can still
//! roll back.

use crate::host::os::flock;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::block::{Block, InvalidBlock, MAX_LEN};
use crate::model::kernel::mounts;
use crate::model::kernel::rollback::{self, BootFile, BootMount, BootPartition, FILES, Rollback};
use crate::model::text::cause::{chain, in_words};
use rustix::fs::{FlockOperation, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the boot partition is mounted.
const BOOT: &str = "/mnt/boot";
/// balenaOS mounts each of its partitions on a directory in here.
const MOUNTS: &str = "/mnt";
/// udev makes a link for each partition here, by its label.
const LABELS: [&str; 2] = ["/dev/disk/by-state", "/dev/disk/by-label"];
/// The prefix of the label of an unencrypted boot partition; the rest is its directory in `/mnt`.
const PREFIX: &str = "balena-";

/// The block that names the kernel to boot next.
const BLOCK: &str = "bootenv";

/// How long a writer may hold the lock: it writes the file at once. A program that holds it longer only
/// holds it, for which permission to read the file is enough.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How long the file must stay the same to be accepted without the lock.
const UNCHANGED_FOR: Duration = Duration::from_millis(50);

/// Why a file of a boot loader cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the boot partition is not mounted at {directory:?}, so the boot environment cannot be read"
    )]
    NotMounted { directory: PathBuf },
    #[error("cannot read the boot environment {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "the boot environment {path:?} is locked by another program, and its content is changing"
    )]
    Locked { path: PathBuf },
    #[error("the boot environment {path:?} is damaged")]
    Invalid { path: PathBuf, source: InvalidBlock },
}

/// Reads the boot environment block. `None` if the host does not have one.
///
/// # Errors
/// The block may exist, and its content is unknown.
pub(crate) fn block(host: &HostRoot) -> Result<Option<Block>, Error> {
    for directory in std::iter::once(BOOT.to_owned()).chain(other_mounts(host)) {
        let path = format!("{directory}/{BLOCK}");
        if let Some(bytes) = read(host, &path)? {
            let path = host.display_path(&path);
            let block = Block::parse(&bytes);
            return block.map(Some).map_err(|source| Error::Invalid { path, source });
        }
    }
    // Either there is no block, or its partition is not mounted.
    if host.lacks_mount(BOOT) {
        return Err(Error::NotMounted { directory: host.display_path(BOOT) });
    }
    Ok(None)
}

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
        let can_roll_back = match read(host, &path) {
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

/// Reads a file, up to one byte more than it may have. `None` if it is missing.
///
/// # Errors
/// The file may exist, and its content is unknown.
fn read(host: &HostRoot, path: &str) -> Result<Option<Vec<u8>>, Error> {
    let shown = host.display_path(path);
    let failed = |source| Error::Read { path: shown.clone(), source };
    let file = match host.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => File::from(file),
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    read_open(&file, &shown).map(Some)
}

/// Reads the file under the lock. If another program keeps the lock, reads it twice without: a file that is
/// being written changes.
fn read_open(file: &File, path: &Path) -> Result<Vec<u8>, Error> {
    let once = || read_once(file);
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let deadline = Instant::now() + LOCK_LIMIT;
    let lock = flock::lock_until(file, FlockOperation::NonBlockingLockShared, deadline);
    if lock.map_err(failed)? {
        return once().map_err(failed);
    }
    let first = once().map_err(failed)?;
    std::thread::sleep(UNCHANGED_FOR);
    match once().map_err(failed)? == first {
        true => Ok(first),
        false => Err(Error::Locked { path: path.to_owned() }),
    }
}

fn read_once(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_LEN).unwrap_or(u64::MAX).saturating_add(1);
    file.rewind()?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn a_block_is_read_from_any_boot_mount_and_a_damaged_one_is_an_error() {
        let (_folder, root) = host(&[("/mnt/boot/bootenv", CLOSED)]);
        assert!(block(&root).unwrap().unwrap().can_roll_back());
        let (_folder, root) = host(&[("/mnt/boot/bootenv", "nonsense")]);
        assert!(matches!(block(&root), Err(Error::Invalid { .. })));
        let mounts = "/a /mnt/boot ext4 rw 0 0\n/b /mnt/imx vfat rw 0 0\n";
        let (_folder, root) =
            host(&[("/proc/mounts", mounts), ("/mnt/boot/", ""), ("/mnt/imx/bootenv", CLOSED)]);
        assert!(block(&root).unwrap().unwrap().can_roll_back());
    }

    #[test]
    fn a_host_without_a_boot_partition_has_no_block_and_an_unmounted_one_is_an_error() {
        let (_folder, root) = host(&[]);
        assert!(block(&root).unwrap().is_none());
        let (_folder, root) = host(&[("/mnt/boot/", "")]);
        assert!(matches!(block(&root), Err(Error::NotMounted { .. })));
        let (_folder, root) = host(&[("/mnt/boot/", ""), ("/proc/mounts", MOUNTED)]);
        assert!(block(&root).unwrap().is_none());
    }

    fn host_with(text: &str) -> (tempfile::TempDir, HostRoot) {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        File::create(host.display_path("/bootenv")).unwrap().write_all(text.as_bytes()).unwrap();
        (folder, host)
    }

    #[test]
    fn only_a_regular_file_is_read_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        File::create(host.display_path("/file")).unwrap().write_all(b"text").unwrap();
        std::fs::create_dir(host.display_path("/folder")).unwrap();
        nix::unistd::mkfifo(&host.display_path("/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read(&host, "/file").unwrap().unwrap(), b"text");
        for path in ["/missing", "/file/below"] {
            assert!(read(&host, path).unwrap().is_none(), "{path}");
        }
        for path in ["/folder", "/fifo"] {
            assert!(matches!(read(&host, path), Err(Error::Read { .. })), "{path}");
        }
    }

    #[test]
    fn a_program_that_only_holds_the_lock_does_not_keep_others_from_reading() {
        let (_folder, root) = host_with("text");
        let holder = File::open(root.display_path("/bootenv")).unwrap();
        rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
        let begun = Instant::now();
        assert_eq!(read(&root, "/bootenv").unwrap().unwrap(), b"text");
        assert!(begun.elapsed() >= LOCK_LIMIT && begun.elapsed() < 3 * LOCK_LIMIT);
    }

    #[test]
    fn a_block_that_is_written_under_the_lock_is_not_accepted() {
        let block = |value: u32| format!("# GRUB Environment Block\nx={value}\n###");
        let (_folder, root) = host_with(&block(1_000_000));
        let writer = File::options().write(true).open(root.display_path("/bootenv")).unwrap();
        rustix::fs::flock(&writer, FlockOperation::LockExclusive).unwrap();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let writing = std::thread::spawn(move || {
            let pause = Duration::from_millis(5);
            for value in 1_000_001.. {
                if is_done.recv_timeout(pause) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
                let text = block(value);
                std::os::unix::fs::FileExt::write_all_at(&writer, text.as_bytes(), 0).unwrap();
            }
        });
        let loaded = read(&root, "/bootenv");
        drop(done);
        writing.join().unwrap();
        assert!(matches!(loaded, Err(Error::Locked { .. })), "{loaded:?}");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        NotMounted { directory }, Read { path, source }, Locked { path }, Invalid { path, source },
    }
}
