//! Lists a directory: the whole rootfs of an extension, or of a host only the paths that are asked for.

use crate::check::read::{Budget, ENTRIES_MAX, Names, probe};
use crate::check::rules::tree::{
    Content, Entry, EntryKind, FileTree, Layer, TooMuch, WEIGHT_MAX, Walk, Whiteout, join,
};
use crate::model::container::exit::elf_machine;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Why a directory cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error("cannot list {path:?}")]
    List { path: PathBuf, source: io::Error },
    #[error("cannot read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} has more than {ENTRIES_MAX} files: is it the rootfs of an extension?")]
    TooMany { path: PathBuf },
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

/// Lists everything in `root` without following links. Fails at the first file that cannot be read: a
/// check that skipped a file would prove nothing.
pub(crate) fn load(root: &Path) -> Result<FileTree, DirectoryError> {
    load_within(root, &Budget::default())
}

fn load_within(root: &Path, budget: &Budget) -> Result<FileTree, DirectoryError> {
    let mut layer = Layer::default();
    // The name is for people; the path need not be UTF-8.
    let mut ahead = vec![(String::new(), root.to_owned())];
    while let Some((directory, path)) = ahead.pop() {
        let listing = |source: io::Error| DirectoryError::List { path: path.clone(), source };
        if is_opaque(&path) {
            layer.add_whiteout(Whiteout::Opaque(directory.clone()));
        }
        for item in std::fs::read_dir(&path).map_err(listing)? {
            let item = item.map_err(listing)?;
            let name = join(&directory, &item.file_name().to_string_lossy());
            let path = item.path();
            let reading = |source: io::Error| DirectoryError::Read { path: path.clone(), source };
            let metadata = std::fs::symlink_metadata(&path).map_err(reading)?;
            if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                // The whiteout of overlayfs: a device 0/0 in the place of the file.
                layer.add_whiteout(Whiteout::Of(name));
                continue;
            }
            let read = |file| probe(&name, metadata.len(), Names::One, &mut budget.counted(file));
            let entry = entry(&metadata, &path, read).map_err(reading)?;
            let is_directory = entry.is_directory();
            layer.add(&name, entry);
            if is_directory {
                ahead.push((name, path));
            }
            if layer.len() > ENTRIES_MAX {
                return Err(DirectoryError::TooMany { path: root.to_owned() });
            }
            if layer.weight > WEIGHT_MAX {
                return Err(TooMuch.into());
            }
        }
    }
    let mut tree = FileTree::default();
    tree.add_layer(layer);
    Ok(tree)
}

fn entry(
    metadata: &Metadata,
    path: &Path,
    content: impl FnOnce(File) -> io::Result<Content>,
) -> io::Result<Entry> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        EntryKind::Directory
    } else if file_type.is_symlink() {
        EntryKind::Link { target: std::fs::read_link(path)?.to_string_lossy().into_owned() }
    } else if file_type.is_fifo() {
        EntryKind::Fifo
    } else if file_type.is_socket() {
        EntryKind::Socket
    } else if file_type.is_file() {
        let mut content = content(open(path)?)?;
        content.capable = has_capabilities(path);
        EntryKind::File(content)
    } else {
        EntryKind::Device
    };
    Ok(Entry { kind, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() })
}

/// Opens a file that may have been replaced by a link or a FIFO in the meantime: follows no link, and does
/// not wait for the other end of a FIFO.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn has_capabilities(path: &Path) -> bool {
    rustix::fs::lgetxattr(path, "security.capability", &mut [0_u8; 64]).is_ok()
}

/// Whether the directory is opaque to overlayfs (kernel documentation, filesystems/overlayfs). Only root
/// can read the first attribute.
fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        rustix::fs::lgetxattr(path, *name, &mut value).is_ok_and(|len| len == 1) && value == *b"y"
    })
}

/// Lists what the host below `root` has at the paths `wanted` and on the way there. Links are followed
/// inside `root`.
pub(crate) fn look(root: &Path, wanted: &BTreeSet<String>) -> Result<FileTree, DirectoryError> {
    std::fs::read_dir(root)
        .map_err(|source| DirectoryError::List { path: root.to_owned(), source })?;
    let mut layer = Layer::default();
    let mut seen = BTreeSet::new();
    for path in wanted {
        look_along(root, path, &mut layer, &mut seen)?;
    }
    let mut tree = FileTree::default();
    tree.add_layer(layer);
    Ok(tree)
}

