//! Numbers that do not fit into 32 bits: sizes of files, and numbers of inodes. On 32-bit machines, `tests/arm` runs
//! these tests, too.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::capture;
use crate::container::Container;
use crate::process;
use crate::programs;

/// More than a signed and an unsigned number of 32 bits can express.
const SIZES: [u64; 2] = [(1 << 31) + 1, (1 << 32) + 1];

/// Extends a file to this size with zeroes that take no space. Makes it if it is missing.
fn sparse(path: &Path, size: u64) {
    // A hook cannot be run while a child of another test has it open.
    process::alone(|| {
        let file = File::options().create(true).append(true).open(path).unwrap();
        file.set_len(size).unwrap();
    });
}

#[test]
fn a_rootfs_with_large_files_is_applied_and_one_of_them_may_be_a_hook() {
    for size in SIZES {
        let container = Container::new();
        sparse(&container.path("rootfs/large"), size);
        container.hook("create", "stat -c %s \"$EXTENSION_ROOTFS/large\" > size; exit 0");
        container.hook("start", "touch started; exit 0");
        sparse(&container.path("rootfs/hooks/start"), size);
        container.create().ok();
        container.start().ok();
        assert_eq!(container.read("size"), size.to_string());
        assert!(container.has("started"));
        container.delete().ok();
    }
}

#[test]
fn a_large_configuration_is_refused_with_its_size() {
    for size in SIZES {
        let container = Container::new();
        sparse(&container.path("config.json"), size);
        container.create().fails(&[&format!("it has {size} bytes")]);
        container.left_nothing();
    }
}

#[test]
fn check_reads_a_directory_with_large_files() {
    for size in SIZES {
        let container = Container::new();
        container.hook("start", "true");
        sparse(&container.path("rootfs/large"), size);
        let mut check = Command::new(programs::manager());
        check.args(["check", "--format", "json"]).arg(container.path("rootfs"));
        let document = capture::run(&mut check).json();
        let findings = document["reports"][0]["findings"].as_array().unwrap();
        let about_it = |finding: &&serde_json::Value| finding["path"].as_str() == Some("large");
        assert_eq!(findings.iter().filter(about_it).count(), 0, "{document}");
    }
}

/// A filesystem whose inodes have large numbers. It is unmounted when this is dropped.
struct LargeInodes {
    folder: tempfile::TempDir,
}

impl LargeInodes {
    /// XFS makes the number of an inode from its place: those in the upper part of 8 TiB have more than 32 bits.
    fn mount() -> Self {
        let folder = tempfile::Builder::new().prefix("large-inodes-").tempdir().unwrap();
        let (image, place) = (folder.path().join("image"), folder.path().join("mounted"));
        sparse(&image, 8 << 40);
        std::fs::create_dir(&place).unwrap();
        let mut make = Command::new("mkfs.xfs");
        capture::run(make.args(["-q", "-K", "-l", "size=64m"]).arg(&image)).ok();
        capture::run(Command::new("mount").args(["-o", "loop,inode64"]).arg(&image).arg(&place))
            .ok();
        Self { folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("mounted")
    }
}

impl Drop for LargeInodes {
    fn drop(&mut self) {
        let _reported_by_the_directory_that_cannot_be_removed =
            Command::new("umount").arg(self.path()).status();
    }
}

/// `delete --force` finds the command that works on the container by the number of its inode in `/proc/locks`, of
/// which a 32-bit kernel shows one half.
#[test]
fn a_state_directory_with_a_large_inode_is_locked_and_its_holder_is_found() {
    let disk = LargeInodes::mount();
    let container = Container::new();
    container.hook("create", "echo $$ > part; mv part hung; exec sleep 1000");
    let call = |root: &Path, verb: &[&str]| {
        let mut command = Command::new(programs::runtime());
        command.env_clear().arg("--root").arg(root).args(verb);
        command
    };
    // Every new directory is in another part of the disk than the one before it.
    for attempt in 0..16 {
        let root = disk.path().join(attempt.to_string());
        let mut create = call(&root, &["create", "--bundle", container.text(), &container.id]);
        let mut create = capture::start(&mut create);
        process::wait_for("the hook", || container.has("hung").then_some(()));
        let hook: i32 = container.read("hung").parse().unwrap();
        std::fs::remove_file(container.path("hung")).unwrap();
        let inode = std::fs::metadata(root.join(&container.id)).unwrap().ino();

        capture::run(&mut call(&root, &["delete", "--force", &container.id])).ok();
        let created = process::wait_for("create to end", || create.ended());
        assert_eq!(created.code(), 137, "the holder of the lock was not killed: {created}");
        assert!(!process::is_alive(hook));
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        if inode > u64::from(u32::MAX) {
            return;
        }
    }
    panic!("no directory had a large inode");
}
