//! The short links by which overlays name their layers, because the kernel takes options of one page only:
//! an engine's own (`overlay2/l/<name>`), and those that the initramfs makes in its `/tmp`, which a running
//! system may still have, elsewhere, or not any more. `model/kernel/mounts.rs` reads the names.

use crate::host::engine::stored_containers::DataRoot;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::mounts::{Layering, Lower, Overlays, layer_in, short_name};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

/// Where the old root filesystem of the initramfs is after it has changed to the new one.
const OLD_ROOT: &str = "/mnt/sysroot/active";
/// Where some versions keep its `/tmp`.
const OLD_TMP: &str = "/run/initramfs";
/// How many links may follow each other.
const DEPTH: usize = 8;

/// What a path stands for.
enum Followed {
    Layer(String),
    /// A folder that is no layer of an engine.
    Other,
    Unknown,
}

/// Names the layers that are given by links. `stores` are those of engines that may have the layers.
pub(crate) fn follow(host: &HostRoot, overlays: Overlays, stores: &[DataRoot]) -> Layering {
    let Overlays { mut layering, links } = overlays;
    for Lower { path, of_root } in links {
        match follow_one(host, Path::new(&path), stores, DEPTH) {
            Followed::Layer(layer) => {
                layering.layers.insert(layer);
            }
            Followed::Unknown if of_root => layering.unnamed.push(path),
            Followed::Unknown | Followed::Other => {}
        }
    }
    layering
}

fn follow_one(host: &HostRoot, path: &Path, stores: &[DataRoot], depth: usize) -> Followed {
    let text = path.to_string_lossy();
    if let Some(layer) = layer_in(&text) {
        return Followed::Layer(layer);
    }
    if let Some(name) = short_name(&text) {
        let mut layers = stores.iter().filter_map(|store| {
            let link = store.path.join("overlay2/l").join(name);
            layer_in(read_link(&store.host, &link).ok()?.to_str()?)
        });
        if let Some(layer) = layers.next() {
            return Followed::Layer(layer);
        }
    }
    for place in places(path) {
        match read_link(host, &place) {
            Ok(target) if depth > 0 => {
                // As the initramfs saw it.
                let target = path.parent().unwrap_or(path).join(target);
                return follow_one(host, &plain(&target), stores, depth - 1);
            }
            Ok(_) => return Followed::Unknown,
            Err(Errno::INVAL) => {
                let found = host.find(&place).ok();
                let layer = found.and_then(|found| layer_in(&found.to_string_lossy()));
                return layer.map_or(Followed::Other, Followed::Layer);
            }
            Err(error) if is_absence(&error.into()) => {}
            Err(_) => return Followed::Unknown,
        }
    }
    Followed::Unknown
}

/// Where a path of the initramfs may be found in the system that it started.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = vec![path.to_owned()];
    places.extend(path.strip_prefix("/").map(|rest| Path::new(OLD_ROOT).join(rest)));
    places.extend(path.strip_prefix("/tmp").map(|rest| Path::new(OLD_TMP).join(rest)));
    places
}

/// Where a link leads, as it says. One that belongs to somebody else proves nothing: `/tmp` is everybody's.
fn read_link(host: &HostRoot, path: &Path) -> Result<PathBuf, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let link = host.open(path, flags).map_err(errno)?;
    let owner = rustix::fs::fstat(&link)?.st_uid;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Errno::ACCESS);
    }
    let target = match rustix::fs::readlinkat(&link, "", Vec::new()) {
        // readlinkat(2) says so of a file that is no link, where it is named by a descriptor.
        Err(Errno::NOENT) => return Err(Errno::INVAL),
        target => target?,
    };
    Ok(OsString::from_vec(target.into_bytes()).into())
}

/// A path without `..`, by its text alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn layering(host: &HostRoot, lower: &str) -> Layering {
        let mounts = format!("overlay / overlay ro,lowerdir={lower} 0 0\n");
        let store = DataRoot { host: host.clone(), path: "/mnt/data/docker".into() };
        follow(host, Overlays::parse(&mounts), &[store])
    }

    #[test]
    fn links_are_followed_where_they_are_now_and_what_is_gone_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        let make = |link: &str, target: &str| {
            let link = host.shown(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, link).unwrap();
        };
        let short = "4Z7YJNMPKM5W5IHGQEY2GDYLAA";
        make(&format!("/mnt/data/docker/overlay2/l/{short}"), "../own/diff");
        make("/tmp/mobynit-lower1/0", "/tmp/mobynit-data/docker/overlay2/kept/diff");
        make("/mnt/sysroot/active/tmp/mobynit-lower2/0", &format!("/x/docker/overlay2/l/{short}"));
        make("/run/initramfs/mobynit-lower3/0", "/x/overlay2/moved/merged");
        make("/tmp/loop", "loop");
        std::fs::create_dir_all(host.shown("/rootfs")).unwrap();
        for (lower, layers, unnamed) in [
            ("/rootfs", &[][..], &[][..]),
            (&format!("/initramfs/docker/overlay2/l/{short}"), &["own"], &[]),
            ("/tmp/mobynit-lower1/0", &["kept"], &[]),
            ("/tmp/mobynit-lower2/0", &["own"], &[]),
            ("/tmp/mobynit-lower3/0", &["moved"], &[]),
            ("/tmp/mobynit-lower4/0:/tmp/mobynit-lower1/0", &["kept"], &["/tmp/mobynit-lower4/0"]),
            ("/x/overlay2/l/GONE", &[], &["/x/overlay2/l/GONE"]),
            ("/tmp/loop", &[], &["/tmp/loop"]),
        ] {
            let seen = layering(&host, lower);
            assert_eq!(seen.layers.iter().collect::<Vec<_>>(), layers, "{lower}");
            assert_eq!(seen.unnamed, unnamed, "{lower}");
        }
    }

    #[test]
    fn a_link_of_somebody_else_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        std::fs::create_dir(host.shown("/tmp")).unwrap();
        let link = host.shown("/tmp/0");
        symlink("/x/overlay2/wanted/diff", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(1), Some(1)).unwrap();
        assert_eq!(layering(&host, "/tmp/0").unnamed, ["/tmp/0"]);
    }
}
