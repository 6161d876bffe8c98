//! The initramfs, which both kernels of a boot have, and the files that all scenarios share.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::emulated::packages::{Packages, remove, run};
use crate::emulated::{copy, cpio, kernel_image, kernel_modules, packages};
use crate::{kernel, programs};

/// The packages of the guest's programs, and of the libraries that these need.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "grub-common",
    "kexec-tools",
    "libblkid1",
    "libc6",
    "libdevmapper1.02.1",
    "liblzma5",
    "libpcre2-8-0",
    "libselinux1",
    "libudev1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenmisc4.17",
    "libxentoolcore1",
    "libxentoollog1",
    "util-linux",
    "zlib1g",
];
/// What the guest has of these packages, and the place of it there.
const PROGRAMS: [(&str, &str); 4] = [
    ("bin/busybox", "bin/busybox"),
    ("usr/bin/grub-editenv", "bin/grub-editenv"),
    ("sbin/blkid", "bin/blkid"),
    ("sbin/kexec", "bin/kexec"),
];
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// The libraries of these packages that none of the programs needs.
const LEFT_OUT: [&str; 3] = ["gconv", "audit", "modules"];

const KERNEL_MODULES: [&str; 7] =
    ["virtio_pci", "virtio_blk", "nls_cp437", "nls_ascii", "vfat", "crc32c_generic", "ext4"];

/// The scripts in `tests/boot/guest`, their places in the guest, and whether they are programs.
const SCRIPTS: [(&str, &str, u32); 5] = [
    ("init", "init", 0o755),
    ("initramfs", "initramfs", 0o644),
    ("os", "os", 0o644),
    ("rollback-tests", "usr/bin/rollback-tests", 0o755),
    ("systemctl", "usr/bin/systemctl", 0o755),
];

/// What all scenarios share.
pub(crate) struct Shared {
    /// The stock kernel, as the firmware loads it.
    pub(crate) vmlinux: PathBuf,
    /// The stock kernel, as kexec loads it.
    pub(crate) vmlinuz: Vec<u8>,
    pub(crate) initramfs: PathBuf,
}

/// Makes it below `cache`.
pub(crate) fn make(cache: &Path) -> Result<Shared, String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("this program and those under test run in a machine that is x86_64".to_owned());
    }
    fs::create_dir_all(cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let wanted = Packages { architecture: "amd64", kernel: "linux-image-amd64", others: PACKAGES };
    let (kernel, packages) = packages::unpacked(&wanted, cache)?;
    let root = cache.join("root");
    remove(&root)?;
    for (from, to) in PROGRAMS {
        copy(&packages.join(from), &root.join(to))?;
    }
    for directory in LIBRARIES {
        let items = fs::read_dir(packages.join(directory)).map_err(|error| error.to_string())?;
        for item in items {
            let item = item.map_err(|error| error.to_string())?;
            let name = item.file_name();
            if !LEFT_OUT.iter().any(|left_out| name.to_string_lossy() == *left_out) {
                copy(&item.path(), &root.join("lib").join(name))?;
            }
        }
    }
    // A link into a directory of Debian's layout.
    let loader = fs::canonicalize(packages.join(LOADER)).map_err(|error| error.to_string())?;
    copy(&loader, &root.join(LOADER))?;
    for (number, module) in kernel_modules::in_order(&kernel, &KERNEL_MODULES)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        copy(module, &root.join("kernel-modules").join(format!("{number:02}-{name}")))?;
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    // Without the symbols, which are most of it.
    run(Command::new("strip").arg("-o").arg(root.join("engine")).arg(own))?;
    fill(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    let initramfs = cache.join("initramfs.cpio");
    cpio::write(&root, &initramfs).map_err(|error| format!("{}: {error}", initramfs.display()))?;
    remove(&root)?;
    let vmlinuz = fs::read(kernel_image(&kernel)?).map_err(|error| error.to_string())?;
    let vmlinux = cache.join("vmlinux");
    kernel::unpack(&vmlinuz, &vmlinux)?;
    Ok(Shared { vmlinux, vmlinuz, initramfs })
}

/// What does not come from packages.
fn fill(root: &Path) -> std::io::Result<()> {
    for name in ["proc", "sys", "dev", "run", "tmp", "etc", "sbin", "usr/bin", "usr/sbin", "var"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["boot", "state", "data", "sysroot/active"] {
        fs::create_dir_all(root.join("mnt").join(name))?;
    }
    symlink("../run", root.join("var/run"))?;
    let list = Command::new(root.join("bin/busybox")).arg("--list").output()?;
    for name in String::from_utf8_lossy(&list.stdout).lines() {
        if root.join("bin").join(name).symlink_metadata().is_err() {
            symlink("busybox", root.join("bin").join(name))?;
        }
    }
    let put = |path: &Path, bytes: &[u8], mode: u32| {
        fs::write(path, bytes)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    for program in [programs::runtime(), programs::manager()] {
        let name = program.file_name().unwrap_or_default();
        put(&root.join("usr/bin").join(name), &fs::read(&program)?, 0o755)?;
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boot/guest");
    for (from, to, mode) in SCRIPTS {
        put(&root.join(to), &fs::read(scripts.join(from))?, mode)?;
    }
    Ok(())
}
