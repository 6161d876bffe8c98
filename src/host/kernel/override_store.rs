//! The records of kernel overrides outside the boot environment block: the links to published kernels, the list of
//! rejected ones, the audit line, and the prestate of a trial. Each change is durable when its function returns.
//! `model/kernel/transition.rs` decides which changes are made, and in which order.

use crate::host::os::atomic_file;
use crate::host::os::clock;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::abi::Abi;
use crate::model::kernel::transition::Audit;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// The links to the kernels, by ABI, and the directory that has them.
const LINKS: &str = "/mnt/data/boot-by-abi";
const DATA: &str = "/mnt/data";
/// The state partition, and what is on it.
pub(crate) const STATE: &str = "/mnt/state";
const REJECTED: &str = "override-rejected";
const AUDIT: &str = "override-health-triggered";
const PRESTATE: &str = "extension-health-variables";
/// The health check compares the VPN with what it was before.
const VPN: &str = "/run/openvpn/vpn_status/active";
/// A link that is not complete has the ABI and this as its name.
const UNFINISHED: &str = ".new";

const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// The records of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverrideStore<'a> {
    host: &'a HostRoot,
}

/// The names in the directory of the links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    /// Also those whose link is dangling.
    pub(crate) abis: BTreeSet<Abi>,
    /// Links that were never completed.
    pub(crate) unfinished: BTreeSet<Abi>,
    /// Names that are neither. They are kept.
    pub(crate) others: Vec<String>,
}

/// Why a record cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot list the published kernels in {path:?}")]
    List { path: PathBuf, source: io::Error },
    #[error("cannot read the list of rejected kernels: {why}")]
    ReadRejected { why: String },
    #[error("cannot publish the kernel as {path:?}")]
    Publish { path: PathBuf, source: io::Error },
    #[error("cannot remove {path:?}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot write {path:?}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot determine whether the VPN is up, which the health check compares: {path:?}")]
    Vpn { path: PathBuf, source: io::Error },
}

impl<'a> OverrideStore<'a> {
    pub(crate) fn new(host: &'a HostRoot) -> Self {
        Self { host }
    }

    /// The published kernels. A directory that is missing has none, unless its partition may not be mounted.
    pub(crate) fn published(&self) -> Result<Published, Error> {
        let mut published = Published::default();
        let names = match self.host.names(LINKS) {
            Ok(names) => names,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && !self.host.lacks_mount(DATA)
                    && self.host.dangling(LINKS).is_none() =>
            {
                return Ok(published);
            }
            Err(source) => {
                return Err(Error::List { path: self.host.display_path(LINKS), source });
            }
        };
        for name in names {
            let name = name.to_string_lossy();
            if let Some(abi) = Abi::parse(&name) {
                published.abis.insert(abi);
            } else if let Some(abi) = name.strip_suffix(UNFINISHED).and_then(Abi::parse) {
                published.unfinished.insert(abi);
            } else {
                published.others.push(name.into_owned());
            }
        }
        Ok(published)
    }

    /// The target of a link, as it is written.
    pub(crate) fn target(&self, abi: &Abi) -> io::Result<PathBuf> {
        self.host.link(Path::new(LINKS).join(abi.as_str()))
    }

