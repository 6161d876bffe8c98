//! The files of a simulated device that belong to neither program: what a boot shows in `/proc`, what an engine and an
//! image have on disk, and the update's slot. Everything is below the host root. The records of overrides are written by
//! the code that writes them on a device.

use crate::host::kernel::block::{self, BOOT_MOUNT};
use crate::host::kernel::kernel_image;
use crate::host::kernel::override_store::STATE;
use crate::host::os::atomic_file;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block::{Block, NoRoom};
use crate::model::kernel::records::Slot;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// What `simulate` itself must know: the images, by name, and the slot of an update.
const OWN: &str = "/simulate";
const UPDATE_SLOT: &str = "/simulate/update-slot";
const CMDLINE: &str = "/proc/cmdline";
const MOUNTS: &str = "/proc/mounts";
const DOCKER: &str = "/mnt/data/docker";
const LABELS: &str = "/dev/disk/by-label";
/// The name of a kernel's file in every image.
const KERNEL: &str = "vmlinuz";
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
/// As grub makes it.
const BLOCK_LEN: usize = 1024;

/// The values of the boot loader, which the initramfs and the OS update write.
pub(crate) const ROOT_PART: &str = "resin_root_part";
pub(crate) const BOOT_COUNT: &str = "bootcount";

/// A host root on which a device is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimulatedDevice<'a> {
    host: &'a HostRoot,
}

/// Why a device cannot be played.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot open {path:?}, the directory that stands for a device")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "{path:?} is the root directory of this machine: simulate boots and changes a directory that stands for a \
         device (--host-root DIR; an empty one becomes a new device)"
    )]
    OwnMachine { path: PathBuf },
    #[error("cannot read {path:?} of the simulated device")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path:?} of the simulated device")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {path:?} of the simulated device")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot make the boot environment of the simulated device")]
    Block { source: NoRoom },
}

/// Whether a directory already has a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Device,
    Empty,
}

/// An image that brings a kernel, as it is on disk.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedImage {
    pub(crate) abi: Abi,
    /// The rootfs, as a path of this machine without links.
    pub(crate) rootfs: PathBuf,
}

impl<'a> SimulatedDevice<'a> {
    /// Refuses the machine that runs this program, by whatever path.
    pub(crate) fn open(host: &'a HostRoot) -> Result<(Self, Found), Error> {
        let path = host.display_path("/");
        let failed = |source| Error::Open { path: path.clone(), source };
        let identity = |root: &HostRoot| -> io::Result<(u64, u64)> {
            let stat = rustix::fs::fstat(root.open("/", OFlags::PATH | OFlags::DIRECTORY)?)?;
            Ok((stat.st_dev, stat.st_ino))
        };
        let own = identity(&HostRoot::new("/".into())).map_err(failed)?;
        if identity(host).map_err(failed)? == own {
            return Err(Error::OwnMachine { path });
        }
        let found = match host.names("/").map_err(failed)?.is_empty() {
            true => Found::Empty,
            false => Found::Device,
        };
        let device = Self { host };
        if found == Found::Device && device.read(MOUNTS)?.is_none() {
            device.make_mounts()?;
        }
        Ok((device, found))
    }

    /// Makes a device that runs the stock kernel in slot A.
    pub(crate) fn make(&self) -> Result<(), Error> {
        for directory in [
            BOOT_MOUNT,
            STATE,
            OWN,
            "/mnt/sysroot/active",
            "/mnt/data/boot-by-abi",
            "/mnt/data/docker/containers",
            "/mnt/data/docker/volumes",
        ] {
            self.make_directory(Path::new(directory))?;
        }
        self.make_mounts()?;
        // Without it, a purge of the data partition is pending.
        self.write("/mnt/data/remove_me_to_reset", b"")?;
        self.write("/proc/sys/kernel/osrelease", b"6.1.0\n")?;
        self.write("/etc/os-release", b"ID=balena-os\nVERSION_ID=\"1.0.0\"\n")?;
        let block = Block::empty(BLOCK_LEN)
            .with_value(ROOT_PART, "A")
            .map_err(|source| Error::Block { source })?;
        self.write(block::path(), &block.to_bytes())?;
        self.run(Slot::A, None, &BTreeSet::new())
    }

