//! What the suites share that boot Debian's kernels in machines that QEMU emulates: packages, kernel modules, the
//! initramfs, and a machine's run with its console.

pub(crate) mod cpio;
pub(crate) mod kernel_modules;
pub(crate) mod packages;
pub(crate) mod qemu;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The kernel among its unpacked files.
pub(crate) fn kernel_image(kernel: &Path) -> Result<PathBuf, String> {
    let items = fs::read_dir(kernel.join("boot")).map_err(|error| error.to_string())?;
    let mut paths = items.filter_map(|item| Some(item.ok()?.path()));
    let image = paths.find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    image.ok_or_else(|| format!("no vmlinuz below {}", kernel.display()))
}

/// Copies a file, a link or a directory with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let result = (|| -> std::io::Result<()> {
        let metadata = from.symlink_metadata()?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        if metadata.is_symlink() {
            return symlink(fs::read_link(from)?, to);
        }
        if !metadata.is_dir() {
            return fs::copy(from, to).map(drop);
        }
        fs::create_dir_all(to)?;
        fs::set_permissions(to, metadata.permissions())
    })();
    result.map_err(|error| format!("{}: {error}", from.display()))?;
    if from.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        for item in fs::read_dir(from).map_err(|error| error.to_string())? {
            let item = item.map_err(|error| error.to_string())?;
            copy(&item.path(), &to.join(item.file_name()))?;
        }
    }
    Ok(())
}
