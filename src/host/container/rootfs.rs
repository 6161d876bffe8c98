//! The rootfs. It comes from an image that is not trusted, so every path in it is resolved as if the rootfs were `/`
//! (openat2(2), RESOLVE_IN_ROOT), and no link leads out of it.

use crate::host::container::mount_namespace::MountView;
use crate::host::os::directory::{self, open_beneath, open_if_there, open_in_root};
use crate::host::os::process::Process;
use crate::model::container::state::SeenRootfs;
use crate::model::extension::hook::{FileKind, Unfit, Verb, fitness};
use crate::model::text::system_call::explained;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An open rootfs.
pub(crate) struct Rootfs {
    folder: OwnedFd,
    path: String,
    /// The mount namespace it was found in, if that is not this process's.
    home: Option<OwnedFd>,
}

/// Why a rootfs or a hook in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the rootfs {path:?} (root.path of config.json) is outside the bundle {bundle:?}")]
    Escapes { path: String, bundle: String },
    #[error("cannot open the rootfs {path:?} (root.path of config.json)")]
    Open { path: String, source: io::Error },
    #[error(
        "the rootfs {path:?} is not the one that create saw there: it has been unmounted or replaced, and \
         the container's mount namespace does not have it either; delete the container and create it again"
    )]
    Replaced { path: String },
    #[error(
        "the rootfs {path:?} that create saw no longer exists: it has been unmounted or removed; delete the \
         container and create it again"
    )]
    Gone { path: String, source: io::Error },
    #[error(
        "the rootfs {path:?} is an overlay that is not mounted in the mount namespace of this runtime, but in \
         another one: the engine and the containerd that runs its containers do not share their mounts \
         (MountFlags= or PrivateTmp= in the unit of one of them); give both units the same setting"
    )]
    MountedElsewhere { path: String },
    #[error("cannot check whether the rootfs {path:?} is mounted")]
    LookForMount { path: String, source: io::Error },
    #[error(
        "cannot look for the rootfs {path:?} in the mount namespace of the proxy process {pid}"
    )]
    LookInProxy { path: String, pid: i32, source: io::Error },
    #[error("cannot look for {hook} in the rootfs {rootfs:?}")]
    Look { hook: &'static str, rootfs: String, source: io::Error },
    #[error(
        "cannot determine whether the image brings a kernel: /boot in the rootfs {rootfs:?} cannot be listed"
    )]
    Boot { rootfs: String, source: io::Error },
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the path of hook {hook} is not UTF-8: {path:?}")]
    NotUtf8 { hook: &'static str, path: PathBuf },
}

impl Rootfs {
    /// Opens the rootfs that `root_path` names: absolute, or relative to the bundle and inside it.
    pub(crate) fn open(bundle: &str, root_path: &str) -> Result<Self, Error> {
        let path = Path::new(bundle).join(root_path).components().collect::<PathBuf>();
        let path = path.to_string_lossy().into_owned();
        let root_path = Path::new(root_path);
        let opened = match root_path.is_absolute() {
            true => directory::open(root_path),
            false => {
                directory::open(bundle).and_then(|bundle| open_beneath(bundle, root_path, FOLDER))
            }
        };
        match opened {
            Ok(folder) => Ok(Self { folder, path, home: None }),
            Err(Errno::XDEV) => Err(Error::Escapes { path, bundle: bundle.to_owned() }),
            Err(error) => Err(Error::Open { path, source: cause(error) }),
        }
    }

    /// Checks that it is mounted, if it is an overlay of Moby's or Podman's store (`<layer>/merged` beside
    /// `<layer>/lower`). Without the mount there is an empty directory, which looks like an image without hooks.
    pub(crate) fn check_mounted(&self) -> Result<(), Error> {
        let looking =
            |error: Errno| Error::LookForMount { path: self.path.clone(), source: error.into() };
        let path = Path::new(&self.path);
        let Some(layer) = path.parent().filter(|_| path.ends_with("merged")) else { return Ok(()) };
        match rustix::fs::lstat(layer.join("lower")) {
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(looking(error)),
            Ok(_) => {}
        }
        let own = rustix::fs::fstat(&self.folder).map_err(looking)?.st_dev;
        if own == rustix::fs::stat(layer).map_err(looking)?.st_dev {
            return Err(Error::MountedElsewhere { path: self.path.clone() });
        }
        Ok(())
    }

