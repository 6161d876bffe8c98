//! The layers of containers in the engine's store (overlay2), found by its records on disk.

use crate::host::engine::stored_containers::DataRoot;
use crate::host::os::host_root::HostRoot;
use crate::model::kernel::mounts::layer_in;
use crate::model::text::cause::in_words;
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The layers that the engine makes for the mount points of a container.
const INIT: &str = "-init";

/// The names of a container's layers, its own first, without the engine's `-init` layer. The initramfs mounts the layers
/// by their short links, its own too, so one that is missing is an error. The error names the file.
pub(crate) fn layers_of(root: &DataRoot, id: &str) -> Result<Vec<String>, String> {
    let record = root.path.join("image/overlay2/layerdb/mounts").join(id).join("mount-id");
    let own = text(&root.host, &record)?;
    let own = own.trim();
    if own.is_empty() || own.contains('/') {
        return Err(format!("{:?} does not name a layer", root.host.display_path(record)));
    }
    let store = root.path.join("overlay2");
    let (link, lower) = (store.join(own).join("link"), store.join(own).join("lower"));
    let shown = root.host.display_path(&link);
    if led_to(root, &store.join("l").join(text(&root.host, &link)?.trim()))? != own {
        return Err(format!("{shown:?} names the link of another layer"));
    }
    let mut layers = vec![own.to_owned()];
    for link in text(&root.host, &lower)?.trim().split(':') {
        layers.push(led_to(root, &store.join(link))?);
    }
    layers.retain(|layer| !layer.ends_with(INIT));
    Ok(layers)
}

/// The layer to which a short link leads.
fn led_to(root: &DataRoot, link: &Path) -> Result<String, String> {
    let shown = root.host.display_path(link);
    let target = root.host.link(link);
    let target = target.map_err(|error| format!("cannot read {shown:?}: {}", in_words(&error)))?;
    let layer = target.to_str().and_then(layer_in);
    layer.ok_or_else(|| format!("the link {shown:?} does not lead to a layer"))
}

/// Opens the directory of a layer.
pub(crate) fn open(root: &DataRoot, layer: &str) -> Result<OwnedFd, String> {
    let path = root.path.join("overlay2").join(layer).join("diff");
    let opened = root.host.open(&path, OFlags::RDONLY | OFlags::DIRECTORY);
    opened.map_err(|error| unread(&root.host, &path, &error))
}

fn text(host: &HostRoot, path: &Path) -> Result<String, String> {
    let bytes = host.bytes(path).map_err(|error| unread(host, path, &error))?;
    String::from_utf8(bytes).map_err(|_| format!("{:?} is not UTF-8", host.display_path(path)))
}

fn unread(host: &HostRoot, path: &Path, error: &std::io::Error) -> String {
    let path: PathBuf = host.display_path(path);
    format!("cannot read {path:?}: {}", in_words(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir_all};
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn link(root: &Path, name: &str, layer: &str) {
        create_dir_all(root.join("overlay2/l")).unwrap();
        symlink(format!("../{layer}/diff"), root.join("overlay2/l").join(name)).unwrap();
    }

    fn data_root(folder: &tempfile::TempDir) -> DataRoot {
        DataRoot { host: HostRoot::new(folder.path().to_owned()), path: "/".into() }
    }

    #[test]
    fn the_layers_are_named_from_the_top_without_the_engines_own() {
        let folder = tempfile::tempdir().unwrap();
        let (root, store) = (folder.path(), data_root(&folder));
        assert!(layers_of(&store, "c").unwrap_err().contains("mount-id\": missing"));
        write(root, "image/overlay2/layerdb/mounts/c/mount-id", "own\n");
        assert!(layers_of(&store, "c").unwrap_err().contains("own/link\": missing"));
        write(root, "overlay2/own/link", "OWN");
        assert!(layers_of(&store, "c").unwrap_err().contains("l/OWN\": missing"));
        link(root, "OWN", "own");
        assert!(layers_of(&store, "c").unwrap_err().contains("lower\": missing"));
        write(root, "overlay2/own/lower", "l/A:l/B:l/C");
        link(root, "A", "own-init");
        link(root, "B", "top");
        assert!(layers_of(&store, "c").unwrap_err().contains("l/C\": missing"));
        link(root, "C", "base");
        assert_eq!(layers_of(&store, "c").unwrap(), ["own", "top", "base"]);
        write(root, "overlay2/own/link", "B");
        assert!(layers_of(&store, "c").unwrap_err().contains("names the link of another layer"));
        write(root, "image/overlay2/layerdb/mounts/c/mount-id", "../x\n");
        assert!(layers_of(&store, "c").unwrap_err().contains("does not name a layer"));
    }
}