fn look_along(
    root: &Path,
    path: &str,
    layer: &mut Layer,
    seen: &mut BTreeSet<String>,
) -> Result<(), DirectoryError> {
    let mut walk = Walk::along(path);
    while let Some(name) = walk.next_name() {
        if name == ".." {
            walk.go_up();
            continue;
        }
        let next = join(&walk.here, &name);
        let full = root.join(&next);
        let reading = |source: io::Error| DirectoryError::Read { path: full.clone(), source };
        let metadata = match std::fs::symlink_metadata(&full) {
            Err(error) if is_missing(&error) => return Ok(()),
            found => found.map_err(reading)?,
        };
        let found = entry(&metadata, &full, |_| Ok(Content::default())).map_err(reading)?;
        match found.target() {
            Some(target) => walk.follow(target),
            None => walk.here.clone_from(&next),
        }
        if seen.insert(next.clone()) {
            layer.add(&next, found);
        }
    }
    Ok(())
}

/// Whether there cannot be such a file. Any other error leaves that open.
fn is_missing(error: &io::Error) -> bool {
    let too_long = error.raw_os_error() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error());
    let kinds =
        [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::InvalidInput];
    too_long || kinds.contains(&error.kind())
}

/// The processor that the programs of the host below `root` are for. `None` if it has none of them.
pub(crate) fn machine(root: &Path) -> Option<&'static str> {
    let programs = ["bin/sh", "usr/bin/env", "sbin/init", "usr/lib/systemd/systemd"];
    let wanted = programs.iter().map(|&path| path.to_owned()).collect();
    let tree = look(root, &wanted).ok()?;
    programs.iter().find_map(|program| {
        let (path, _) = tree.resolve(program).found()?;
        let mut head = Vec::new();
        open(&root.join(path)).ok()?.take(64).read_to_end(&mut head).ok()?;
        elf_machine(&head)
    })
}

