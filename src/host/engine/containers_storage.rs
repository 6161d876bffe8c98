//! Looks up a container's labels in containers/storage, the store of Podman, whose layout is in
//! `model/engine/containers_storage.rs`.

use crate::host::os::read::read_if_there;
use crate::model::engine::containers_storage::{
    self as layout, CONFIGURATIONS, LISTS, Listed, MANIFEST, StorageRoot,
};
use crate::model::extension::label_sources::{Lookup, Store, StoredLabels};
use crate::model::text::cause::in_words;
use std::path::{Path, PathBuf};

/// The paths that lead to a container's record.
pub(crate) struct Hints<'a> {
    pub(crate) id: &'a str,
    pub(crate) rootfs: &'a Path,
    pub(crate) bundle: &'a Path,
    /// Other files of the container: its pid file and the sources of its mounts. With `--transient-store` the
    /// list of containers lies beside them.
    pub(crate) files: Vec<&'a Path>,
}

/// Looks the container up in the store that has its bundle; `None` if no store has it. The rootfs may be
/// elsewhere: in a user namespace it is a bind mount.
pub(crate) fn look_up_bundle(hints: &Hints<'_>) -> Option<Lookup> {
    let own = StorageRoot::of_container_file(hints.bundle, hints.id)?;
    let absent = Lookup::Absent { path: shown(&own.list(LISTS[0])), store: Store::Podman };
    let mut roots = vec![own];
    for file in &hints.files {
        roots.extend(
            StorageRoot::of_container_file(file, hints.id).filter(|root| !roots.contains(root)),
        );
    }
    roots.extend(StorageRoot::around(hints.rootfs));
    Some(look_up(hints, &roots).unwrap_or(absent))
}

/// Looks the container up in the stores that may have its rootfs; `None` if there is no such store.
pub(crate) fn look_up_rootfs(hints: &Hints<'_>) -> Option<Lookup> {
    look_up(hints, &StorageRoot::around(hints.rootfs).collect::<Vec<_>>())
}

fn look_up(hints: &Hints<'_>, roots: &[StorageRoot]) -> Option<Lookup> {
    let (mut without_it, mut broken) = (Vec::new(), None);
    for root in roots {
        for list in LISTS.map(|name| root.list(name)) {
            let why = match read_if_there(&list) {
                Ok(None) => continue,
                Ok(Some(bytes)) => match layout::listed(&bytes, hints.id) {
                    Ok(Listed::Image(image)) => {
                        return Some(find_image(&image, &list, root.driver(), roots, hints.rootfs));
                    }
                    Ok(Listed::WithoutImage) => {
                        "the list names no image for the container".to_owned()
                    }
                    Ok(Listed::Not) => {
                        without_it.push(shown(&list));
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                Err(error) => in_words(&error),
            };
            broken =
                broken.or(Some(Lookup::Unusable { path: shown(&list), why, store: Store::Podman }));
        }
    }
    let absent = || Lookup::Absent { path: without_it.join(", "), store: Store::Podman };
    broken.or_else(|| (!without_it.is_empty()).then(absent))
}

/// Finds the configuration of `image`, which the list at `list` names: in the stores at `roots`, else in the
/// other image stores.
fn find_image(
    image: &str,
    list: &Path,
    driver: &str,
    roots: &[StorageRoot],
    rootfs: &Path,
) -> Lookup {
    let mut search = Search { image, tried: Vec::new(), problems: Vec::new() };
    let mut found = roots.iter().find_map(|root| search.look_in(root));
    if found.is_none() {
        let others = other_stores(driver, rootfs, &mut search.problems);
        found = others.iter().find_map(|root| search.look_in(root));
    }
    found.unwrap_or_else(|| {
        let tried: Vec<String> = search.tried.iter().map(|image| shown(image)).collect();
        let problems: String = search.problems.iter().map(|why| format!("; {why}")).collect();
        let why = format!(
            "the list names image {image}, but none of {} has its configuration{problems}",
            tried.join(", ")
        );
        Lookup::Unusable { path: shown(list), why, store: Store::Podman }
    })
}

/// The search for an image's configuration.
struct Search<'a> {
    image: &'a str,
    /// The directories that were searched.
    tried: Vec<PathBuf>,
    /// The files that cannot be read, and why.
    problems: Vec<String>,
}

impl Search<'_> {
    fn look_in(&mut self, root: &StorageRoot) -> Option<Lookup> {
        let directory = root.image(self.image);
        if self.tried.contains(&directory) {
            return None;
        }
        let digest = self.digest(&directory.join(MANIFEST));
        let path = directory.join(layout::blob_name(&digest));
        self.tried.push(directory);
        let why = match read_if_there(&path) {
            Ok(Some(bytes)) => match StoredLabels::parse_image(&bytes, self.image) {
                Ok(stored) => return Some(Lookup::Found { path: shown(&path), stored }),
                Err(error) => error.to_string(),
            },
            Ok(None) => return None,
            Err(error) => in_words(&error),
        };
        self.problems.push(format!("{}: {why}", path.display()));
        None
    }

    /// The digest of the configuration. It is the image's id, except if layers were pulled in parts
    /// (zstd:chunked).
    fn digest(&mut self, manifest: &Path) -> String {
        let why = match read_if_there(manifest) {
            Ok(Some(bytes)) => match layout::config_digest(&bytes) {
                Ok(Some(digest)) => return digest,
                Ok(None) => "the manifest names no configuration".to_owned(),
                Err(error) => error.to_string(),
            },
            Ok(None) => return layout::digest_of_id(self.image),
            Err(error) => in_words(&error),
        };
        self.problems.push(format!("{}: {why}", manifest.display()));
        layout::digest_of_id(self.image)
    }
}

