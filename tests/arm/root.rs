//! The root filesystem of a guest: Debian's packages, the kernel modules, the programs under test, the test programs,
//! and what these read of the checkout.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::architecture::Architecture;
use crate::emulated::packages::{Packages, remove};
use crate::emulated::{copy, cpio, kernel_image, kernel_modules, packages};
use crate::parts::Part;

/// The places in the guest.
pub(crate) const PROGRAMS: &str = "/under-test";
pub(crate) const MODULES: &str = "/kernel-modules";
/// Where the root filesystem is mounted once more, so that it can be moved like that of a real host.
pub(crate) const NEW_ROOT: &str = "/new-root";

/// The packages that the guest needs besides the kernel: what every Debian has, and mkfs.xfs.
const PACKAGES: &[&str] = &[
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "libacl1",
    "libattr1",
    "libblkid1",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcrypt1",
    "libgcc-s1",
    "libgcrypt20",
    "libgmp10",
    "libgpg-error0",
    "libinih1",
    "liblz4-1",
    "liblzma5",
    "libmount1",
    "libpam0g",
    "libpcre2-8-0",
    "libselinux1",
    "libsmartcols1",
    "libsystemd0",
    "libtinfo6",
    "libudev1",
    "liburcu8",
    "libuuid1",
    "libzstd1",
    "mawk",
    "mount",
    "perl-base",
    "sed",
    "tar",
    "util-linux",
    "util-linux-extra",
    "xfsprogs",
];

/// Overlays for the sample extension; XFS in a file, which has large inode numbers.
const KERNEL_MODULES: [&str; 4] = ["overlay", "loop", "crc32c_generic", "xfs"];

/// What `tools/arm-tests` has built, in the directory `arm/ARCH` of the build directory.
const BUILT: [&str; 4] = ["balena-extension-runtime", "balena-extension-manager", "arm", "it"];
/// And for the unit tests.
const UNIT: &str = "unit";
/// What the tests read of the checkout.
const CHECKOUT: [&str; 4] = ["examples", "tools/demo", "tools/need", "tests/golden/errors"];
/// Nothing reads it there, and the emulated machine would have to unpack it.
const LEFT_OUT: [&str; 6] = [
    "usr/share",
    "usr/lib/systemd",
    "lib/systemd",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/lib/arm-linux-gnueabihf/gconv",
    "usr/lib/aarch64-linux-gnu/perl-base/unicore",
];

/// A kernel and its initramfs.
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Makes both in the build directory.
pub(crate) fn make(architecture: &Architecture) -> Result<Image, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("arm");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../../arm").join(architecture.build);
    let unit = Part::wanted().contains(&Part::Unit).then_some(UNIT);
    let wanted: Vec<&str> = BUILT.into_iter().chain(unit).collect();
    for name in &wanted {
        let path = built.join(name);
        if !path.exists() {
            return Err(format!("{} is missing; `make test-arm` builds it", path.display()));
        }
    }
    let wanted_packages =
        Packages { architecture: architecture.name, kernel: architecture.kernel, others: PACKAGES };
    let (kernel, packages) = packages::unpacked(&wanted_packages, &cache)?;
    let root = cache.join(format!("root-{}", architecture.name));
    remove(&root)?;
    copy(&packages, &root)?;
    for path in LEFT_OUT {
        remove(&root.join(path))?;
    }
    let fill = || -> std::io::Result<()> {
        for name in [
            "proc",
            "sys",
            "dev",
            "run",
            "tmp",
            "root",
            "etc",
            &NEW_ROOT[1..],
            &MODULES[1..],
            &PROGRAMS[1..],
        ] {
            fs::create_dir_all(root.join(name))?;
        }
        // What the packages' scripts would make.
        for (path, target) in [("bin/sh", "dash"), ("usr/bin/awk", "mawk")] {
            if root.join(path).symlink_metadata().is_err() {
                symlink(target, root.join(path))?;
            }
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        fs::write(root.join("etc/os-release"), "ID=guest\nVERSION_ID=1.0\n")?;
        for name in &wanted {
            let place = root.join(&PROGRAMS[1..]).join(name);
            fs::copy(built.join(name), &place)?;
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
        }
        symlink(format!("{PROGRAMS}/arm"), root.join("init"))
    };
    fill().map_err(|error| format!("{}: {error}", root.display()))?;
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in CHECKOUT {
        copy(&checkout.join(name), &root.join(checkout.strip_prefix("/").unwrap()).join(name))?;
    }
    for (number, module) in kernel_modules::in_order(&kernel, &KERNEL_MODULES)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        copy(module, &root.join(&MODULES[1..]).join(format!("{number:02}-{name}")))?;
    }
    let initramfs = cache.join(format!("{}.cpio", architecture.name));
    cpio::write(&root, &initramfs).map_err(|error| format!("{}: {error}", initramfs.display()))?;
    remove(&root)?;
    Ok(Image { kernel: kernel_image(&kernel)?, initramfs })
}
