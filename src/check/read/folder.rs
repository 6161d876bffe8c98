//! Lists a folder: the rootfs of an extension whole, the root of a host only where it is asked about.

use crate::check::read::{ENTRIES_MAX, Names, READ_MAX, WHOLE_MAX, probe};
use crate::check::rules::content::wanted;
use crate::check::rules::tree::{
    Content, Entry, Kind, Layer, Outside, Resolved, TooMuch, Tree, WEIGHT_MAX, join,
};
use crate::model::container::exit::elf_machine;
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeSet, VecDeque};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Why a folder cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("list {path:?}")]
    List { path: PathBuf, source: io::Error },
    #[error("read {path:?}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} has more than {ENTRIES_MAX} files: is it the rootfs of an extension?")]
    TooMany { path: PathBuf },
    #[error(
        "{path:?} has more than {READ_MAX} bytes of kernels and modules: is it the rootfs of an \
         extension?"
    )]
    TooLong { path: PathBuf },
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

/// Lists all that is in `root`, links not followed.
///
/// # Errors
/// Names the first file that cannot be read: a check that left something out would prove nothing.
pub(crate) fn load(root: &Path) -> Result<Tree, Error> {
    load_within(root, READ_MAX)
}

fn load_within(root: &Path, most: u64) -> Result<Tree, Error> {
    let mut layer = Layer::default();
    let mut read_whole = 0_u64;
    // The name is for people, the path is what the kernel calls it: it need not be UTF-8.
    let mut ahead = vec![(String::new(), root.to_owned())];
    while let Some((folder, path)) = ahead.pop() {
        let listing = |source: io::Error| Error::List { path: path.clone(), source };
        if is_opaque(&path) {
            layer.add_opaque(&folder)?;
        }
        for item in std::fs::read_dir(&path).map_err(listing)? {
            let item = item.map_err(listing)?;
            let name = join(&folder, &item.file_name().to_string_lossy());
            let path = item.path();
            let metadata = std::fs::symlink_metadata(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                layer.add_overlay_whiteout(&name)?;
                continue;
            }
            let size = metadata.len();
            if metadata.is_file() && size <= WHOLE_MAX && wanted(&name).is_whole() {
                // Holes take no space, and time all the same.
                read_whole += size;
                if read_whole > most {
                    return Err(Error::TooLong { path: root.to_owned() });
                }
            }
            let reading = |source: io::Error| Error::Read { path: path.clone(), source };
            let entry =
                entry(&metadata, &path, |mut file| probe(&name, size, Names::One, &mut file))
                    .map_err(reading)?;
            let is_folder = entry.is_folder();
            layer.add(&name, entry)?;
            if is_folder {
                ahead.push((name, path));
            }
            if layer.len() > ENTRIES_MAX {
                return Err(Error::TooMany { path: root.to_owned() });
            }
            if layer.weight() > WEIGHT_MAX {
                return Err(TooMuch.into());
            }
        }
    }
    let mut tree = Tree::default();
    tree.add_layer(layer)?;
    Ok(tree)
}

fn entry(
    metadata: &Metadata,
    path: &Path,
    content: impl FnOnce(File) -> io::Result<Content>,
) -> io::Result<Entry> {
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        Kind::Folder
    } else if file_type.is_symlink() {
        Kind::Link { target: std::fs::read_link(path)?.to_string_lossy().into_owned() }
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_file() {
        let mut content = content(open(path)?)?;
        content.capable = has_capabilities(path);
        Kind::File(content)
    } else {
        Kind::Device
    };
    Ok(Entry { kind, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() })
}

/// Neither through a link nor waiting for the other end of a FIFO, whatever the file has become.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn has_capabilities(path: &Path) -> bool {
    rustix::fs::lgetxattr(path, "security.capability", &mut [0_u8; 64]).is_ok()
}

/// Whether overlayfs takes the folder for one that hides what lies below it (kernel documentation,
/// filesystems/overlayfs). Only root sees the first attribute.
fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        rustix::fs::lgetxattr(path, *name, &mut value).is_ok_and(|len| len == 1) && value == *b"y"
    })
}

