//! Follows the short links by which overlays name their layers (mount options fit into one page): those of an
//! engine (`overlay2/l/<name>`), and those that the initramfs makes in its `/tmp`. A running system may still
//! have the latter, at the same or another path, or not. `model/kernel/mounts.rs` parses the names.

use crate::host::engine::stored_containers::DataRoot;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::kernel::mounts::{HostOverlays, Lower, MountedOverlays, layer_in, short_name};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

/// The initramfs' root filesystem, after it has switched to the new one.
const OLD_ROOT: &str = "/mnt/sysroot/active";
/// Some versions keep the initramfs' `/tmp` here.
const OLD_TMP: &str = "/run/initramfs";
/// The longest chain of links that is followed.
const DEPTH: usize = 8;

/// The target of a path that an overlay names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    Layer(String),
    /// A directory that is not a layer of an engine.
    Other,
    /// The link does not exist any more, or cannot be read.
    Unknown,
}

/// Adds the names of the layers that are given by links. `stores` are the data roots of engines that may have
/// the layers.
pub(crate) fn follow(
    host: &HostRoot,
    mounted: MountedOverlays,
    stores: &[DataRoot],
) -> HostOverlays {
    let MountedOverlays { mut overlays, links } = mounted;
    for Lower { path, of_root } in links {
        match follow_path(host, Path::new(&path), stores) {
            Followed::Layer(layer) => {
                overlays.layers.insert(layer);
            }
            Followed::Unknown if of_root => overlays.unnamed.push(path),
            Followed::Unknown | Followed::Other => {}
        }
    }
    overlays
}

/// Follows one path.
pub(crate) fn follow_path(host: &HostRoot, path: &Path, stores: &[DataRoot]) -> Followed {
    follow_one(host, path, stores, DEPTH)
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
                // The target as the initramfs saw it.
                let target = path.parent().unwrap_or(path).join(target);
                return follow_one(host, &without_dots(&target), stores, depth - 1);
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

/// The paths at which the running system may have a path of the initramfs.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = vec![path.to_owned()];
    places.extend(path.strip_prefix("/").map(|rest| Path::new(OLD_ROOT).join(rest)));
    places.extend(path.strip_prefix("/tmp").map(|rest| Path::new(OLD_TMP).join(rest)));
    places
}

/// The target of a link, unresolved. A link of another user proves nothing: anybody can write to `/tmp`.
fn read_link(host: &HostRoot, path: &Path) -> Result<PathBuf, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let link = host.open(path, flags).map_err(errno)?;
    let owner = rustix::fs::fstat(&link)?.st_uid;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(Errno::ACCESS);
    }
    let target = match rustix::fs::readlinkat(&link, "", Vec::new()) {
        // readlinkat(2) with an empty path gives this error for a file that is not a link.
        Err(Errno::NOENT) => return Err(Errno::INVAL),
        target => target?,
    };
    Ok(OsString::from_vec(target.into_bytes()).into())
}

/// `path` with each `..` removed together with the part before it, without looking at the filesystem.
fn without_dots(path: &Path) -> PathBuf {
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

    fn overlays(host: &HostRoot, lower: &str) -> HostOverlays {
        let mounts = format!("overlay / overlay ro,lowerdir={lower} 0 0\n");
        let store = DataRoot { host: host.clone(), path: "/mnt/data/docker".into() };
        follow(host, MountedOverlays::parse(&mounts), &[store])
    }

    #[test]
    fn links_are_followed_at_their_present_path_and_a_missing_one_names_no_layer() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        let make = |link: &str, target: &str| {
            let link = host.display_path(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, link).unwrap();
        };
        let short = "4Z7YJNMPKM5W5IHGQEY2GDYLAA";
        make(&format!("/mnt/data/docker/overlay2/l/{short}"), "../own/diff");
        make("/tmp/mobynit-lower1/0", "/tmp/mobynit-data/docker/overlay2/kept/diff");
        make("/mnt/sysroot/active/tmp/mobynit-lower2/0", &format!("/x/docker/overlay2/l/{short}"));
        make("/run/initramfs/mobynit-lower3/0", "/x/overlay2/moved/merged");
        make("/tmp/loop", "loop");
        std::fs::create_dir_all(host.display_path("/rootfs")).unwrap();
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
            let seen = overlays(&host, lower);
            assert_eq!(seen.layers.iter().collect::<Vec<_>>(), layers, "{lower}");
            assert_eq!(seen.unnamed, unnamed, "{lower}");
        }
    }

    #[test]
    fn a_link_of_another_user_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostRoot::new(folder.path().to_owned());
        std::fs::create_dir(host.display_path("/tmp")).unwrap();
        let link = host.display_path("/tmp/0");
        symlink("/x/overlay2/wanted/diff", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(1), Some(1)).unwrap();
        assert_eq!(overlays(&host, "/tmp/0").unnamed, ["/tmp/0"]);
    }
}
