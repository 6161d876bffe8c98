//! The OS's own files beneath the extensions: the root filesystem without the layers that a boot added, and without what
//! is mounted in it.

use crate::host::engine::layer_links::{Followed, follow_path};
use crate::host::engine::stored_containers::DataRoot;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::mounts::layers_at;
use crate::model::text::cause::in_words;
use rustix::fs::OFlags;
use rustix::mount::OpenTreeFlags;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The stores of the OS's own image, beside those of engines.
const OS_STORES: [&str; 2] = ["/mnt/sysroot/active/balena", "/mnt/sysroot/active/docker"];
/// The layers that an engine makes for the mount points of a container. The initramfs leaves them out.
const INIT: &str = "-init";
/// The directory of a layer's files.
const FILES: &str = "diff";

/// The layers of the running OS, the topmost first. Those in `stores`, the data roots of engines, belong to extensions.
///
/// # Errors
/// A layer cannot be opened, or it is unknown whose it is.
pub(crate) fn running(host: &HostRoot, stores: &[DataRoot]) -> Result<Vec<OwnedFd>, String> {
    let mounts = host.read("/proc/mounts")?;
    let Some(paths) = layers_at(&mounts, "/") else {
        return Ok(vec![without_mounts(host, Path::new("/"))?]);
    };
    let of_os = OS_STORES.map(|path| DataRoot { host: host.clone(), path: path.into() });
    let all = [stores, &of_os].concat();
    let mut layers = Vec::new();
    for path in &paths {
        let layer = match follow_path(host, Path::new(path), &all) {
            Followed::Layer(name) if name.ends_with(INIT) || find(stores, &name)?.is_some() => {
                continue;
            }
            Followed::Layer(name) => find(&of_os, &name)?.map_or_else(|| open(host, path), Ok),
            Followed::Other => open(host, path),
            Followed::Unknown => {
                return Err(format!(
                    "the OS's own files cannot be told from those of extensions: the layer {path:?} of the root \
                     filesystem is a link that cannot be followed any more"
                ));
            }
        };
        layers.push(layer?);
    }
    Ok(layers)
}

/// How many layers the OS in the directory `root` of `host` has: those of the overlay that is mounted there.
///
/// # Errors
/// It is not an overlay, or one whose layers cannot be told.
pub(crate) fn count_at(host: &HostRoot, root: &Path, stores: &[DataRoot]) -> Result<usize, String> {
    let mounts = host.read("/proc/mounts")?;
    let root = root.to_string_lossy();
    let paths = layers_at(&mounts, &root).ok_or_else(|| format!("{root:?} is not an overlay"))?;
    let mut count = 0;
    for path in &paths {
        match follow_path(host, Path::new(path), stores) {
            Followed::Layer(name) if name.ends_with(INIT) => {}
            Followed::Layer(_) | Followed::Other => count += 1,
            Followed::Unknown => return Err(format!("the layer {path:?} of {root:?} is unknown")),
        }
    }
    Ok(count)
}

/// A directory without the mounts in it, at which the overlay will have nothing but the directory.
pub(crate) fn without_mounts(host: &HostRoot, path: &Path) -> Result<OwnedFd, String> {
    let clone = || -> io::Result<OwnedFd> {
        let directory = host.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(rustix::mount::open_tree(directory, "", flags)?)
    };
    clone().map_err(|error| {
        let shown = host.display_path(path);
        format!("cannot look below the mounts in {shown:?}: {}", in_words(&error))
    })
}

/// The layer `name` in the first store that has it. One that cannot be opened may be there.
fn find(stores: &[DataRoot], name: &str) -> Result<Option<OwnedFd>, String> {
    for store in stores {
        let path = store.path.join("overlay2").join(name).join(FILES);
        match store.host.open(&path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(layer) => return Ok(Some(layer)),
            Err(error) if is_absence(&error) => {}
            Err(error) => {
                let shown = store.host.display_path(&path);
                return Err(format!("cannot read the layer {shown:?}: {}", in_words(&error)));
            }
        }
    }
    Ok(None)
}

fn open(host: &HostRoot, path: &str) -> Result<OwnedFd, String> {
    let opened = host.open(path, OFlags::RDONLY | OFlags::DIRECTORY);
    opened.map_err(|error| {
        let shown = host.display_path(path);
        format!("cannot read the layer {shown:?} of the root filesystem: {}", in_words(&error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_layer_that_cannot_be_opened_is_not_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = DataRoot { host: HostRoot::new(folder.path().to_owned()), path: "/".into() };
        let stores = [store];
        assert!(find(&stores, "a").unwrap().is_none());
        let layer = folder.path().join("overlay2/a");
        std::fs::create_dir_all(&layer).unwrap();
        symlink(FILES, layer.join(FILES)).unwrap();
        assert!(find(&stores, "a").unwrap_err().contains("cannot read the layer"));
        std::fs::remove_file(layer.join(FILES)).unwrap();
        std::fs::create_dir(layer.join(FILES)).unwrap();
        assert!(find(&stores, "a").unwrap().is_some());
    }
}