/// Lists of the host below `root` what stands at the paths `wanted` and on the way there, links
/// followed inside.
///
/// # Errors
/// `root` is no folder.
pub(crate) fn look(root: &Path, wanted: &BTreeSet<String>) -> Result<Tree, Error> {
    std::fs::read_dir(root).map_err(|source| Error::List { path: root.to_owned(), source })?;
    let mut layer = Layer::default();
    let mut seen = BTreeSet::new();
    for path in wanted {
        look_along(root, path, &mut layer, &mut seen)?;
    }
    let mut tree = Tree::default();
    tree.add_layer(layer)?;
    Ok(tree)
}

fn look_along(
    root: &Path,
    path: &str,
    layer: &mut Layer,
    seen: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let mut ahead: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    let mut here = String::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                here = here.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                continue;
            }
            _ => {}
        }
        let next = join(&here, &name);
        let full = root.join(&next);
        // What is missing, or in the way, is just not there for the rules.
        let Ok(metadata) = std::fs::symlink_metadata(&full) else { return Ok(()) };
        let reading = |source: io::Error| Error::Read { path: full.clone(), source };
        let found = entry(&metadata, &full, |_| Ok(Content::default())).map_err(reading)?;
        if let Kind::Link { target } = &found.kind {
            links += 1;
            if links > 40 {
                return Ok(());
            }
            for part in target.rsplit('/') {
                ahead.push_front(part.to_owned());
            }
            if target.starts_with('/') {
                here = String::new();
            }
        } else {
            here = next.clone();
        }
        if seen.insert(next.clone()) {
            layer.add(&next, found)?;
        }
    }
    Ok(())
}

/// The processor of the host below `root`, as its shell says it. `None` if there is none to ask.
pub(crate) fn machine(root: &Path) -> Option<&'static str> {
    let programs = ["bin/sh", "usr/bin/env", "sbin/init", "usr/lib/systemd/systemd"];
    let wanted = programs.iter().map(|&path| path.to_owned()).collect();
    let tree = look(root, &wanted).ok()?;
    programs.iter().find_map(|program| {
        let Resolved::Found { path, .. } = tree.resolve(program) else { return None };
        let mut head = Vec::new();
        open(&root.join(path)).ok()?.take(64).read_to_end(&mut head).ok()?;
        elf_machine(&head)
    })
}

/// The processor of this machine, as `uname -m` says it.
pub(crate) fn own_machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_folder_is_listed_as_it_is() {
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
        assert_eq!(tree.at("link").unwrap().kind, Kind::Link { target: "/etc/passwd".to_owned() });
        assert_eq!(tree.at("fifo").unwrap().kind, Kind::Fifo);
        assert_eq!(tree.whiteouts().len(), 1);
        assert!(matches!(load(&root.0.path().join("nowhere")), Err(Error::List { .. })));
    }

    #[test]
    fn names_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStrExt as _;
        let root = Root(tempfile::tempdir().unwrap());
        let folder = root.0.path().join(std::ffi::OsStr::from_bytes(b"f\xff"));
        std::fs::create_dir(&folder).unwrap();
        File::create(folder.join("x")).unwrap();
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
        assert!(load_within(root.0.path(), 24).is_ok());
        assert!(matches!(load_within(root.0.path(), 23), Err(Error::TooLong { .. })));
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
                (Resolved::Root | Resolved::Missing | Resolved::Loop, Err(_)) => {}
                (ours, theirs) => panic!("{target}: {ours:?}, the runtime: {theirs:?}"),
            }
            std::fs::remove_file(&hook).unwrap();
        }
        // The folder itself a link, and in it what the runtime finds or misses.
        root.file("other/start", b"#!/bin/sh\n", 0o755);
        symlink("/nowhere", root.0.path().join("other/create")).unwrap();
        for target in ["/other", "nowhere", "/bin/tool", "hooks", "../.."] {
            std::fs::remove_dir(root.0.path().join("hooks"))
                .or_else(|_| std::fs::remove_file(root.0.path().join("hooks")))
                .unwrap();
            symlink(target, root.0.path().join("hooks")).unwrap();
            let theirs = Rootfs::open("/", path).unwrap();
            let tree = load(root.0.path()).unwrap();
            let broken = crate::check::rules::hooks::broken(&tree);
            for verb in [Verb::Create, Verb::Start, Verb::Delete] {
                let refused = theirs.hook(verb).is_err();
                assert_eq!(broken.contains(&verb.path()), refused, "{target} {verb:?}");
            }
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        List { path, source }, Read { path, source }, TooMany { path }, TooLong { path },
        Outside(..), TooMuch(..),
    }
}
