//! containers/storage, the store of Podman and CRI-O: its paths and its files. A list of containers names the
//! container's image, the image's manifest names its configuration, and the configuration has the labels.
//! `host/engine/containers_storage.rs` reads the files.
//!
//! The graph root has `<driver>-containers`, `<driver>-images` and `<driver>/<layer>`. Lists and images may
//! lie elsewhere: with `--transient-store` the list is below the run root, and images are also in the
//! `imagestore` and the `additionalimagestores` of storage.conf(5).

use crate::model::kernel::mounts::unescaped;
use serde::Deserialize;
use std::path::{Component, Path, PathBuf};

/// The lists of containers: the durable one, and the one of containers that do not survive a reboot.
pub(crate) const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];
/// The paths of storage.conf(5); the first file that exists counts.
pub(crate) const CONFIGURATIONS: [&str; 2] =
    ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];

/// A graph root, a run root or an image store, and the storage driver that its directories are named for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageRoot {
    root: PathBuf,
    driver: String,
}

impl StorageRoot {
    /// The store in which `path` belongs to container `id`: `<root>/<driver>-containers/<id>/userdata` is the
    /// bundle, and `path` is the bundle or a file below it.
    pub(crate) fn of_container_file(path: &Path, id: &str) -> Option<Self> {
        let userdata = Path::new(id).join("userdata");
        path.ancestors().filter(|directory| directory.ends_with(&userdata)).find_map(|directory| {
            let containers = directory.ancestors().nth(2)?;
            let driver = containers.file_name()?.to_str()?.strip_suffix("-containers")?;
            Some(Self { root: containers.parent()?.to_owned(), driver: driver.to_owned() })
        })
    }

    /// The stores that may have mounted `rootfs`, the deepest first: `<root>/<driver>/<layer>/merged`.
    pub(crate) fn around(rootfs: &Path) -> impl Iterator<Item = Self> {
        rootfs.ancestors().filter_map(|directory| {
            let driver = directory.file_name()?.to_str()?.to_owned();
            Some(Self { root: directory.parent()?.to_owned(), driver })
        })
    }

    /// The stores that have the layer `lower`, the deepest first: `<root>/<driver>/l/<short name>` or
    /// `<root>/<driver>/<layer>/diff`.
    pub(crate) fn of_layer(lower: &Path, driver: &str) -> Vec<Self> {
        let drivers = lower
            .ancestors()
            .filter(|directory| directory.file_name().is_some_and(|name| name == driver));
        let roots = drivers.filter_map(Path::parent);
        roots.map(|root| Self::image_store(root, driver)).collect()
    }

    pub(crate) fn image_store(root: impl Into<PathBuf>, driver: &str) -> Self {
        Self { root: root.into(), driver: driver.to_owned() }
    }

    pub(crate) fn driver(&self) -> &str {
        &self.driver
    }

    /// The path of a list of containers.
    pub(crate) fn list(&self, name: &str) -> PathBuf {
        self.root.join(format!("{}-containers", self.driver)).join(name)
    }

    /// The directory of an image.
    pub(crate) fn image(&self, image: &str) -> PathBuf {
        self.root.join(format!("{}-images", self.driver)).join(image)
    }
}

/// What a list of containers says about one container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Not,
    /// The container is listed, but was made from a directory (`podman run --rootfs`).
    WithoutImage,
    /// The id of its image.
    Image(String),
}

/// Looks for container `id` in a list of containers.
pub(crate) fn listed(bytes: &[u8], id: &str) -> Result<Listed, serde_json::Error> {
    #[derive(Deserialize)]
    struct ListedInStorage {
        id: String,
        image: Option<String>,
    }
    let containers: Vec<ListedInStorage> = serde_json::from_slice(bytes)?;
    let Some(container) = containers.into_iter().find(|container| container.id == id) else {
        return Ok(Listed::Not);
    };
    let image = container.image.filter(|image| is_hex(image));
    Ok(image.map_or(Listed::WithoutImage, Listed::Image))
}

/// The digest of the configuration that a manifest names (image-spec manifest.md). `None` if it names none,
/// like an index.
pub(crate) fn config_digest(manifest: &[u8]) -> Result<Option<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct ImageManifest {
        config: Option<ConfigDescriptor>,
    }
    #[derive(Deserialize)]
    struct ConfigDescriptor {
        digest: String,
    }
    let manifest: ImageManifest = serde_json::from_slice(manifest)?;
    Ok(manifest.config.map(|config| config.digest).filter(|digest| is_digest(digest)))
}

