//! Looks up a container's labels in the engine's container store on disk: Moby's, or Podman's
//! (`containers_storage.rs`). `model/extension/label_sources.rs` parses the bytes.

use crate::host::engine::containers_storage::{self, Hints};
use crate::host::os::read::read_if_there;
use crate::model::extension::label_sources::{Lookup, Store, StoredLabels};
use crate::model::text::cause::in_words;
use std::path::{Path, PathBuf};

/// Moby's default data root.
const DEFAULT_ROOT: &str = "/var/lib/docker";

/// Looks the container up: in containers/storage if its bundle is there, as with Podman; otherwise in
/// Moby's store, and then in a containers/storage that may have its rootfs. If the caller names `docker_root`,
/// only that data root is searched.
pub(crate) fn look_up(docker_root: Option<&Path>, hints: &Hints<'_>) -> Lookup {
    if let Some(root) = docker_root {
        return read(hints.id, root);
    }
    if let Some(lookup) = containers_storage::look_up_bundle(hints) {
        return lookup;
    }
    let mut best = absent_from_likely_root(hints);
    // The deepest first: that finds a second engine with a data root of its own, and every storage driver
    // (`<docker-root>/overlay2/<layer>/merged`).
    for root in hints.rootfs.ancestors().skip(1).chain([Path::new(DEFAULT_ROOT)]) {
        match read(hints.id, root) {
            Lookup::Absent { .. } => {}
            found @ Lookup::Found { .. } => return found,
            unusable @ Lookup::Unusable { .. } => best = best.or(unusable),
        }
    }
    match containers_storage::look_up_rootfs(hints) {
        Some(lookup) => best.or(lookup),
        None => best,
    }
}

/// The answer if no store of Moby has the container.
fn absent_from_likely_root(hints: &Hints<'_>) -> Lookup {
    let (root, store) = match likely_root(hints.rootfs) {
        Some(root) => (root, Store::Moby),
        None => (Path::new(DEFAULT_ROOT), Store::Unknown),
    };
    Lookup::Absent { path: shown(&record_path(hints.id, root)), store }
}

/// The data root that the path of `rootfs` suggests, for a message.
fn likely_root(rootfs: &Path) -> Option<&Path> {
    let drivers =
        ["overlay2", "overlay", "aufs", "btrfs", "zfs", "vfs", "fuse-overlayfs", "devicemapper"];
    rootfs
        .ancestors()
        .find(|path| {
            path.file_name().is_some_and(|name| drivers.iter().any(|driver| name == *driver))
        })
        .and_then(Path::parent)
}

fn record_path(id: &str, root: &Path) -> PathBuf {
    root.join("containers").join(id).join("config.v2.json")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn read(id: &str, root: &Path) -> Lookup {
    let path = record_path(id, root);
    let why = match read_if_there(&path) {
        Ok(Some(bytes)) => match StoredLabels::parse(&bytes) {
            Ok(stored) => return Lookup::Found { path: shown(&path), stored },
            Err(error) => error.to_string(),
        },
        Ok(None) => return Lookup::Absent { path: shown(&path), store: Store::Moby },
        Err(error) => in_words(&error),
    };
    Lookup::Unusable { path: shown(&path), why, store: Store::Moby }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up_by_rootfs(id: &str, docker_root: Option<&Path>, rootfs: &Path) -> Lookup {
        look_up(docker_root, &Hints { id, rootfs, bundle: Path::new("/b"), files: Vec::new() })
    }

    fn record(root: &Path, id: &str, text: &str) {
        let folder = root.join("containers").join(id);
        std::fs::create_dir_all(&folder).unwrap();
        let mut file = std::fs::File::create(folder.join("config.v2.json")).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    #[test]
    fn the_data_root_is_derived_from_the_rootfs() {
        let root = tempfile::tempdir().unwrap();
        record(root.path(), "x", r#"{"Config":{"Labels":{"a":"1"}}}"#);
        for rootfs in ["overlay2/l/merged", "100000.100000/overlay2/l/merged", "vfs/dir/l"] {
            let lookup = look_up_by_rootfs("x", None, &root.path().join(rootfs));
            assert!(matches!(&lookup, Lookup::Found { .. }), "{rootfs}: {lookup:?}");
        }
    }

    #[test]
    fn a_named_root_is_the_only_one() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        record(root.path(), "x", "{}");
        let rootfs = root.path().join("overlay2/l/merged");
        let lookup = look_up_by_rootfs("x", Some(other.path()), &rootfs);
        let Lookup::Absent { path, .. } = lookup else { panic!("{lookup:?}") };
        assert!(path.starts_with(other.path().to_str().unwrap()), "{path}");
    }

    #[test]
    fn a_missing_record_names_the_likely_place_and_a_broken_one_its_own() {
        let root = tempfile::tempdir().unwrap();
        let rootfs = root.path().join("overlay2/l/merged");
        let Lookup::Absent { path, .. } = look_up_by_rootfs("x", None, &rootfs) else { panic!() };
        assert_eq!(Path::new(&path), root.path().join("containers/x/config.v2.json"));
        let lookup = look_up_by_rootfs("x", None, Path::new("/b/rootfs"));
        assert!(lookup.to_string().contains("/var/lib/docker/containers/x/config.v2.json"));
        record(root.path(), "x", "{");
        let Lookup::Unusable { path, why, .. } = look_up_by_rootfs("x", None, &rootfs) else {
            panic!()
        };
        assert!(path.ends_with("containers/x/config.v2.json") && why.contains("EOF"), "{why}");
    }
}
