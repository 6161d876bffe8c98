//! Images to check: their files, labels and configuration, and the archive that `docker save` would make.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::CLASS;

/// An entry of a layer.
pub(super) enum Item {
    File(&'static str, u32, Vec<u8>),
    Folder(&'static str, u32),
    Link(&'static str, &'static str),
    Fifo(&'static str),
    Owned(&'static str, u64),
    /// An executable file with the capability CAP_CHOWN.
    Capable(&'static str),
    /// An empty file with exactly this name.
    Raw(&'static str),
}

/// An image as `docker save` writes it.
pub(super) struct Image {
    pub(super) items: Vec<Item>,
    pub(super) labels: Value,
    pub(super) config: Value,
    /// The compression of the layer.
    pub(super) pack: fn(Vec<u8>) -> Vec<u8>,
}

impl Image {
    /// A valid image.
    pub(super) fn good() -> Self {
        let items = vec![
            Item::File("hooks/start", 0o755, b"#!/bin/sh\n".to_vec()),
            Item::File("usr/share/sample", 0o644, b"x".to_vec()),
        ];
        let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let config = json!({ "architecture": machine, "config": { "Cmd": ["none"] } });
        Self { items, labels: json!({ CLASS: "overlay" }), config, pack: |bytes| bytes }
    }

    pub(super) fn with(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    pub(super) fn file(self, path: &'static str, mode: u32, text: &str) -> Self {
        self.with(Item::File(path, mode, text.as_bytes().to_vec()))
    }

    pub(super) fn label(mut self, name: &str, text: &str) -> Self {
        self.labels[format!("io.balena.image.{name}")] = json!(text);
        self
    }

    /// A directory with the archive.
    pub(super) fn save(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        let mut config = self.config.clone();
        let layer = archive(&self.items);
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [diff_id(&layer)] });
        config["config"]["Labels"] = self.labels.clone();
        let manifest =
            json!([{ "Config": "c.json", "RepoTags": ["sample:1"], "Layers": ["1/layer.tar"] }]);
        let outer = [
            Item::File("1/layer.tar", 0o644, (self.pack)(layer)),
            Item::File("c.json", 0o644, config.to_string().into_bytes()),
            Item::File("manifest.json", 0o644, manifest.to_string().into_bytes()),
        ];
        std::fs::write(&path, archive(&outer)).unwrap();
        (folder, path)
    }
}

/// The hash by which a configuration names a layer.
pub(super) fn diff_id(layer: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(layer);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

pub(super) fn archive(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mode(0o644);
        let nothing = &b""[..];
        match item {
            Item::File(path, mode, bytes) => {
                header.set_mode(*mode);
                header.set_size(bytes.len().try_into().unwrap());
                builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
            }
            Item::Folder(path, mode) => {
                header.set_mode(*mode);
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, path, nothing).unwrap();
            }
            Item::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Item::Fifo(path) => {
                header.set_entry_type(tar::EntryType::Fifo);
                builder.append_data(&mut header, path, nothing).unwrap();
            }
            Item::Capable(path) => {
                let mut value = vec![1, 0, 0, 2, 1];
                value.resize(20, 0);
                let name = "SCHILY.xattr.security.capability";
                builder.append_pax_extensions([(name, value.as_slice())]).unwrap();
                header.set_mode(0o755);
                builder.append_data(&mut header, path, nothing).unwrap();
            }
            Item::Raw(path) => {
                header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
                header.set_cksum();
                builder.append(&header, nothing).unwrap();
            }
            Item::Owned(path, uid) => {
                header.set_uid(*uid);
                builder.append_data(&mut header, path, nothing).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}