/// The file in the image's directory that holds the blob of this digest: its name is the digest in base64.
pub(crate) fn blob_name(digest: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut name = String::from("=");
    for group in digest.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte))
            << (8 * (3 - group.len()));
        for position in 0..4 {
            let index = usize::try_from((bits >> (18 - 6 * position)) & 63).unwrap_or_default();
            let filled = position <= group.len();
            let letter = ALPHABET.get(index).filter(|_| filled);
            name.push(letter.map_or('=', |letter| char::from(*letter)));
        }
    }
    name
}

/// An id of hex digits can safely become part of a path.
fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// These characters never give a slash in base64, so the file's name cannot lead elsewhere.
fn is_digest(text: &str) -> bool {
    let is_of_digests = |byte: u8| byte.is_ascii_alphanumeric() || b":+._-".contains(&byte);
    text.contains(':') && text.bytes().all(is_of_digests)
}

/// The lower layers of the overlay that is mounted at `rootfs`, by `/proc/self/mountinfo`; none if something
/// else is mounted there. Relative paths are left out: their base directory is unknown.
pub(crate) fn lower_layers(mountinfo: &str, rootfs: &Path) -> Vec<PathBuf> {
    // ID PARENT DEVICE ROOT POINT OPTIONS [TAG]... - TYPE SOURCE SUPER-OPTIONS. The last mount at a point is on top.
    let mounted = mountinfo.lines().rev().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        (Path::new(&unescaped(point)) == rootfs).then_some(after)
    });
    let mut fields = mounted.unwrap_or_default().split(' ');
    let (Some("overlay"), Some(options)) = (fields.next(), fields.nth(1)) else {
        return Vec::new();
    };
    let values = options.split(',').filter_map(|option| {
        let (name, value) = option.split_once('=')?;
        matches!(name, "lowerdir" | "lowerdir+" | "datadir+").then_some(value)
    });
    let layers = values.flat_map(|value| value.split(':')).map(unescaped).map(PathBuf::from);
    layers.filter(|layer| layer.components().next() == Some(Component::RootDir)).collect()
}

/// The image stores that a storage.conf(5) names: `imagestore` and `additionalimagestores`, anywhere below
/// `[storage]`. Supports the TOML that occurs there: comments, tables, strings without escapes, and lists of
/// strings on one line or several.
pub(crate) fn image_stores(configuration: &str) -> Vec<PathBuf> {
    let mut stores = Vec::new();
    let (mut in_storage, mut in_list) = (false, false);
    for line in configuration.lines().map(str::trim) {
        let value = if in_list {
            line
        } else if let Some(table) = line.strip_prefix('[') {
            let table = table.split(']').next().unwrap_or_default().trim();
            in_storage = table == "storage" || table.starts_with("storage.");
            continue;
        } else {
            let Some((key, value)) = line.split_once('=').filter(|_| in_storage) else { continue };
            if !matches!(key.trim(), "imagestore" | "additionalimagestores") {
                continue;
            }
            in_list = value.trim_start().starts_with('[');
            value
        };
        let (strings, ends) = strings(value);
        stores.extend(strings.into_iter().filter(|path| path.starts_with('/')).map(PathBuf::from));
        in_list &= !ends;
    }
    stores
}

