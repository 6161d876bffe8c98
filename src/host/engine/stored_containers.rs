//! Reads all containers of the engine's store on disk, for when the engine is down. `model/engine/inspection.rs`
//! parses a record; the layers of a container are in the layer store beside the records.

use crate::host::os::host_root::HostRoot;
use crate::model::engine::inspection::{StoredExtension, parse_stored};
use crate::model::engine::inventory::{Detail, Inventory};
use crate::model::text::cause::in_words;
use std::io;
use std::path::PathBuf;

/// The directory of an engine's data.
#[derive(Clone, Debug)]
pub(crate) struct DataRoot {
    pub(crate) host: HostRoot,
    /// On that host; absolute.
    pub(crate) path: PathBuf,
}

/// Why a store cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the container store {path:?} (is --docker-root right?)")]
pub(crate) struct Unreadable {
    path: PathBuf,
    source: io::Error,
}

/// The extensions of a store, in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct StoredExtensions {
    pub(crate) extensions: Vec<StoredExtension>,
    /// The records that cannot be read, and why: each may be one of an extension.
    pub(crate) unreadable: Vec<String>,
}

impl From<StoredExtensions> for Inventory {
    fn from(stored: StoredExtensions) -> Self {
        let StoredExtensions { extensions, unreadable } = stored;
        let containers = extensions.into_iter().map(|stored| stored.container).collect();
        Self { containers, unreadable, ..Self::default() }
    }
}

/// Reads all extensions of the store.
pub(crate) fn load(root: &DataRoot) -> Result<StoredExtensions, Unreadable> {
    let directory = root.path.join("containers");
    let failed = |source| Unreadable { path: root.host.display_path(&directory), source };
    let mut stored = StoredExtensions::default();
    for name in root.host.names(&directory).map_err(failed)? {
        let path = directory.join(name).join("config.v2.json");
        let parsed = match root.host.bytes(&path) {
            Ok(bytes) => parse_stored(&bytes).map_err(|error| error.to_string()),
            // Not a container's directory, or that of a container which was just removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(in_words(&error)),
        };
        match parsed {
            Ok(Some(mut extension)) => {
                let container = &mut extension.container;
                if let Detail::Known(last_run) = &mut container.detail {
                    last_run.layers = layers(root, &container.id);
                }
                stored.extensions.push(extension);
            }
            Ok(None) => {}
            Err(why) => {
                stored.unreadable.push(format!("{:?}: {why}", root.host.display_path(path)));
            }
        }
    }
    Ok(stored)
}

/// The container's own layer and the topmost one of its image. `None` if the layer store does not name the
/// former: then nothing is concluded from layers.
fn layers(root: &DataRoot, id: &str) -> Option<Vec<String>> {
    let database = root.path.join("image/overlay2/layerdb");
    let text = |path: PathBuf| -> Option<String> {
        let text = String::from_utf8(root.host.bytes(path).ok()?).ok()?;
        // The text becomes part of a path, or a name to compare with.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b':' || byte == b'-';
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(is_plain)).then(|| text.to_owned())
    };
    let mount = database.join("mounts").join(id);
    let own = text(mount.join("mount-id"))?;
    let parent = text(mount.join("parent"));
    let topmost = parent.and_then(|parent| {
        let (kind, digest) = parent.split_once(':')?;
        text(database.join(kind).join(digest).join("cache-id"))
    });
    Some(std::iter::once(own).chain(topmost).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::path::Path;

    fn data_root(folder: &tempfile::TempDir) -> DataRoot {
        DataRoot { host: HostRoot::new(folder.path().to_owned()), path: "/".into() }
    }

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn record(id: &str, class: &str) -> String {
        format!(
            r#"{{"ID":"{id}","State":{{}},"Config":{{"Labels":{{"io.balena.image.class":"{class}"}}}}}}"#
        )
    }

    #[test]
    fn extensions_and_their_layers_are_read_and_broken_records_are_named() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "containers/a/config.v2.json", &record("a", "overlay"));
        write(root.path(), "containers/b/config.v2.json", &record("b", "volume"));
        write(root.path(), "containers/c/config.v2.json", "{");
        write(root.path(), "containers/d/hostconfig.json", "{}");
        write(root.path(), "image/overlay2/layerdb/mounts/a/mount-id", "own\n");
        write(root.path(), "image/overlay2/layerdb/mounts/a/parent", "sha256:0f");
        write(root.path(), "image/overlay2/layerdb/sha256/0f/cache-id", "top");
        let stored = load(&data_root(&root)).unwrap();
        assert_eq!(stored.extensions.len(), 1);
        let Detail::Known(last_run) = &stored.extensions[0].container.detail else { panic!() };
        assert_eq!(last_run.layers, Some(vec!["own".to_owned(), "top".to_owned()]));
        assert_eq!(stored.unreadable.len(), 1);
        assert!(stored.unreadable[0].contains("containers/c/config.v2.json"));
    }

    #[test]
    fn a_store_that_is_not_there_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let error = load(&data_root(&root)).unwrap_err();
        assert!(error.to_string().contains("/containers\""), "{error}");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct Unreadable { path, source };
}