    /// Whether a link leads to a regular file.
    pub(crate) fn is_bootable(&self, abi: &Abi) -> io::Result<bool> {
        match self.host.open(Path::new(LINKS).join(abi.as_str()), OFlags::PATH) {
            Ok(file) => {
                let mode = rustix::fs::fstat(&file)?.st_mode;
                Ok(rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::RegularFile)
            }
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The rejected kernels. A missing list is empty; a line that is no ABI, such as one that a power cut has torn, is
    /// none.
    pub(crate) fn rejected(&self) -> Result<BTreeSet<Abi>, Error> {
        let text = self.host.read_if_there(&format!("{STATE}/{REJECTED}"));
        let text = text.map_err(|why| Error::ReadRejected { why })?.unwrap_or_default();
        Ok(text.lines().filter_map(Abi::parse).collect())
    }

    /// The same for one who must know: without the partition that has the list, nothing is known.
    pub(crate) fn seen_rejected(&self) -> Result<BTreeSet<Abi>, Error> {
        let rejected = self.rejected()?;
        match rejected.is_empty() && self.host.lacks_mount(STATE) {
            true => {
                let state = self.host.display_path(STATE);
                let why = format!("the state partition is not mounted at {state:?}");
                Err(Error::ReadRejected { why })
            }
            false => Ok(rejected),
        }
    }

    /// Publishes a kernel: the link appears whole, or not at all.
    pub(crate) fn publish(&self, abi: &Abi, target: &str) -> Result<(), Error> {
        let path = Path::new(LINKS).join(abi.as_str());
        let failed = |source| Error::Publish { path: self.host.display_path(&path), source };
        let directory = self.make_links().map_err(failed)?;
        let unfinished = unfinished_name(abi);
        let link = || -> Result<(), Errno> {
            remove_name(&directory, &unfinished)?;
            rustix::fs::symlinkat(target, &directory, &unfinished)?;
            rustix::fs::renameat(&directory, &unfinished, &directory, abi.as_str())?;
            rustix::fs::fsync(&directory)
        };
        link().map_err(|error| failed(error.into()))
    }

    fn make_links(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.host.open(LINKS, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let data = self.host.open(DATA, flags)?;
                let name = LINKS.strip_prefix(DATA).unwrap_or(LINKS).trim_start_matches('/');
                rustix::fs::mkdirat(&data, name, DIRECTORY_MODE)?;
                let made = self.host.open(LINKS, flags)?;
                // The umask has no say.
                rustix::fs::fchmod(&made, DIRECTORY_MODE)?;
                rustix::fs::fsync(&data)?;
                Ok(made)
            }
            opened => opened,
        }
    }

    /// Removes the link of a kernel, and what was left of an unfinished one. A link that is missing is no error.
    pub(crate) fn unpublish(&self, abi: &Abi) -> Result<(), Error> {
        let name = abi.as_str();
        self.remove(LINKS, &[name.to_owned(), unfinished_name(abi)])
    }

    /// Removes a link that was never completed.
    pub(crate) fn remove_unfinished(&self, abi: &Abi) -> Result<(), Error> {
        self.remove(LINKS, &[unfinished_name(abi)])
    }

    /// Records what the health check compares with. The file also says that a trial window is open.
    pub(crate) fn save_prestate(&self) -> Result<(), Error> {
        let is_up = match self.host.open(VPN, OFlags::PATH) {
            Ok(_) => true,
            Err(error) if is_absence(&error) => false,
            Err(source) => return Err(Error::Vpn { path: self.host.display_path(VPN), source }),
        };
        let text = format!("BALENAOS_ROLLBACK_VPNONLINE={}\n", u8::from(is_up));
        self.replace(PRESTATE, text.as_bytes())
    }

    pub(crate) fn remove_prestate(&self) -> Result<(), Error> {
        self.remove(STATE, &[PRESTATE.to_owned()])
    }

    /// The path of the prestate, which the health check is given.
    pub(crate) fn prestate_path(&self) -> PathBuf {
        self.host.display_path(Path::new(STATE).join(PRESTATE))
    }

    /// Appends a kernel to the list of rejected ones, if it is not there yet.
    pub(crate) fn append_rejected(&self, abi: &Abi) -> Result<(), Error> {
        let path = Path::new(STATE).join(REJECTED);
        let failed = |source| Error::Write { path: self.host.display_path(&path), source };
        let before = match self.host.bytes(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed(source)),
        };
        let is_there = String::from_utf8_lossy(&before).lines().any(|line| line == abi.as_str());
        let append = || -> io::Result<()> {
            let state = self.state()?;
            let flags = OFlags::WRONLY
                | OFlags::APPEND
                | OFlags::CREATE
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&state, REJECTED, flags, FILE_MODE)?;
            if !is_there {
                // A line that was torn must not become a part of this one.
                let is_torn = before.last().is_some_and(|&byte| byte != b'\n');
                let line = format!("{}{abi}\n", if is_torn { "\n" } else { "" });
                let written = rustix::io::write(&file, line.as_bytes())?;
                if written != line.len() {
                    return Err(io::Error::from(io::ErrorKind::WriteZero));
                }
            }
            // Also if it is there: a crash may have come before it was durable.
            rustix::fs::fsync(&file)?;
            Ok(rustix::fs::fsync(&state)?)
        };
        append().map_err(failed)
    }

    /// Takes a kernel off the list.
    pub(crate) fn remove_rejected(&self, abi: &Abi) -> Result<(), Error> {
        let path = Path::new(STATE).join(REJECTED);
        let failed = |source| Error::Write { path: self.host.display_path(&path), source };
        let text = self.host.bytes(&path).map_err(failed)?;
        let kept: Vec<u8> = text
            .split_inclusive(|&byte| byte == b'\n')
            .filter(|line| {
                // As `lines` reads it: an editor may have left a `\r`.
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                line.strip_suffix(b"\r").unwrap_or(line) != abi.as_str().as_bytes()
            })
            .flatten()
            .copied()
            .collect();
        self.replace(REJECTED, &kept)
    }

    /// Writes the audit line, with the time.
    pub(crate) fn write_audit(&self, audit: &Audit) -> Result<(), Error> {
        self.replace(AUDIT, audit.line(&clock::now_in_seconds()).as_bytes())
    }

    fn state(&self) -> io::Result<OwnedFd> {
        self.host.open(STATE, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let replaced = self
            .state()
            .and_then(|state| atomic_file::replace_durably(state.as_fd(), name, FILE_MODE, bytes));
        let path = Path::new(STATE).join(name);
        replaced.map_err(|source| Error::Write { path: self.host.display_path(path), source })
    }

    fn remove(&self, directory: &str, names: &[String]) -> Result<(), Error> {
        let remove = || -> io::Result<()> {
            let opened = match self.host.open(directory, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            for name in names {
                remove_name(&opened, name)?;
            }
            Ok(rustix::fs::fsync(&opened)?)
        };
        let path =
            names.iter().take(1).fold(PathBuf::from(directory), |path, name| path.join(name));
        remove().map_err(|source| Error::Remove { path: self.host.display_path(path), source })
    }
}

/// The name of a link while it is made.
pub(crate) fn unfinished_name(abi: &Abi) -> String {
    format!("{abi}{UNFINISHED}")
}

fn remove_name(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn abi(digit: char) -> Abi {
        Abi::parse(&digit.to_string().repeat(64)).unwrap()
    }

    fn host() -> (tempfile::TempDir, HostRoot) {
        let folder = tempfile::tempdir().unwrap();
        for directory in ["mnt/data", "mnt/state"] {
            std::fs::create_dir_all(folder.path().join(directory)).unwrap();
        }
        let host = HostRoot::new(folder.path().to_owned());
        (folder, host)
    }

    fn text(folder: &tempfile::TempDir, path: &str) -> String {
        std::fs::read_to_string(folder.path().join(path)).unwrap()
    }

    #[test]
    fn links_are_published_and_removed_and_other_names_are_kept() {
        let (folder, host) = host();
        let store = OverrideStore::new(&host);
        assert!(store.published().is_err(), "the data partition may not be mounted");
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        let mut mounts = std::fs::File::create(folder.path().join("proc/mounts")).unwrap();
        io::Write::write_all(&mut mounts, b"/dev/sda6 /mnt/data ext4 rw 0 0\n").unwrap();
        assert_eq!(store.published().unwrap(), Published::default());
        let links = folder.path().join("mnt/data/boot-by-abi");
        store.publish(&abi('a'), "../docker/x").unwrap();
        assert_eq!(std::fs::metadata(&links).unwrap().permissions().mode() & 0o777, 0o755);
        // A leftover of each kind is replaced.
        std::os::unix::fs::symlink("old", links.join(format!("{}.new", abi('b')))).unwrap();
        store.publish(&abi('b'), "../docker/y").unwrap();
        store.publish(&abi('a'), "../docker/z").unwrap();
        assert_eq!(store.target(&abi('a')).unwrap(), Path::new("../docker/z"));
        std::fs::create_dir(links.join("other")).unwrap();
        std::os::unix::fs::symlink("x", links.join(format!("{}.new", abi('c')))).unwrap();
        let published = store.published().unwrap();
        assert_eq!(published.abis, BTreeSet::from([abi('a'), abi('b')]));
        assert_eq!(published.unfinished, BTreeSet::from([abi('c')]));
        assert_eq!(published.others, ["other"]);
        store.unpublish(&abi('a')).unwrap();
        store.unpublish(&abi('a')).unwrap();
        store.remove_unfinished(&abi('c')).unwrap();
        let published = store.published().unwrap();
        assert_eq!((published.abis.len(), published.unfinished.len()), (1, 0));
    }

    #[test]
    fn a_link_is_bootable_if_it_leads_to_a_file_inside_the_host() {
        let (folder, host) = host();
        let store = OverrideStore::new(&host);
        std::fs::create_dir_all(folder.path().join("mnt/data/docker")).unwrap();
        std::fs::File::create(folder.path().join("mnt/data/docker/k")).unwrap();
        for (target, bootable) in [
            ("../docker/k", true),
            ("../docker/none", false),
            ("../docker", false),
            ("/mnt/data/docker/k", true),
            ("../../../../../../mnt/data/docker/k", true),
            ("/etc/passwd", false),
        ] {
            store.publish(&abi('a'), target).unwrap();
            assert_eq!(store.is_bootable(&abi('a')).unwrap(), bootable, "{target}");
        }
    }

    #[test]
    fn a_rejected_kernel_stands_once_in_the_list_and_a_torn_line_harms_none() {
        let (folder, host) = host();
        let store = OverrideStore::new(&host);
        assert!(store.rejected().unwrap().is_empty());
        store.append_rejected(&abi('a')).unwrap();
        store.append_rejected(&abi('a')).unwrap();
        assert_eq!(text(&folder, "mnt/state/override-rejected"), format!("{}\n", abi('a')));
        let torn = format!("{}\nabc", abi('a'));
        std::io::Write::write_all(
            &mut std::fs::File::create(folder.path().join("mnt/state/override-rejected")).unwrap(),
            torn.as_bytes(),
        )
        .unwrap();
        store.append_rejected(&abi('b')).unwrap();
        assert_eq!(text(&folder, "mnt/state/override-rejected"), format!("{torn}\n{}\n", abi('b')));
        assert_eq!(store.rejected().unwrap(), BTreeSet::from([abi('a'), abi('b')]));
        store.remove_rejected(&abi('a')).unwrap();
        assert_eq!(text(&folder, "mnt/state/override-rejected"), format!("abc\n{}\n", abi('b')));
        std::fs::remove_file(folder.path().join("mnt/state/override-rejected")).unwrap();
        std::fs::create_dir(folder.path().join("mnt/state/override-rejected")).unwrap();
        assert!(store.rejected().is_err());
    }

    #[test]
    fn the_prestate_says_whether_the_vpn_is_up() {
        let (folder, host) = host();
        let store = OverrideStore::new(&host);
        let path = folder.path().join("mnt/state/extension-health-variables");
        for (up, expected) in [(false, "0"), (true, "1")] {
            if up {
                std::fs::create_dir_all(folder.path().join("run/openvpn/vpn_status/active"))
                    .unwrap();
            }
            store.save_prestate().unwrap();
            assert_eq!(
                text(&folder, "mnt/state/extension-health-variables"),
                format!("BALENAOS_ROLLBACK_VPNONLINE={expected}\n")
            );
        }
        assert_eq!(store.prestate_path(), path);
        store.remove_prestate().unwrap();
        store.remove_prestate().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_audit_line_is_one_line_and_replaces_the_last_one() {
        let (folder, host) = host();
        let store = OverrideStore::new(&host);
        let slot = crate::model::kernel::records::Slot::B;
        let audit = Audit { boots: Some(3), from: abi('a'), to: None, slot };
        store.write_audit(&audit).unwrap();
        store.write_audit(&Audit { boots: None, to: Some(abi('b')), ..audit }).unwrap();
        let line = text(&folder, "mnt/state/override-health-triggered");
        let (time, rest) = line.split_once(": ").unwrap();
        assert!(clock::parse(time).is_some() && time.ends_with('Z') && time.len() == 20, "{time}");
        assert_eq!(rest, format!("by=health from={} to={} slot=B\n", abi('a'), abi('b')));
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        List { path, source }, ReadRejected { why }, Publish { path, source }, Remove { path, source },
        Write { path, source }, Vpn { path, source },
    }
}
