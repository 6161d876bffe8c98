//! The engine's container store on disk; `model/store.rs` reads the bytes.

use crate::host::bundle::read_bounded;
use crate::model::cause::in_words;
use crate::model::store::{self, Lookup, Record};
use std::io;
use std::path::{Path, PathBuf};

/// Where Moby keeps its data unless told otherwise.
const DEFAULT_ROOT: &str = "/var/lib/docker";

/// Looks `id` up: below `docker_root` if the caller names one; else below the folders that `rootfs`
/// lies in, the deepest first, which finds a second engine with its own data root and every storage
/// driver (`<docker-root>/overlay2/<layer>/merged`), and Podman's store; else below `/var/lib/docker`.
pub(crate) fn look_up(id: &str, docker_root: Option<&Path>, rootfs: &Path) -> Lookup {
    if let Some(root) = docker_root {
        return read(id, root);
    }
    let mut unusable = None;
    let mut absent_in_storage = None;
    let mut folder = rootfs;
    while let Some(root) = folder.parent() {
        for lookup in [Some(read(id, root)), read_containers_storage(id, root, folder)] {
            match lookup {
                Some(found @ Lookup::Found { .. }) => return found,
                Some(broken @ Lookup::Unusable { .. }) => unusable = unusable.or(Some(broken)),
                Some(Lookup::Absent { path }) if is_storage_list(&path) => {
                    absent_in_storage = absent_in_storage.or(Some(path));
                }
                Some(Lookup::Absent { .. }) | None => {}
            }
        }
        folder = root;
    }
    match read(id, Path::new(DEFAULT_ROOT)) {
        found @ Lookup::Found { .. } => return found,
        broken @ Lookup::Unusable { .. } => unusable = unusable.or(Some(broken)),
        Lookup::Absent { .. } => {}
    }
    unusable.unwrap_or_else(|| {
        let root = likely_root(rootfs).unwrap_or(Path::new(DEFAULT_ROOT));
        let path = absent_in_storage.unwrap_or_else(|| shown(&record_path(id, root)));
        Lookup::Absent { path }
    })
}

/// The lists of containers that containers/storage keeps, the durable one and that of containers which
/// end with the boot.
const STORAGE_LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

fn is_storage_list(path: &str) -> bool {
    STORAGE_LISTS.iter().any(|list| path.ends_with(list))
}

/// Looks `id` up in the containers/storage that `folder` may be the storage driver's folder of
/// (`<graphroot>/overlay/<layer>/merged`); `None` if there is no such store.
fn read_containers_storage(id: &str, root: &Path, folder: &Path) -> Option<Lookup> {
    let driver = folder.file_name()?.to_str()?;
    let containers = root.join(format!("{driver}-containers"));
    let mut absent = None;
    for list in STORAGE_LISTS {
        let list = containers.join(list);
        let unusable = |why: String| Some(Lookup::Unusable { path: shown(&list), why });
        let bytes = match read_bounded(&list) {
            Ok(bytes) => bytes,
            Err(error) if is_absence(&error) => continue,
            Err(error) => return unusable(in_words(&error)),
        };
        match store::image_of(&bytes, id) {
            Ok(Some(image)) => {
                let images = root.join(format!("{driver}-images")).join(&image);
                return Some(read_image(&images.join(store::image_config_name(&image)), &image));
            }
            Ok(None) => absent = absent.or(Some(Lookup::Absent { path: shown(&list) })),
            Err(error) => return unusable(error.to_string()),
        }
    }
    absent
}

fn read_image(path: &Path, image: &str) -> Lookup {
    let why = match read_bounded(path) {
        Ok(bytes) => match Record::parse_image(&bytes, image) {
            Ok(record) => return Lookup::Found { path: shown(path), record },
            Err(error) => error.to_string(),
        },
        Err(error) => in_words(&error),
    };
    Lookup::Unusable { path: shown(path), why }
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

    #[test]
    fn podmans_store_is_found_from_the_rootfs() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), text.as_bytes())
                .unwrap();
        };
        let rootfs = root.path().join("overlay/l/merged");
        write("overlay-containers/containers.json", r#"[{"id":"x","image":"00ff"}]"#);
        let lookup = look_up("x", None, &rootfs);
        let Lookup::Unusable { path, .. } = lookup else { panic!("{lookup:?}") };
        let config = store::image_config_name("00ff");
        assert!(path.ends_with(&format!("overlay-images/00ff/{config}")), "{path}");
        write(&format!("overlay-images/00ff/{config}"), r#"{"config":{"Labels":{"a":"1"}}}"#);
        let lookup = look_up("x", None, &rootfs);
        let Lookup::Found { record, .. } = lookup else { panic!("{lookup:?}") };
        assert_eq!(record.labels.get("a").map(String::as_str), Some("1"));
        let lookup = look_up("y", None, &rootfs);
        let Lookup::Absent { path } = lookup else { panic!("{lookup:?}") };
        assert!(path.ends_with("overlay-containers/containers.json"), "{path}");
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
            let lookup = look_up("x", None, &root.path().join(rootfs));
            assert!(matches!(&lookup, Lookup::Found { .. }), "{rootfs}: {lookup:?}");
        }
    }

    #[test]
    fn a_named_root_is_the_only_one() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        record(root.path(), "x", "{}");
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
        record(root.path(), "x", "{");
        let Lookup::Unusable { path, why } = look_up("x", None, &rootfs) else { panic!() };
        assert!(path.ends_with("containers/x/config.v2.json") && why.contains("EOF"), "{why}");
    }
}
