//! Reads an image from the engine's store on disk: no container is made, and the engine may be down.
//! `model/engine/image_store.rs` parses the records.

use crate::host::engine::stored_containers::DataRoot;
use crate::host::os::host_root::is_absence;
use crate::model::engine::image_store::{Repositories, StoredImage, UnknownImage, find, is_hash};
use crate::model::extension::labels::Labels;
use crate::model::text::cause::in_words;
use crate::model::text::hex::hex;
use sha2::{Digest as _, Sha256};
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// The only storage driver whose layers the initramfs mounts, and its records of images.
const DRIVER: &str = "overlay2";
const IMAGES: &str = "image";
/// Podman has this directory in its store.
const PODMAN: &str = "overlay-images";

/// An image in the store.
#[derive(Debug)]
pub(crate) struct ImageLayers {
    pub(crate) labels: Labels,
    /// The names of its layers, the topmost first, as [`layer_store`] has them.
    ///
    /// [`layer_store`]: crate::host::engine::layer_store
    pub(crate) layers: Vec<String>,
}

/// Why the layers of an image are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredImageError {
    #[error("{unknown} (its images are in {path:?})")]
    Unknown { unknown: UnknownImage, path: PathBuf },
    #[error(
        "the engine stores its images in {path:?} with the storage driver {driver:?}; only the layers of overlay2 \
         can be mounted as the OS does at boot"
    )]
    Driver { path: PathBuf, driver: String },
    #[error(
        "{path:?} is a store of Podman; only the stores of Docker and balenaEngine can be read"
    )]
    Podman { path: PathBuf },
    #[error(
        "there are no images in {path:?}: it is not the data root of an engine (--docker-root names another), or the \
         engine keeps its images in containerd, whose layers cannot be read"
    )]
    NoStore { path: PathBuf },
    #[error("{why}")]
    Unreadable { why: String },
}

/// Reads the image that the user calls `name`.
pub(crate) fn load(root: &DataRoot, name: &str) -> Result<ImageLayers, StoredImageError> {
    let images = find_store(root)?;
    let ids = names(root, &images.join("imagedb/content/sha256"))?;
    let ids: Vec<String> = ids.into_iter().filter(|id| is_hash(id)).collect();
    let repositories = read(root, &images.join("repositories.json"))?;
    let id = find(name, &parse::<Repositories>(root, &repositories)?, &ids);
    let path = || root.host.display_path(&root.path);
    let id = id.map_err(|unknown| StoredImageError::Unknown { unknown, path: path() })?;
    let record = read(root, &images.join("imagedb/content/sha256").join(&id))?;
    let image = StoredImage::parse(&record.bytes).map_err(|error| record.broken(root, &error))?;
    let sha256 = |text: &str| hex(&Sha256::digest(text));
    let chain =
        image.chain(sha256).ok_or_else(|| record.broken(root, &"it has a malformed layer"))?;
    let layers = chain.iter().rev().map(|chain| layer(root, &images, chain));
    let layers = layers.collect::<Result<_, _>>()?;
    Ok(ImageLayers { labels: image.labels(), layers })
}

/// The records of the images of overlay2.
fn find_store(root: &DataRoot) -> Result<PathBuf, StoredImageError> {
    let images = root.path.join(IMAGES);
    let path = root.host.display_path(&root.path);
    let drivers = match root.host.names(&images) {
        Ok(names) => names,
        Err(error) if is_absence(&error) => {
            let is_of_podman = root.host.has_directory(root.path.join(PODMAN)).unwrap_or(false);
            return Err(match is_of_podman {
                true => StoredImageError::Podman { path },
                false => StoredImageError::NoStore { path },
            });
        }
        Err(error) => return Err(unreadable(root, &images, &in_words(&error))),
    };
    if drivers.iter().any(|driver| driver == DRIVER) {
        return Ok(images.join(DRIVER));
    }
    let drivers: Vec<_> = drivers.iter().map(|driver| driver.to_string_lossy()).collect();
    match drivers.as_slice() {
        [] => Err(StoredImageError::NoStore { path }),
        [_, ..] => Err(StoredImageError::Driver { path, driver: drivers.join(", ") }),
    }
}