    /// Opens the rootfs that a create has `seen` at the absolute `path`: here, or in the mount namespace of
    /// the `proxy`, which may be the only one that has it. A create of an earlier version recorded no identity; then
    /// the directory at that path is used.
    pub(crate) fn open_again(
        path: &str,
        seen: Option<&SeenRootfs>,
        proxy: Option<&Process>,
    ) -> Result<Self, Error> {
        let here = Self::open("/", path);
        let Some(seen) = seen else { return here };
        let failed = match here {
            Ok(rootfs) if rootfs.is(seen)? => return Ok(rootfs),
            Ok(_) => Error::Replaced { path: path.to_owned() },
            Err(Error::Open { path, source }) => Error::Gone { path, source },
            Err(error) => return Err(error),
        };
        match proxy.map(|proxy| Self::open_at_home(path, seen, proxy)) {
            Some(Ok(Some(rootfs))) => Ok(rootfs),
            Some(Err(error)) => Err(error),
            Some(Ok(None)) | None => Err(failed),
        }
    }

    fn open_at_home(path: &str, seen: &SeenRootfs, proxy: &Process) -> Result<Option<Self>, Error> {
        let looking = |source| {
            let (path, pid) = (path.to_owned(), proxy.pid());
            Error::LookInProxy { path, pid, source }
        };
        let Some(MountView { namespace, root }) = MountView::of(proxy).map_err(looking)? else {
            return Ok(None);
        };
        let folder = match open_in_root(&root, path, FOLDER) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(looking(cause(error))),
        };
        let rootfs = Self { folder, path: path.to_owned(), home: Some(namespace) };
        Ok(rootfs.is(seen)?.then_some(rootfs))
    }

    /// The identity that a later command compares.
    pub(crate) fn seen(&self) -> Result<SeenRootfs, Error> {
        let (device, inode) = self.identity()?;
        let verbs = [Verb::Create, Verb::Start, Verb::Delete].into_iter();
        // A hook that cannot be read or run exists all the same.
        let hooks = verbs.filter(|&verb| !matches!(self.hook(verb), Ok(None))).collect();
        Ok(SeenRootfs { device, inode, hooks })
    }

    fn is(&self, seen: &SeenRootfs) -> Result<bool, Error> {
        Ok(self.identity()? == (seen.device, seen.inode))
    }

    fn identity(&self) -> Result<(u64, u64), Error> {
        let stat = rustix::fs::fstat(&self.folder)
            .map_err(|error| Error::Open { path: self.path.clone(), source: error.into() })?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether process 1 has the same directory at the same path. False if that cannot be determined.
    pub(crate) fn is_of_process_1(&self) -> bool {
        let found = directory::open("/proc/1/root")
            .and_then(|root| open_in_root(&root, self.path.as_str(), FOLDER))
            .and_then(rustix::fs::fstat);
        match (found, self.identity()) {
            (Ok(found), Ok(own)) => (found.st_dev, found.st_ino) == own,
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// The mount namespace that has the rootfs, if it is not this process's.
    pub(crate) fn home(&self) -> Option<BorrowedFd<'_>> {
        self.home.as_ref().map(AsFd::as_fd)
    }

    /// The path below the rootfs of the hook at `path`, as [`Self::hook`] returns it.
    pub(crate) fn below<'a>(&self, verb: Verb, path: &'a str) -> Result<&'a str, Error> {
        let hook = verb.path();
        let looking = |source| Error::Look { hook, rootfs: self.path.clone(), source };
        let real = std::fs::read_link(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        let real = real.map_err(looking)?;
        let below = Path::new(path).strip_prefix(real).ok().and_then(Path::to_str);
        below.ok_or_else(|| looking(io::Error::other(format!("{path:?} is not below it"))))
    }

    /// The path on the host of the hook for `verb`, symlinks resolved inside the rootfs; `None` if
    /// the image has none. A file that cannot be run is an error.
    pub(crate) fn hook(&self, verb: Verb) -> Result<Option<String>, Error> {
        let hook = verb.path();
        let looking = |source| Error::Look { hook, rootfs: self.path.clone(), source };
        let Some((file, stat)) = self.look(hook, OFlags::PATH).map_err(looking)? else {
            // Without a file there is no hook. A link to a missing file is a mistake and is reported.
            let link = self.look(hook, OFlags::PATH | OFlags::NOFOLLOW).map_err(looking)?;
            if link.is_some_and(|(_, stat)| kind(&stat) == FileType::Symlink) {
                fitness(verb, FileKind::LinkToNothing, 0)?;
            }
            return Ok(None);
        };
        let kind = match kind(&stat) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Folder,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => FileKind::Device,
            FileType::Symlink | FileType::Unknown => FileKind::Other,
        };
        fitness(verb, kind, stat.st_mode)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let path = path.map_err(looking)?.into_os_string().into_string();
        path.map(Some).map_err(|path| Error::NotUtf8 { hook, path: path.into() })
    }

    /// The first regular file directly in `/boot`, by its name; links do not count. `None` if there is none.
    pub(crate) fn file_in_boot(&self) -> Result<Option<String>, Error> {
        self.first_file("boot").map_err(|source| Error::Boot { rootfs: self.path.clone(), source })
    }

    fn first_file(&self, directory: &str) -> io::Result<Option<String>> {
        let Some(directory) = open_if_there(&self.folder, directory)? else { return Ok(None) };
        let mut names = directory::names(&directory)?;
        names.sort();
        for name in names {
            let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if kind(&stat) == FileType::RegularFile {
                return Ok(Some(name.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    /// Opens a file of the rootfs; `None` if it is missing.
    fn look(&self, path: &str, flags: OFlags) -> io::Result<Option<(OwnedFd, Stat)>> {
        match open_in_root(&self.folder, path, flags) {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file)?;
                Ok(Some((file, stat)))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(cause(error)),
        }
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Why a path in a rootfs or a bundle cannot be opened.
fn cause(error: Errno) -> io::Error {
    if error == Errno::AGAIN {
        let why = "something on this machine renames or mounts without a pause, which the kernel does not \
                   resolve .. beside; try again";
        return io::Error::other(why);
    }
    explained("openat2", error.raw_os_error())
}

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(tree.path("rootfs/hooks")).unwrap();
            tree
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn file(&self, name: &str, mode: u32) {
            let path = self.path(name);
            std::fs::File::create(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn open(&self, root_path: &str) -> Result<Rootfs, Error> {
            Rootfs::open(self.0.path().to_str().unwrap(), root_path)
        }

        fn hook(&self) -> Result<Option<String>, Error> {
            self.open("rootfs").unwrap().hook(Verb::Start)
        }
    }

    #[test]
    fn a_relative_rootfs_stays_inside_the_bundle_and_an_absolute_one_is_taken() {
        let tree = Tree::new();
        assert!(tree.open("rootfs").is_ok());
        assert!(tree.open("./rootfs/../rootfs").is_ok());
        assert!(tree.open(tree.path("rootfs").to_str().unwrap()).is_ok());
        symlink("/", tree.path("out")).unwrap();
        for path in ["..", "../..", "rootfs/../..", "out", "out/etc"] {
            assert!(matches!(tree.open(path), Err(Error::Escapes { .. })), "{path}");
        }
        assert!(matches!(tree.open("missing"), Err(Error::Open { .. })));
        tree.file("file", 0o644);
        assert!(matches!(tree.open("file"), Err(Error::Open { .. })));
    }

    #[test]
    fn an_overlay_of_an_engine_that_is_not_mounted_here_is_no_image_without_hooks() {
        let tree = Tree::new();
        std::fs::create_dir(tree.path("merged")).unwrap();
        assert!(tree.open("merged").unwrap().check_mounted().is_ok());
        tree.file("lower", 0o644);
        let rootfs = tree.open("merged").unwrap();
        assert!(matches!(rootfs.check_mounted(), Err(Error::MountedElsewhere { .. })));
        assert!(tree.open("rootfs").unwrap().check_mounted().is_ok());
        // Something is mounted there.
        std::fs::remove_dir(tree.path("merged")).unwrap();
        symlink("/proc", tree.path("merged")).unwrap();
        let path = tree.path("merged");
        let rootfs = Rootfs::open("/", path.to_str().unwrap()).unwrap();
        assert!(rootfs.check_mounted().is_ok());
    }

    #[test]
    fn a_hook_is_an_executable_file_or_absent() {
        let tree = Tree::new();
        assert!(tree.hook().unwrap().is_none());
        tree.file("rootfs/hooks/start", 0o644);
        assert!(matches!(tree.hook(), Err(Error::Unfit(Unfit::NotExecutable { mode: 0o644, .. }))));
        std::fs::remove_file(tree.path("rootfs/hooks/start")).unwrap();
        std::fs::create_dir(tree.path("rootfs/hooks/start")).unwrap();
        assert!(matches!(
            tree.hook(),
            Err(Error::Unfit(Unfit::NotAFile { what: "a directory", .. }))
        ));
        std::fs::remove_dir(tree.path("rootfs/hooks/start")).unwrap();
        tree.file("rootfs/hooks/start", 0o755);
        assert!(tree.hook().unwrap().unwrap().ends_with("/rootfs/hooks/start"));
    }

    #[test]
    fn a_kernel_is_a_regular_file_directly_in_boot() {
        let tree = Tree::new();
        let found = || tree.open("rootfs").unwrap().file_in_boot();
        assert_eq!(found().unwrap(), None);
        std::fs::create_dir_all(tree.path("rootfs/usr/boot/efi")).unwrap();
        // As if the rootfs were the root.
        symlink("/usr/boot", tree.path("rootfs/boot")).unwrap();
        tree.file("rootfs/usr/boot/efi/vmlinuz", 0o644);
        symlink("efi/vmlinuz", tree.path("rootfs/usr/boot/a")).unwrap();
        symlink("/nowhere", tree.path("rootfs/usr/boot/b")).unwrap();
        assert_eq!(found().unwrap(), None);
        for name in ["z", "c"] {
            tree.file(&format!("rootfs/usr/boot/{name}"), 0);
        }
        assert_eq!(found().unwrap().as_deref(), Some("c"));
        let boot = tree.path("rootfs/boot");
        for target in ["/nowhere", "/usr/boot/c", "../outside"] {
            std::fs::remove_file(&boot).unwrap();
            std::fs::create_dir_all(tree.path("outside")).unwrap();
            tree.file("outside/vmlinuz", 0o644);
            symlink(target, &boot).unwrap();
            assert!(matches!(found(), Err(Error::Boot { .. })), "{target}");
        }
        std::fs::remove_file(&boot).unwrap();
        symlink("boot", &boot).unwrap();
        assert!(matches!(found(), Err(Error::Boot { .. })), "a loop of links");
    }

    #[test]
    fn renames_elsewhere_disturb_no_path_with_dots() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let tree = Tree::new();
        tree.file("rootfs/bin", 0o755);
        // Each `..` is a chance to be disturbed.
        let roundabout = "../hooks/".repeat(50);
        symlink(format!("{roundabout}../bin"), tree.path("rootfs/hooks/start")).unwrap();
        let roundabout = "rootfs/../".repeat(50);
        tree.file("a", 0o644);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(tree.path("a"), tree.path("b")).unwrap();
                    std::fs::rename(tree.path("b"), tree.path("a")).unwrap();
                }
            });
            let failures: Vec<Error> = (0..10_000)
                .filter_map(|_| match tree.open(&format!("{roundabout}rootfs")) {
                    Ok(rootfs) => rootfs.hook(Verb::Start).err(),
                    Err(error) => Some(error),
                })
                .collect();
            done.store(true, Ordering::Relaxed);
            assert!(failures.is_empty(), "{} of 10000: {:?}", failures.len(), failures.first());
        });
    }

    #[test]
    fn links_are_resolved_as_if_the_rootfs_were_the_root() {
        let tree = Tree::new();
        tree.file("rootfs/bin", 0o755);
        tree.file("outside", 0o755);
        let link = tree.path("rootfs/hooks/start");
        for target in ["/bin", "../bin", "../../../../../../bin"] {
            symlink(target, &link).unwrap();
            assert!(tree.hook().unwrap().unwrap().ends_with("/rootfs/bin"), "{target}");
            std::fs::remove_file(&link).unwrap();
        }
        symlink(tree.path("outside"), &link).unwrap();
        assert!(matches!(tree.hook(), Err(Error::Unfit(_))));
        std::fs::remove_file(&link).unwrap();
        symlink("start", &link).unwrap();
        assert!(matches!(tree.hook(), Err(Error::Look { .. })), "a loop of links");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Escapes { path, bundle }, Open { path, source }, Replaced { path }, Gone { path, source },
        MountedElsewhere { path }, LookForMount { path, source }, LookInProxy { path, pid, source },
        Look { hook, rootfs, source }, Boot { rootfs, source }, Unfit(..), NotUtf8 { hook, path },
    }
}