    /// Makes what a copy of a disk does not have, since no kernel runs there.
    fn make_mounts(&self) -> Result<(), Error> {
        self.make_directory(Path::new("/run"))?;
        for (device, label) in [("sda2", "resin-rootA"), ("sda3", "resin-rootB")] {
            self.write(Path::new("/dev").join(device), b"")?;
            let path = Path::new(LABELS).join(label);
            let failed = |source| Error::Write { path: self.host.display_path(&path), source };
            let labels = self.make_directory(Path::new(LABELS))?;
            match rustix::fs::symlinkat(format!("../../{device}"), labels, label) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        self.mount(Slot::A, &BTreeSet::new())
    }

    /// Whether a kernel runs: a device that is off has no `/proc`.
    pub(crate) fn is_on(&self) -> Result<bool, Error> {
        Ok(self.read(CMDLINE)?.is_some())
    }

    pub(crate) fn turn_off(&self) -> Result<(), Error> {
        self.remove(Path::new(CMDLINE))
    }

    /// Shows what a boot leads to: the slot, the kernel, and the extensions that are layered over the root filesystem.
    pub(crate) fn run(
        &self,
        slot: Slot,
        kernel: Option<&Abi>,
        layered: &BTreeSet<String>,
    ) -> Result<(), Error> {
        self.mount(slot, layered)?;
        let token = kernel.map(|abi| format!(" balena_kernel_abi={abi}")).unwrap_or_default();
        self.write(CMDLINE, format!("quiet{token}\n").as_bytes())
    }

    /// Makes the image of the extension `name`, unless it is there.
    pub(crate) fn image(&self, name: &str) -> Result<SimulatedImage, Error> {
        let rootfs = Path::new(OWN).join(name);
        let kernel = rootfs.join("boot").join(KERNEL);
        if self.read(&kernel)?.is_none() {
            self.write(rootfs.join("lib/modules/6.1.0/Module.symvers"), b"")?;
            self.write(&kernel, format!("the kernel of {name}\n").as_bytes())?;
        }
        let failed = |source| Error::Read { path: self.host.display_path(&kernel), source };
        let abi = self.abi_of(name)?;
        let abi = abi.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(SimulatedImage { abi, rootfs: self.host.find(&rootfs).map_err(failed)? })
    }

    /// The names of the images, by the kernels that they bring.
    pub(crate) fn kernels(&self) -> Result<BTreeMap<Abi, String>, Error> {
        let names = match self.host.names(OWN) {
            Err(error) if is_absence(&error) => Vec::new(),
            names => {
                names.map_err(|source| Error::Read { path: self.host.display_path(OWN), source })?
            }
        };
        let mut kernels = BTreeMap::new();
        for name in names {
            let name = name.to_string_lossy().into_owned();
            if let Some(abi) = self.abi_of(&name)? {
                kernels.insert(abi, name);
            }
        }
        Ok(kernels)
    }

    /// The volume's copy of the kernel, where the engine's volume would have it.
    pub(crate) fn fill_volume(&self, volume: &str, name: &str) -> Result<(), Error> {
        let kernel = Path::new(OWN).join(name).join("boot").join(KERNEL);
        let bytes = self.read(&kernel)?.unwrap_or_default();
        self.write(
            Path::new(DOCKER).join("volumes").join(volume).join("_data").join(KERNEL),
            &bytes,
        )
    }

    /// Writes the engine's record of a container, and the name of its layer.
    pub(crate) fn write_container(&self, id: &str, record: &str) -> Result<(), Error> {
        self.write(container(id).join("config.v2.json"), record.as_bytes())?;
        self.write(layer(id).join("mount-id"), id.as_bytes())
    }

    /// Removes them.
    pub(crate) fn remove_container(&self, id: &str) -> Result<(), Error> {
        for (directory, file) in [(container(id), "config.v2.json"), (layer(id), "mount-id")] {
            self.remove(&directory.join(file))?;
            self.remove_directory(&directory)?;
        }
        Ok(())
    }

    pub(crate) fn has_container(&self, id: &str) -> Result<bool, Error> {
        Ok(self.read(container(id).join("config.v2.json"))?.is_some())
    }

    /// The slot into which the update has installed.
    pub(crate) fn update_slot(&self) -> Result<Option<Slot>, Error> {
        Ok(self.read(UPDATE_SLOT)?.and_then(|text| Slot::parse(&String::from_utf8_lossy(&text))))
    }

    pub(crate) fn set_update_slot(&self, slot: Slot) -> Result<(), Error> {
        self.write(UPDATE_SLOT, slot.to_string().as_bytes())
    }

    fn mount(&self, slot: Slot, layered: &BTreeSet<String>) -> Result<(), Error> {
        let device = match slot {
            Slot::A => "/dev/sda2",
            Slot::B => "/dev/sda3",
        };
        let layers: Vec<String> =
            layered.iter().map(|id| format!("{DOCKER}/overlay2/{id}/diff")).collect();
        let root = match layers.is_empty() {
            true => format!("{device} / ext4 ro 0 0"),
            false => format!("overlay / overlay ro,lowerdir={} 0 0", layers.join(":")),
        };
        let mounts = format!(
            "{root}\n{device} /mnt/sysroot/active ext4 ro 0 0\n/dev/sda1 {BOOT_MOUNT} vfat rw 0 0\n\
             /dev/sda5 {STATE} ext4 rw 0 0\n/dev/sda6 /mnt/data ext4 rw 0 0\n"
        );
        self.write(MOUNTS, mounts.as_bytes())
    }

    fn abi_of(&self, name: &str) -> Result<Option<Abi>, Error> {
        let boot = Path::new(OWN).join(name).join("boot");
        let failed = |source| Error::Read { path: self.host.display_path(&boot), source };
        let folder = match self.host.open(&boot, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if is_absence(&error) => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let hash = kernel_image::hash_of(folder.as_fd(), KERNEL).map_err(failed)?;
        Ok(hash.and_then(|hash| Abi::parse(&hash)))
    }

    fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, Error> {
        match self.host.bytes(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(source) => Err(Error::Read { path: self.host.display_path(path), source }),
        }
    }

    fn write(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), Error> {
        let path = path.as_ref();
        let directory = self.make_directory(path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        atomic_file::replace_durably(directory.as_fd(), &name, FILE_MODE, bytes)
            .map_err(|source| Error::Write { path: self.host.display_path(path), source })
    }

    /// Opens a directory, and makes it and those above it.
    fn make_directory(&self, path: &Path) -> Result<OwnedFd, Error> {
        let failed = |source| Error::Write { path: self.host.display_path(path), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return self.host.open(path, flags).map_err(failed);
        };
        match self.host.open(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map_err(failed),
        }
        let parent = self.make_directory(parent)?;
        match rustix::fs::mkdirat(&parent, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => self.host.open(path, flags).map_err(failed),
            Err(error) => Err(failed(error.into())),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        self.unlink(path, AtFlags::empty())
    }

    fn remove_directory(&self, path: &Path) -> Result<(), Error> {
        self.unlink(path, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, path: &Path, flags: AtFlags) -> Result<(), Error> {
        let failed = |source| Error::Remove { path: self.host.display_path(path), source };
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = match self.host.open(parent, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if is_absence(&error) => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        match rustix::fs::unlinkat(parent, path.file_name().unwrap_or_default(), flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error.into())),
        }
    }
}

fn container(id: &str) -> PathBuf {
    Path::new(DOCKER).join("containers").join(id)
}

fn layer(id: &str) -> PathBuf {
    Path::new(DOCKER).join("image/overlay2/layerdb/mounts").join(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_that_runs_this_program_is_refused_by_any_path() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        for path in [Path::new("/"), Path::new("//."), Path::new("/proc/self/root"), &link] {
            let host = HostRoot::new(path.to_owned());
            let refused = SimulatedDevice::open(&host);
            assert!(matches!(refused, Err(Error::OwnMachine { .. })), "{path:?}: {refused:?}");
        }
        let host = HostRoot::new(folder.path().join("missing"));
        assert!(matches!(SimulatedDevice::open(&host), Err(Error::Open { .. })));
    }

    #[test]
    fn an_empty_directory_becomes_a_device_once() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        let (device, found) = SimulatedDevice::open(&host).unwrap();
        assert_eq!(found, Found::Empty);
        device.make().unwrap();
        assert_eq!(SimulatedDevice::open(&host).unwrap().1, Found::Device);
        assert!(device.is_on().unwrap());
        device.turn_off().unwrap();
        assert!(!device.is_on().unwrap());
        let image = device.image("k").unwrap();
        let again = device.image("k").unwrap();
        assert_eq!((&image.abi, image.rootfs), (&again.abi, again.rootfs));
        assert_eq!(device.kernels().unwrap(), BTreeMap::from([(image.abi, "k".to_owned())]));
        device.write_container("k", "{}").unwrap();
        assert!(device.has_container("k").unwrap());
        device.remove_container("k").unwrap();
        assert!(!device.has_container("k").unwrap());
        assert_eq!(device.update_slot().unwrap(), None);
        device.set_update_slot(Slot::B).unwrap();
        assert_eq!(device.update_slot().unwrap(), Some(Slot::B));
    }

    #[test]
    fn a_link_of_the_device_leads_to_no_file_outside() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let root = folder.path().join("device");
        std::fs::create_dir(&root).unwrap();
        let host = HostRoot::new(root.clone());
        SimulatedDevice::open(&host).unwrap().0.make().unwrap();
        std::fs::remove_dir(root.join("simulate")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("simulate")).unwrap();
        let (device, _) = SimulatedDevice::open(&host).unwrap();
        assert!(device.image("k").is_err());
        assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Open { path, source }, OwnMachine { path }, Read { path, source }, Write { path, source },
        Remove { path, source }, Block { source },
    }
}