/// The quoted strings of a line, and whether the line ends a list.
fn strings(line: &str) -> (Vec<&str>, bool) {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find(['"', '\'', '#', ']']) {
        let (_, from) = rest.split_at(at);
        let mut letters = from.chars();
        match letters.next() {
            Some(quote @ ('"' | '\'')) => {
                let Some((text, after)) = letters.as_str().split_once(quote) else { break };
                found.push(text);
                rest = after;
            }
            Some(']') => return (found, true),
            _ => break,
        }
    }
    (found, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &str, driver: &str) -> StorageRoot {
        StorageRoot::image_store(root, driver)
    }

    #[test]
    fn the_bundle_leads_to_the_store_and_so_does_every_file_beside_it() {
        let found = |path: &str| StorageRoot::of_container_file(Path::new(path), "c0");
        assert_eq!(found("/g/overlay-containers/c0/userdata"), Some(place("/g", "overlay")));
        assert_eq!(found("/r/vfs-containers/c0/userdata/pidfile"), Some(place("/r", "vfs")));
        let others =
            ["/g/overlay-containers/c1/userdata", "/g/overlay/c0/userdata", "/userdata", "/"];
        for path in others {
            assert_eq!(found(path), None, "{path}");
        }
        let place = place("/g", "overlay");
        assert_eq!(place.list("x.json"), Path::new("/g/overlay-containers/x.json"));
        assert_eq!(place.image("00ff"), Path::new("/g/overlay-images/00ff"));
    }

    #[test]
    fn a_layer_leads_to_the_store_that_has_it() {
        let of_layer = |path: &str| StorageRoot::of_layer(Path::new(path), "overlay");
        assert_eq!(of_layer("/s/overlay/l/SHORT"), [place("/s", "overlay")]);
        assert_eq!(
            of_layer("/overlay/overlay/00/diff").first(),
            Some(&place("/overlay", "overlay"))
        );
        assert!(of_layer("/s/overlay2/l/SHORT").is_empty());
        let around: Vec<StorageRoot> =
            StorageRoot::around(Path::new("/g/overlay/00/merged")).collect();
        assert!(around.contains(&place("/g", "overlay")), "{around:?}");
    }

    #[test]
    fn the_list_leads_from_the_container_to_its_image() {
        let list =
            br#"[{"id":"a","image":"00ff","layer":"l"},{"id":"b"},{"id":"c","image":"../x"}]"#;
        let listed_as = |id| listed(list, id).unwrap();
        assert_eq!(listed_as("a"), Listed::Image("00ff".to_owned()));
        assert_eq!(listed_as("b"), Listed::WithoutImage);
        assert_eq!(listed_as("c"), Listed::WithoutImage, "an image id that is a path");
        assert_eq!(listed_as("d"), Listed::Not);
        assert!(listed(b"{", "a").is_err());
    }

    #[test]
    fn the_manifest_names_the_configuration() {
        let digest = |text: &str| config_digest(text.as_bytes()).unwrap();
        let named = digest(r#"{"schemaVersion":2,"config":{"digest":"sha256:00ff","size":1}}"#);
        assert_eq!(named.as_deref(), Some("sha256:00ff"));
        for text in
            [r#"{"manifests":[]}"#, r#"{"config":{"digest":"../??:"}}"#, r#"{"config":null}"#]
        {
            assert_eq!(digest(text), None, "{text}");
        }
        assert!(config_digest(b"[]").is_err());
    }

    #[test]
    fn the_name_of_a_blob_is_its_key_in_base64() {
        assert_eq!(blob_name("sha256:0"), "=c2hhMjU2OjA=");
        assert_eq!(blob_name("sha256:00"), "=c2hhMjU2OjAw");
        assert_eq!(blob_name("sha256:000"), "=c2hhMjU2OjAwMA==");
    }

    #[test]
    fn the_lower_layers_are_those_of_the_overlay_on_top() {
        let mountinfo = "\
            95 94 0:48 /x /g/overlay rw,relatime - tmpfs run rw\n\
            98 95 0:50 / /g/a\\040b rw - overlay overlay rw,lowerdir=/old/overlay/l/A\n\
            99 95 0:50 / /g/a\\040b rw shared:1 - overlay overlay rw,lowerdir=/s/overlay/l/A:/g/overlay/l/B\\072C:5,upperdir=/g/u\n\
            97 95 0:50 / /new rw - overlay overlay rw,lowerdir+=/s/1,datadir+=/s/2\n";
        let layers = |point: &str| lower_layers(mountinfo, Path::new(point));
        assert_eq!(layers("/g/a b"), ["/s/overlay/l/A", "/g/overlay/l/B:C"].map(PathBuf::from));
        assert_eq!(layers("/new"), ["/s/1", "/s/2"].map(PathBuf::from));
        assert!(layers("/g/overlay").is_empty() && layers("/elsewhere").is_empty());
    }

    #[test]
    fn storage_conf_names_image_stores_on_one_line_and_on_several() {
        let text = r#"
            imagestore = "/not/ours"
            [storage]
            driver = "overlay"   # imagestore = "/no"
            imagestore = "/images"
            [storage.options]
            # additionalimagestores = [ "/commented" ]
            additionalimagestores = [ "/a", # "/no"
              '/b', "relative",
            ]
            size = ""
            [storage.options.overlay]
            additionalimagestores = [ "/c" ]
            mount_program = "/usr/bin/fuse-overlayfs"
            [other]
            imagestore = "/no"
        "#;
        assert_eq!(image_stores(text), ["/images", "/a", "/b", "/c"].map(PathBuf::from));
        assert!(image_stores("[storage]\nimagestore = \"/unfinished\n").is_empty());
    }
}
