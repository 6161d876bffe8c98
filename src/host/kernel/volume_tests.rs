//! Tests of filling a volume. tests/it/kernel kills the program at each step.

use super::*;
use std::fs::{File, Permissions};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

struct Folders(tempfile::TempDir);

impl Folders {
    fn new() -> Self {
        let folders = Self(tempfile::tempdir().unwrap());
        for name in ["boot", "volume"] {
            std::fs::create_dir(folders.path(name)).unwrap();
        }
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        File::create(self.path(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    fn fill_if(&self, is_interrupted: &dyn Fn() -> bool) -> Result<Filled, Error> {
        let [boot, volume] = ["boot", "volume"].map(|name| File::open(self.path(name)).unwrap());
        let path = self.path("volume");
        Fill { boot: boot.as_fd(), volume: volume.as_fd(), path: &path, is_interrupted }.run()
    }

    fn fill(&self) -> Result<Filled, Error> {
        self.fill_if(&|| false)
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

#[test]
fn files_directories_and_links_are_copied_with_their_modes() {
    let folders = Folders::new();
    folders.write("boot/vmlinuz", "kernel");
    folders.write("boot/a/b/c", "deep");
    folders.write("boot/empty", "");
    symlink("vmlinuz", folders.path("boot/link")).unwrap();
    symlink("/nowhere", folders.path("boot/dangling")).unwrap();
    for (name, mode) in [("boot/vmlinuz", 0o4751), ("boot/a", 0o500), ("boot/a/b", 0o1777)] {
        std::fs::set_permissions(folders.path(name), Permissions::from_mode(mode)).unwrap();
    }
    assert_eq!(folders.fill().unwrap(), Filled::Now { skipped: Vec::new() });
    assert_eq!(folders.read("volume/vmlinuz"), "kernel");
    assert_eq!(folders.read("volume/a/b/c"), "deep");
    assert_eq!(folders.read("volume/empty"), "");
    for (name, expected) in [("vmlinuz", 0o4751), ("a", 0o500), ("a/b", 0o1777)] {
        assert_eq!(mode(&folders.path("volume").join(name)), expected, "{name}");
    }
    let target = |name: &str| std::fs::read_link(folders.path(name)).unwrap();
    assert_eq!(target("volume/link"), Path::new("vmlinuz"));
    assert_eq!(target("volume/dangling"), Path::new("/nowhere"));
    assert!(!folders.has("volume/.fabricating"));
}

#[test]
fn the_copy_belongs_to_root_and_has_no_attributes() {
    let folders = Folders::new();
    folders.write("boot/vmlinuz", "kernel");
    folders.write("boot/a/b", "deep");
    symlink("vmlinuz", folders.path("boot/link")).unwrap();
    for name in ["vmlinuz", "a", "a/b", "link"] {
        let path = folders.path("boot").join(name);
        std::os::unix::fs::lchown(&path, Some(1000), Some(1000)).unwrap();
        if name != "link" {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, "user.x", b"y", flags).expect("extended attributes");
        }
    }
    folders.fill().unwrap();
    for name in ["vmlinuz", "a", "a/b", "link"] {
        let path = folders.path("volume").join(name);
        let owner = path.symlink_metadata().unwrap();
        assert_eq!((owner.uid(), owner.gid()), (0, 0), "{name}");
        let left = rustix::fs::lgetxattr(&path, "user.x", &mut [0; 8]);
        assert_eq!(left, Err(Errno::NODATA), "{name}");
    }
}

#[test]
fn special_files_are_skipped_and_named() {
    let folders = Folders::new();
    folders.write("boot/a/file", "");
    let fifo = folders.path("boot/a/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let _listener = UnixListener::bind(folders.path("boot/socket")).unwrap();
    let Filled::Now { mut skipped } = folders.fill().unwrap() else { panic!() };
    skipped.sort();
    assert_eq!(skipped, [Path::new("a/fifo"), Path::new("socket")]);
    assert!(folders.has("volume/a/file") && !folders.has("volume/a/fifo"));
}

#[test]
fn a_filled_volume_is_left_alone_and_a_half_filled_one_is_filled_again() {
    let folders = Folders::new();
    folders.write("boot/vmlinuz", "new");
    folders.write("volume/vmlinuz", "old");
    assert_eq!(folders.fill().unwrap(), Filled::Before);
    assert_eq!(folders.read("volume/vmlinuz"), "old");
    folders.write("volume/.fabricating", "");
    folders.write("volume/x/.fabricating/y/z", "");
    symlink("x", folders.path("volume/link")).unwrap();
    let number = || folders.path("volume").metadata().unwrap().ino();
    let before = number();
    assert_eq!(folders.fill().unwrap(), Filled::Now { skipped: Vec::new() });
    assert_eq!(number(), before, "the engine's directory itself is kept");
    assert_eq!(folders.read("volume/vmlinuz"), "new");
    let left = std::fs::read_dir(folders.path("volume")).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn an_image_with_the_marker_is_an_error_and_the_volume_remains_empty() {
    let folders = Folders::new();
    folders.write("boot/.fabricating", "");
    assert!(matches!(folders.fill(), Err(Error::ShipsMarker)));
    assert_eq!(std::fs::read_dir(folders.path("volume")).unwrap().count(), 0);
    let folders = Folders::new();
    folders.write("boot/a/.fabricating", "");
    folders.fill().expect("the marker is at the top");
    assert!(folders.has("volume/a/.fabricating"));
}

/// The check is on the blocks that a file has, since holes are not copied.
#[test]
fn a_copy_that_does_not_fit_is_refused_before_anything_is_written() {
    let folders = Folders::new();
    folders.write("boot/vmlinuz", "kernel");
    File::options()
        .write(true)
        .open(folders.path("boot/vmlinuz"))
        .unwrap()
        .set_len(1 << 42)
        .unwrap();
    folders.fill().expect("a file that is nearly all hole");
    assert!(folders.path("volume/vmlinuz").metadata().unwrap().blocks() < 100);
    // No test can fill this disk, but the figures are in the error.
    let error = Error::NoRoom { path: "/v".into(), needed: 7, free: 5 }.to_string();
    assert!(error.contains("7") && error.contains("5"), "{error}");
}

#[test]
fn an_interruption_leaves_the_marker() {
    let folders = Folders::new();
    for number in 0..10 {
        folders.write(&format!("boot/{number}"), "x");
    }
    let asked = std::cell::Cell::new(0);
    let is_interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() > 8
    };
    assert!(matches!(folders.fill_if(&is_interrupted), Err(Error::Interrupted { .. })));
    assert!(folders.has("volume/.fabricating"));
    let volume = File::open(folders.path("volume")).unwrap();
    assert!(is_unfinished(volume.as_fd()).unwrap());
    assert_eq!(folders.fill().unwrap(), Filled::Now { skipped: Vec::new() });
    assert!(!is_unfinished(volume.as_fd()).unwrap());
    assert!(folders.has("volume/9"));
}

#[test]
fn another_call_that_fills_the_volume_is_waited_for() {
    let folders = Folders::new();
    folders.write("boot/vmlinuz", "kernel");
    let other = File::open(folders.path("volume")).unwrap();
    assert!(try_lock(&other, FlockOperation::NonBlockingLockExclusive).unwrap());
    let asked = std::cell::Cell::new(0);
    let is_interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    assert!(matches!(folders.fill_if(&is_interrupted), Err(Error::Interrupted { .. })));
    assert!(!folders.has("volume/vmlinuz") && !folders.has("volume/.fabricating"));
    drop(other);
    folders.fill().unwrap();
}

#[test]
fn trees_of_any_depth_and_holes_are_copied() {
    let folders = Folders::new();
    let deep = "d/".repeat(600);
    folders.write(&format!("boot/{deep}file"), "deep");
    let mut file = File::create(folders.path("boot/sparse")).unwrap();
    file.seek(std::io::SeekFrom::Start(50 << 20)).unwrap();
    file.write_all(b"end").unwrap();
    folders.fill().unwrap();
    assert_eq!(folders.read(&format!("volume/{deep}file")), "deep");
    let copy = folders.path("volume/sparse").metadata().unwrap();
    assert!(copy.len() == (50 << 20) + 3 && copy.blocks() < 1000, "{}", copy.blocks());
}
