//! Looks up a container's labels in the engine's container store on disk: Moby's, or containers/storage of Podman.
//! `model/extension/label_sources.rs` and `model/engine/containers_storage.rs` parse the files.

use crate::host::os::read::read_if_there;
use crate::model::engine::containers_storage::{
    self as layout, CONFIGURATIONS, LISTS, Listed, StorageRoot,
};
use crate::model::extension::label_sources::{Lookup, Store, StoredLabels};
use crate::model::text::cause::in_words;
use std::path::{Path, PathBuf};

/// Moby's default data root.
const DEFAULT_ROOT: &str = "/var/lib/docker";
/// The directories of Moby's storage drivers.
const DRIVERS: [&str; 8] =
    ["overlay2", "overlay", "aufs", "btrfs", "zfs", "vfs", "fuse-overlayfs", "devicemapper"];

/// The paths that lead to a container's record.
pub(crate) struct Hints<'a> {
    pub(crate) id: &'a str,
    pub(crate) rootfs: &'a Path,
    pub(crate) bundle: &'a Path,
    /// Other files of the container: its pid file and the sources of its mounts. With `--transient-store` the
    /// list of containers lies beside them.
    pub(crate) files: Vec<&'a Path>,
}

/// Looks the container up: in containers/storage if its bundle is there, as with Podman; otherwise in
/// Moby's store, and then in a containers/storage that may have its rootfs. If the caller names `docker_root`,
/// only that data root is searched.
pub(crate) fn look_up(docker_root: Option<&Path>, hints: &Hints<'_>) -> Lookup {
    if let Some(root) = docker_root {
        return in_moby(hints.id, root);
    }
    if let Some(lookup) = by_bundle(hints) {
        return lookup;
    }
    let mut best = absent_from_likely_root(hints);
    // The deepest first: that finds a second engine with a data root of its own, and every storage driver
    // (`<docker-root>/overlay2/<layer>/merged`).
    for root in hints.rootfs.ancestors().skip(1).chain([Path::new(DEFAULT_ROOT)]) {
        match in_moby(hints.id, root) {
            Lookup::Absent { .. } => {}
            found @ Lookup::Found { .. } => return found,
            unusable @ Lookup::Unusable { .. } => best = best.or(unusable),
        }
    }
    match by_rootfs(hints) {
        Some(lookup) => best.or(lookup),
        None => best,
    }
}

/// The answer if no store of Moby has the container. It names the data root that the path of the rootfs suggests.
fn absent_from_likely_root(hints: &Hints<'_>) -> Lookup {
    let is_driver = |path: &&Path| DRIVERS.iter().any(|driver| path.ends_with(driver));
    let likely = hints.rootfs.ancestors().find(is_driver).and_then(Path::parent);
    let store = if likely.is_some() { Store::Moby } else { Store::Unknown };
    let root = likely.unwrap_or(Path::new(DEFAULT_ROOT));
    Lookup::Absent { path: shown(&record_path(hints.id, root)), store }
}

fn record_path(id: &str, root: &Path) -> PathBuf {
    root.join("containers").join(id).join("config.v2.json")
}

fn in_moby(id: &str, root: &Path) -> Lookup {
    let file = record_path(id, root);
    let (path, store) = (shown(&file), Store::Moby);
    match parsed(&file, StoredLabels::parse) {
        Ok(Some(stored)) => Lookup::Found { path, stored, data_root: Some(root.to_owned()) },
        Ok(None) => Lookup::Absent { path, store },
        Err(why) => Lookup::Unusable { path, why, store },
    }
}

/// Looks the container up in the containers/storage that has its bundle; `None` if no store has it. The rootfs may
/// be elsewhere: in a user namespace it is a bind mount.
fn by_bundle(hints: &Hints<'_>) -> Option<Lookup> {
    let own = StorageRoot::of_container_file(hints.bundle, hints.id)?;
    let absent = Lookup::Absent { path: shown(&own.list(LISTS[0])), store: Store::Podman };
    let mut roots = vec![own];
    for file in &hints.files {
        let root = StorageRoot::of_container_file(file, hints.id);
        roots.extend(root.filter(|root| !roots.contains(root)));
    }
    roots.extend(StorageRoot::around(hints.rootfs));
    Some(in_containers_storage(hints, &roots).unwrap_or(absent))
}

/// Looks the container up in each containers/storage that may have its rootfs; `None` if there is none.
fn by_rootfs(hints: &Hints<'_>) -> Option<Lookup> {
    in_containers_storage(hints, &StorageRoot::around(hints.rootfs).collect::<Vec<_>>())
}