/// The image stores besides the engine's own: those that have the lower layers of the rootfs, and those of
/// storage.conf. (The layers of a user namespace are mounted elsewhere; other drivers have no lower layers.)
fn other_stores(driver: &str, rootfs: &Path, problems: &mut Vec<String>) -> Vec<StorageRoot> {
    let mut problem = |path: &str, error| problems.push(format!("{path}: {}", in_words(&error)));
    let mut stores = Vec::new();
    // mountinfo has mount points without links.
    let mounted = std::fs::canonicalize(rootfs).unwrap_or_else(|_| rootfs.to_owned());
    match std::fs::read("/proc/self/mountinfo") {
        Ok(bytes) => {
            let layers = layout::lower_layers(&String::from_utf8_lossy(&bytes), &mounted);
            stores.extend(layers.iter().flat_map(|layer| StorageRoot::of_layer(layer, driver)));
        }
        Err(error) => problem("/proc/self/mountinfo", error),
    }
    for path in CONFIGURATIONS {
        match read_if_there(Path::new(path)) {
            Ok(Some(bytes)) => {
                let roots = layout::image_stores(&String::from_utf8_lossy(&bytes));
                stores.extend(roots.into_iter().map(|root| StorageRoot::image_store(root, driver)));
                break;
            }
            Ok(None) => {}
            Err(error) => {
                problem(path, error);
                break;
            }
        }
    }
    stores
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const CONFIG: &str = r#"{"config":{"Labels":{"a":"1"}}}"#;
    const LIST: &str = r#"[{"id":"x","image":"00ff"},{"id":"bare","image":""}]"#;

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }

        /// The configuration of image 00ff, under another digest than its id.
        fn image(&self, store: &str) {
            let directory = format!("{store}/overlay-images/00ff");
            let name = layout::blob_name("sha256:1234");
            self.write(&format!("{directory}/manifest"), r#"{"config":{"digest":"sha256:1234"}}"#);
            self.write(&format!("{directory}/{name}"), CONFIG);
        }

        /// Looks up with the bundle in the store `own`, and the pid file in `run`.
        fn look_up(&self, id: &str) -> Lookup {
            let path = |name: &str| self.0.path().join(name);
            let bundle = path(&format!("own/overlay-containers/{id}/userdata"));
            let pid_file = path(&format!("run/overlay-containers/{id}/userdata/pidfile"));
            let rootfs = path("elsewhere/rootfs");
            let files = vec![Path::new("/dev/null"), &pid_file];
            look_up_bundle(&Hints { id, rootfs: &rootfs, bundle: &bundle, files }).unwrap()
        }
    }

    #[track_caller]
    fn is_found(lookup: &Lookup) {
        let Lookup::Found { stored, .. } = lookup else { panic!("{lookup:?}") };
        assert_eq!(stored.labels.get("a").map(String::as_str), Some("1"));
    }

    #[test]
    fn the_bundle_leads_to_the_labels_and_the_rootfs_may_be_elsewhere() {
        let disk = Disk::new();
        disk.write("own/overlay-containers/containers.json", LIST);
        disk.image("own");
        is_found(&disk.look_up("x"));
    }

    #[test]
    fn the_pid_file_leads_to_the_list_of_a_transient_store() {
        let disk = Disk::new();
        disk.write("own/overlay-containers/containers.json", "[]");
        disk.write("run/overlay-containers/volatile-containers.json", LIST);
        disk.image("own");
        is_found(&disk.look_up("x"));
    }

    #[test]
    fn an_image_without_manifest_has_its_configuration_under_its_id() {
        let disk = Disk::new();
        disk.write("own/overlay-containers/containers.json", LIST);
        let name = layout::blob_name(&layout::digest_of_id("00ff"));
        disk.write(&format!("own/overlay-images/00ff/{name}"), CONFIG);
        is_found(&disk.look_up("x"));
    }

    #[test]
    fn the_rootfs_leads_to_a_store_whose_bundles_are_elsewhere() {
        let disk = Disk::new();
        disk.write("own/overlay-containers/containers.json", LIST);
        disk.image("own");
        let rootfs = disk.0.path().join("own/overlay/l/merged");
        let hints = |rootfs| Hints { id: "x", rootfs, bundle: Path::new("/b"), files: Vec::new() };
        is_found(&look_up_rootfs(&hints(&rootfs)).unwrap());
        assert!(look_up_rootfs(&hints(Path::new("/b/rootfs"))).is_none());
    }

    #[test]
    fn a_failed_look_up_names_the_file_and_what_a_user_of_podman_can_do() {
        let disk = Disk::new();
        let text = disk.look_up("x").to_string();
        assert!(text.contains("own/overlay-containers/containers.json; with Podman"), "{text}");
        disk.write("own/overlay-containers/containers.json", LIST);
        let text = disk.look_up("x").to_string();
        for part in ["image 00ff", "none of", "own/overlay-images/00ff", "--annotation"] {
            assert!(text.contains(part), "{part:?} was expected in {text}");
        }
        let text = disk.look_up("bare").to_string();
        assert!(text.contains("names no image") && text.contains("--annotation"), "{text}");
        disk.write("own/overlay-images/00ff/manifest", "{");
        let text = disk.look_up("x").to_string();
        assert!(text.contains("00ff/manifest: EOF"), "{text}");
        disk.write("own/overlay-containers/containers.json", "{");
        let text = disk.look_up("x").to_string();
        assert!(text.contains("cannot be read") && text.contains("expected a sequence"), "{text}");
    }
}