/// The name of a layer in the layer store.
fn layer(root: &DataRoot, images: &Path, chain: &str) -> Result<String, StoredImageError> {
    let record = read(root, &images.join("layerdb/sha256").join(chain).join("cache-id"))?;
    let name = String::from_utf8_lossy(&record.bytes).trim().to_owned();
    match name.is_empty() || name.contains('/') || name.starts_with('.') {
        true => Err(record.broken(root, &"it does not name a layer")),
        false => Ok(name),
    }
}

/// A file of the store.
struct Record {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Record {
    fn broken(&self, root: &DataRoot, why: &dyn Display) -> StoredImageError {
        unreadable(root, &self.path, &why.to_string())
    }
}

fn read(root: &DataRoot, path: &Path) -> Result<Record, StoredImageError> {
    let bytes = root.host.bytes(path);
    let bytes = bytes.map_err(|error: io::Error| unreadable(root, path, &in_words(&error)))?;
    Ok(Record { path: path.to_owned(), bytes })
}

fn parse<T: serde::de::DeserializeOwned>(
    root: &DataRoot,
    record: &Record,
) -> Result<T, StoredImageError> {
    serde_json::from_slice(&record.bytes).map_err(|error| record.broken(root, &error))
}

fn names(root: &DataRoot, path: &Path) -> Result<Vec<String>, StoredImageError> {
    let names = root.host.names(path);
    let names = names.map_err(|error| unreadable(root, path, &in_words(&error)))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn unreadable(root: &DataRoot, path: &Path, why: &str) -> StoredImageError {
    let why = format!("cannot read {:?}: {why}", root.host.display_path(path));
    StoredImageError::Unreadable { why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::os::host_root::HostRoot;
    use std::fs::{File, create_dir_all, remove_dir_all};
    use std::io::Write as _;

    const A: &str = "aa00000000000000000000000000000000000000000000000000000000000001";
    const B: &str = "bb00000000000000000000000000000000000000000000000000000000000002";

    struct Store(tempfile::TempDir);

    impl Store {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn load(&self, name: &str) -> Result<ImageLayers, String> {
            let root = DataRoot { host: HostRoot::new(self.0.path().to_owned()), path: "/".into() };
            load(&root, name).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn the_layers_of_an_image_are_named_from_the_top() {
        let store = Store::new();
        assert!(store.load("x").unwrap_err().contains("not the data root of an engine"));
        create_dir_all(store.0.path().join("overlay-images")).unwrap();
        assert!(store.load("x").unwrap_err().contains("a store of Podman"));
        store.write("image/vfs/repositories.json", "{}");
        assert!(store.load("x").unwrap_err().contains("with the storage driver \"vfs\""));
        remove_dir_all(store.0.path().join("image/vfs")).unwrap();
        assert!(store.load("x").unwrap_err().contains("there are no images"));
        let base = "image/overlay2";
        let image = format!("{base}/imagedb/content/sha256/{A}");
        store.write(
            &image,
            &format!(
                r#"{{"config":{{"Labels":{{"io.balena.image.class":"overlay"}}}},
                    "rootfs":{{"diff_ids":["sha256:{A}","sha256:{B}"]}}}}"#
            ),
        );
        assert!(store.load("x").unwrap_err().contains("repositories.json\": missing"));
        let names = format!(r#"{{"Repositories":{{"x":{{"x:latest":"sha256:{A}"}}}}}}"#);
        store.write(&format!("{base}/repositories.json"), &names);
        assert!(store.load("y").unwrap_err().contains("the engine has no image \"y\""));
        assert!(store.load("x").unwrap_err().contains("cache-id\": missing"));
        // sha256sum of the text "sha256:A sha256:B".
        let second = hex(&Sha256::digest(format!("sha256:{A} sha256:{B}")));
        store.write(&format!("{base}/layerdb/sha256/{second}/cache-id"), "top");
        store.write(&format!("{base}/layerdb/sha256/{A}/cache-id"), "base\n");
        let loaded = store.load("x").unwrap();
        assert!(loaded.labels.is_extension());
        assert_eq!(loaded.layers, ["top", "base"]);
        store.write(&format!("{base}/layerdb/sha256/{A}/cache-id"), "../x");
        assert!(store.load("x").unwrap_err().contains("does not name a layer"));
        store.write(&image, "{");
        assert!(store.load("x").unwrap_err().contains(A));
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum StoredImageError {
        Unknown { unknown = UnknownImage::None { name: "NAME".to_owned() }, path },
        Driver { path, driver }, Podman { path }, NoStore { path }, Unreadable { why },
    }
}