fn in_containers_storage(hints: &Hints<'_>, roots: &[StorageRoot]) -> Option<Lookup> {
    let (mut without_it, mut broken) = (Vec::new(), None);
    for root in roots {
        for list in LISTS.map(|name| root.list(name)) {
            let why = match parsed(&list, |bytes| layout::listed(bytes, hints.id)) {
                Ok(None) => continue,
                Ok(Some(Listed::Not)) => {
                    without_it.push(shown(&list));
                    continue;
                }
                Ok(Some(Listed::Image(image))) => {
                    return Some(find_image(&image, &list, root.driver(), roots, hints.rootfs));
                }
                Ok(Some(Listed::WithoutImage)) => {
                    "the list names no image for the container".to_owned()
                }
                Err(why) => why,
            };
            broken = broken.or(Some(unusable(&list, why)));
        }
    }
    let absent = || Lookup::Absent { path: without_it.join(", "), store: Store::Podman };
    broken.or_else(|| (!without_it.is_empty()).then(absent))
}

fn unusable(list: &Path, why: String) -> Lookup {
    Lookup::Unusable { path: shown(list), why, store: Store::Podman }
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
    if let Some(found) = roots.iter().find_map(|root| search.look_in(root)) {
        return found;
    }
    let others = search.other_stores(driver, rootfs);
    if let Some(found) = others.iter().find_map(|root| search.look_in(root)) {
        return found;
    }
    let tried: Vec<String> = search.tried.iter().map(|image| shown(image)).collect();
    let tried = tried.join(", ");
    let problems: String = search.problems.iter().map(|why| format!("; {why}")).collect();
    let why = format!(
        "the list names image {image}, but none of {tried} has its configuration{problems}"
    );
    unusable(list, why)
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
    fn problem(&mut self, path: &Path, why: &str) {
        self.problems.push(format!("{}: {why}", path.display()));
    }

    fn look_in(&mut self, root: &StorageRoot) -> Option<Lookup> {
        let directory = root.image(self.image);
        if self.tried.contains(&directory) {
            return None;
        }
        let digest = self.digest(&directory.join("manifest"));
        let path = directory.join(layout::blob_name(&digest));
        self.tried.push(directory);
        let found = parsed(&path, StoredLabels::parse);
        let found = found.map_err(|why| self.problem(&path, &why)).ok()?;
        let image = Some(self.image.to_owned());
        found.map(|StoredLabels { labels, .. }| Lookup::Found {
            path: shown(&path),
            stored: StoredLabels { labels, image },
            data_root: None,
        })
    }

    /// The digest of the configuration. It is the image's id, except if layers were pulled in parts
    /// (zstd:chunked).
    fn digest(&mut self, manifest: &Path) -> String {
        match parsed(manifest, layout::config_digest) {
            Ok(Some(Some(digest))) => return digest,
            Ok(Some(None)) => self.problem(manifest, "the manifest names no configuration"),
            Ok(None) => {}
            Err(why) => self.problem(manifest, &why),
        }
        format!("sha256:{}", self.image)
    }

    /// The image stores besides the engine's own: those that have the lower layers of the rootfs, and those of
    /// storage.conf. (The layers of a user namespace are mounted elsewhere; other drivers have no lower layers.)
    fn other_stores(&mut self, driver: &str, rootfs: &Path) -> Vec<StorageRoot> {
        let mut stores = Vec::new();
        // mountinfo has mount points without links.
        let mounted = std::fs::canonicalize(rootfs).unwrap_or_else(|_| rootfs.to_owned());
        let mountinfo = Path::new("/proc/self/mountinfo");
        match std::fs::read(mountinfo) {
            Ok(bytes) => {
                let layers = layout::lower_layers(&String::from_utf8_lossy(&bytes), &mounted);
                stores.extend(layers.iter().flat_map(|layer| StorageRoot::of_layer(layer, driver)));
            }
            Err(error) => self.problem(mountinfo, &in_words(&error)),
        }
        for path in CONFIGURATIONS.map(Path::new) {
            match read_if_there(path) {
                Ok(None) => continue,
                Ok(Some(bytes)) => {
                    let roots = layout::image_stores(&String::from_utf8_lossy(&bytes));
                    let roots = roots.into_iter();
                    stores.extend(roots.map(|root| StorageRoot::image_store(root, driver)));
                }
                Err(error) => self.problem(path, &in_words(&error)),
            }
            break;
        }
        stores
    }
}

/// Reads and parses a file of a store; `None` if it is missing. The error is why it cannot be used.
fn parsed<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
) -> Result<Option<T>, String> {
    let bytes = read_if_there(path).map_err(|error| in_words(&error))?;
    bytes.map(|bytes| parse(&bytes)).transpose().map_err(|error| error.to_string())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn look_up_by_rootfs(id: &str, docker_root: Option<&Path>, rootfs: &Path) -> Lookup {
        look_up(docker_root, &Hints { id, rootfs, bundle: Path::new("/b"), files: Vec::new() })
    }

    fn record(root: &Path, id: &str, text: &str) {
        let folder = root.join("containers").join(id);
        std::fs::create_dir_all(&folder).unwrap();
        let mut file = std::fs::File::create(folder.join("config.v2.json")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
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
            by_bundle(&Hints { id, rootfs: &rootfs, bundle: &bundle, files }).unwrap()
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
        let name = layout::blob_name("sha256:00ff");
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
        is_found(&by_rootfs(&hints(&rootfs)).unwrap());
        assert!(by_rootfs(&hints(Path::new("/b/rootfs"))).is_none());
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
