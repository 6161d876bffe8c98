//! An engine's data root on disk, as dockerd writes it with the storage driver overlay2: images, and containers of
//! extensions.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub(crate) struct OverlayStore(TempDir);

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl OverlayStore {
    pub(crate) fn new() -> Self {
        let store = Self(tempfile::tempdir().unwrap());
        fs::create_dir(store.0.path().join("containers")).unwrap();
        store.write("image/overlay2/repositories.json", r#"{"Repositories":{}}"#);
        fs::create_dir_all(store.0.path().join("image/overlay2/imagedb/content/sha256")).unwrap();
        store
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The files of a layer.
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        let path = self.0.path().join("overlay2").join(name).join("diff");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file of a layer, and returns the directory of its files.
    pub(crate) fn file(&self, layer: &str, name: &str, text: &str) -> PathBuf {
        let path = self.layer(layer).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.layer(layer)
    }

    /// Adds an image of these layers, the lowest first, and returns its id.
    pub(crate) fn image(&self, name: &str, labels: &Value, layers: &[&str]) -> String {
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let mut chain = String::new();
        for (layer, id) in layers.iter().zip(&diff_ids) {
            self.layer(layer);
            chain = match chain.as_str() {
                "" => id.clone(),
                below => format!("sha256:{}", sha256(&format!("{below} {id}"))),
            };
            let folder = format!("image/overlay2/layerdb/{}", chain.replace(':', "/"));
            self.write(&format!("{folder}/cache-id"), layer);
        }
        let config = json!({
            "config": { "Labels": labels }, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let (config, path) = (config.to_string(), "image/overlay2/repositories.json");
        let id = sha256(&config);
        self.write(&format!("image/overlay2/imagedb/content/sha256/{id}"), &config);
        let names = fs::read_to_string(self.0.path().join(path)).unwrap();
        let mut names: Value = serde_json::from_str(&names).unwrap();
        names["Repositories"][name][format!("{name}:latest")] = format!("sha256:{id}").into();
        self.write(path, &names.to_string());
        id
    }

    /// Adds a container of these layers, the topmost first, above an empty one of its own.
    pub(crate) fn container(&self, id: &str, labels: &Value, layers: &[&str]) {
        let record = json!({
            "ID": id, "Name": format!("/name-of-{id}"), "Driver": "overlay2", "State": {},
            "Config": { "Image": "image", "Labels": labels },
        });
        self.write(&format!("containers/{id}/config.v2.json"), &record.to_string());
        self.write(&format!("image/overlay2/layerdb/mounts/{id}/mount-id"), &format!("own-{id}"));
        let own = self.link(&format!("own-{id}"));
        self.write(&format!("overlay2/own-{id}/link"), own.trim_start_matches("l/"));
        let init = format!("own-{id}-init");
        self.layer(&init);
        let all: Vec<&str> = std::iter::once(init.as_str()).chain(layers.iter().copied()).collect();
        let links: Vec<String> = all.iter().map(|layer| self.link(layer)).collect();
        self.write(&format!("overlay2/own-{id}/lower"), &links.join(":"));
    }

    fn link(&self, layer: &str) -> String {
        self.layer(layer);
        let link = format!("l/{}", sha256(layer)[..26].to_uppercase());
        let path = self.0.path().join("overlay2").join(&link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.is_symlink() {
            symlink(format!("../{layer}/diff"), path).unwrap();
        }
        link
    }
}