/// The processor of this machine, as `uname -m` shows it.
pub(crate) fn own_machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tree::Resolved;
    use crate::model::text::cause::chain;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    struct Root(tempfile::TempDir);

    impl Root {
        fn file(&self, path: &str, bytes: &[u8], mode: u32) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut File::create(&path).unwrap(), bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    #[test]
    fn a_directory_is_listed_as_it_is() {
        let root = Root(tempfile::tempdir().unwrap());
        root.file("hooks/start", b"#!/bin/sh\necho\n", 0o4755);
        root.file("boot/kernel", b"", 0o644);
        root.file("low/.wh.gone", b"", 0o644);
        symlink("/etc/passwd", root.0.path().join("link")).unwrap();
        let fifo = root.0.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let tree = load(root.0.path()).unwrap();
        let hook = tree.at("hooks/start").unwrap();
        assert_eq!(hook.mode, 0o4755);
        assert_eq!(hook.content().unwrap().head, b"#!/bin/sh");
        assert!(tree.at("boot/kernel").unwrap().content().unwrap().sha256.is_some());
        assert_eq!(
            tree.at("link").unwrap().kind,
            EntryKind::Link { target: "/etc/passwd".to_owned() }
        );
        assert_eq!(tree.at("fifo").unwrap().kind, EntryKind::Fifo);
        assert_eq!(tree.whiteouts().len(), 1);
        assert!(matches!(load(&root.0.path().join("nowhere")), Err(DirectoryError::List { .. })));
    }

    #[test]
    fn names_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStrExt as _;
        let root = Root(tempfile::tempdir().unwrap());
        let directory = root.0.path().join(std::ffi::OsStr::from_bytes(b"f\xff"));
        std::fs::create_dir(&directory).unwrap();
        File::create(directory.join("x")).unwrap();
        assert!(load(root.0.path()).unwrap().at("f\u{fffd}/x").is_some());
    }

    #[test]
    fn files_that_are_mostly_holes_are_not_read_without_end() {
        let root = Root(tempfile::tempdir().unwrap());
        root.file("boot/huge", b"", 0o644);
        let huge = File::options().write(true).open(root.0.path().join("boot/huge")).unwrap();
        huge.set_len(1 << 40).unwrap();
        let tree = load(root.0.path()).unwrap();
        assert_eq!(tree.at("boot/huge").unwrap().content().unwrap().sha256, None);
        root.file("lib/modules/1/a.ko", b"vermagic=1 \0", 0o644);
        root.file("lib/modules/1/b.ko", b"vermagic=1 \0", 0o644);
        assert!(load_within(root.0.path(), &Budget::of(4096 + 24)).is_ok());
        let error = load_within(root.0.path(), &Budget::of(4096 + 23)).unwrap_err();
        assert!(chain(&error).contains(": more than 8 GiB of data"), "{}", chain(&error));
    }

    #[test]
    fn of_a_host_only_what_was_asked_is_listed_links_followed_inside_it() {
        let root = Root(tempfile::tempdir().unwrap());
        let elf = std::fs::read("/proc/self/exe").unwrap();
        root.file("usr/bin/real", &elf[..64], 0o755);
        root.file("etc/secret", b"", 0o600);
        symlink("/usr/bin", root.0.path().join("bin")).unwrap();
        symlink("real", root.0.path().join("usr/bin/sh")).unwrap();
        let wanted = ["/bin/sh", "/missing/x", "etc/secret/below"].map(str::to_owned).into();
        let tree = look(root.0.path(), &wanted).unwrap();
        let Resolved::Found { path, .. } = tree.resolve("/bin/sh") else { panic!("{tree:?}") };
        assert_eq!(path, "usr/bin/real");
        assert_eq!(tree.resolve("/missing/x"), Resolved::Missing);
        assert_eq!(tree.resolve("etc/secret/below"), Resolved::Missing);
        assert_eq!(machine(root.0.path()), elf_machine(&elf[..64]));
    }

    /// The runtime asks the kernel to follow the link, the rules follow it themselves.
    #[test]
    fn a_hook_is_found_by_the_rules_where_the_runtime_finds_it() {
        use crate::host::container::rootfs::Rootfs;
        use crate::model::extension::hook::Verb;
        let root = Root(tempfile::tempdir().unwrap());
        root.file("bin/tool", b"#!/bin/sh\n", 0o755);
        std::fs::create_dir(root.0.path().join("hooks")).unwrap();
        let hook = root.0.path().join("hooks/start");
        let path = root.0.path().to_str().unwrap();
        let targets = [
            "/bin/tool",
            "../bin/tool",
            "../../../bin/tool",
            "/bin/x",
            "start",
            "/",
            "/bin/tool/x",
        ];
        for target in targets {
            symlink(target, &hook).unwrap();
            let theirs = Rootfs::open("/", path).unwrap().hook(Verb::Start);
            let tree = load(root.0.path()).unwrap();
            match (tree.resolve("hooks/start"), theirs) {
                (Resolved::Found { path: ours, .. }, Ok(Some(theirs))) => {
                    assert_eq!(format!("{path}/{ours}"), theirs, "{target}");
                }
                (Resolved::Found { entry, .. }, Err(_)) if entry.is_directory() => {}
                (Resolved::Missing | Resolved::Loop, Err(_)) => {}
                (ours, theirs) => panic!("{target}: {ours:?}, the runtime: {theirs:?}"),
            }
            std::fs::remove_file(&hook).unwrap();
        }
        // The directory itself a link, and in it what the runtime finds or misses.
        root.file("other/start", b"#!/bin/sh\n", 0o755);
        symlink("/nowhere", root.0.path().join("other/create")).unwrap();
        for target in ["/other", "nowhere", "/bin/tool", "hooks", "../.."] {
            std::fs::remove_dir(root.0.path().join("hooks"))
                .or_else(|_| std::fs::remove_file(root.0.path().join("hooks")))
                .unwrap();
            symlink(target, root.0.path().join("hooks")).unwrap();
            let theirs = Rootfs::open("/", path).unwrap();
            let tree = load(root.0.path()).unwrap();
            let broken = crate::check::rules::hooks::tests::broken(&tree);
            for verb in [Verb::Create, Verb::Start, Verb::Delete] {
                let refused = theirs.hook(verb).is_err();
                assert_eq!(broken.contains(&verb.path()), refused, "{target} {verb:?}");
            }
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum DirectoryError {
        List { path, source }, Read { path, source }, TooMany { path }, TooMuch(..),
    }
}
