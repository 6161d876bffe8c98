//! The engine's container store on disk; `model/store.rs` reads the bytes.

use crate::host::bundle::read_bounded;
use crate::model::cause::in_words;
use crate::model::store::{Lookup, Record};
use std::io;
use std::path::{Path, PathBuf};

/// Where Moby keeps its data unless told otherwise.
const DEFAULT_ROOT: &str = "/var/lib/docker";

/// Looks `id` up: below `docker_root` if the caller names one; else below the folders that `rootfs`
/// lies in, the deepest first, which finds a second engine with its own data root and every storage
/// driver (`<docker-root>/overlay2/<layer>/merged`); else below `/var/lib/docker`.
pub(crate) fn look_up(id: &str, docker_root: Option<&Path>, rootfs: &Path) -> Lookup {
    if let Some(root) = docker_root {
        return read(id, root);
    }
    let mut unusable = None;
    let ancestors = rootfs.ancestors().skip(1).filter(|path| path.parent().is_some());
    for root in ancestors.chain([Path::new(DEFAULT_ROOT)]) {
        match read(id, root) {
            found @ Lookup::Found { .. } => return found,
            Lookup::Absent { .. } => {}
            broken @ Lookup::Unusable { .. } => unusable = unusable.or(Some(broken)),
        }
    }
    unusable.unwrap_or_else(|| {
        let root = likely_root(rootfs).unwrap_or(Path::new(DEFAULT_ROOT));
        Lookup::Absent { path: shown(&record_path(id, root)) }
    })
}

/// The data root that the shape of `rootfs` speaks for, for a message.
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
    let why = match read_bounded(&path) {
        Ok(bytes) => match Record::parse(&bytes) {
            Ok(record) => return Lookup::Found { path: shown(&path), record },
            Err(error) => error.to_string(),
        },
        Err(error) if is_absence(&error) => return Lookup::Absent { path: shown(&path) },
        Err(error) => in_words(&error),
    };
    Lookup::Unusable { path: shown(&path), why }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(root: &Path, id: &str, text: &str) {
        let folder = root.join("containers").join(id);
        std::fs::create_dir_all(&folder).unwrap();
        let mut file = std::fs::File::create(folder.join("config.v2.json")).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    #[test]
    fn the_data_root_is_derived_from_the_rootfs() {
        let root = tempfile::tempdir().unwrap();
        store(root.path(), "x", r#"{"Config":{"Labels":{"a":"1"}}}"#);
        for rootfs in ["overlay2/l/merged", "100000.100000/overlay2/l/merged", "vfs/dir/l"] {
            let lookup = look_up("x", None, &root.path().join(rootfs));
            assert!(matches!(&lookup, Lookup::Found { .. }), "{rootfs}: {lookup:?}");
        }
    }

    #[test]
    fn a_named_root_is_the_only_one() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        store(root.path(), "x", "{}");
        let rootfs = root.path().join("overlay2/l/merged");
        let lookup = look_up("x", Some(other.path()), &rootfs);
        let Lookup::Absent { path } = lookup else { panic!("{lookup:?}") };
        assert!(path.starts_with(other.path().to_str().unwrap()), "{path}");
    }

    #[test]
    fn a_missing_record_names_the_likely_place_and_a_broken_one_its_own() {
        let root = tempfile::tempdir().unwrap();
        let rootfs = root.path().join("overlay2/l/merged");
        let Lookup::Absent { path } = look_up("x", None, &rootfs) else { panic!() };
        assert_eq!(Path::new(&path), root.path().join("containers/x/config.v2.json"));
        let lookup = look_up("x", None, Path::new("/b/rootfs"));
        assert!(lookup.to_string().contains("/var/lib/docker/containers/x/config.v2.json"));
        store(root.path(), "x", "{");
        let Lookup::Unusable { path, why } = look_up("x", None, &rootfs) else { panic!() };
        assert!(path.ends_with("containers/x/config.v2.json") && why.contains("EOF"), "{why}");
    }
}
