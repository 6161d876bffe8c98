//! A device with extensions in its engine's store, which is down.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::stores::{Layer, Node, write_nodes};
use crate::finished::Finished;
use crate::manager::host::{BLOCK, BOOT, Host};

/// The data root on the device.
pub(crate) const STORE: &str = "mnt/data/docker";
pub(crate) const DATA: &str = "/dev/sda4 /mnt/data ext4 rw 0 0\n";

pub(crate) struct Device(pub(crate) Host);

impl Device {
    /// Without extensions. It runs the stock kernel 6.1.0-18-amd64 of OS 2.113.4.
    pub(crate) fn new() -> Self {
        let host = Host::new();
        host.mounts(&format!("/dev/sda2 / ext4 ro 0 0\n{BOOT}{DATA}"));
        host.write("mnt/data/remove_me_to_reset", "");
        host.write("etc/issue", "balenaOS");
        host.write("lib/modules/6.1.0-18-amd64/modules.dep", "");
        fs::create_dir_all(host.path(STORE).join("containers")).unwrap();
        let device = Self(host);
        device.set_block("");
        device
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    pub(crate) fn set_block(&self, lines: &str) {
        self.0.write("mnt/boot/bootenv", &format!("{:#<1024}", format!("{BLOCK}{lines}")));
    }

    /// Arms a kernel, which is published.
    pub(crate) fn arm(&self, abi: &str, kernel: &str) {
        self.set_block(&format!("kernel_override_abi={abi}\n"));
        self.0.write(&format!("mnt/data/boot-by-abi/{abi}"), kernel);
    }

    /// Deploys an extension whose id is `letter`, 64 times. Its image has these layers, the topmost first.
    pub(crate) fn deploy(&self, letter: char, labels: &[(&str, &str)], layers: &[&[(&str, &str)]]) {
        deploy(&self.0, letter, labels, layers);
        self.0.deployed(&id(letter), &["hooks/start"]);
    }

    /// Changes the record of an extension.
    pub(crate) fn record(&self, letter: char, change: impl FnOnce(&mut Value)) {
        let path = self.path(&format!("{STORE}/containers/{}/config.v2.json", id(letter)));
        let mut record = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut record);
        fs::write(path, record.to_string()).unwrap();
    }

    pub(crate) fn plan(&self, words: &[&str]) -> Finished {
        self.0.manager(&[&["plan"], words].concat())
    }

    /// The exit status, the document, and the reason of each extension, in the order of the ids.
    #[track_caller]
    pub(crate) fn reasons(&self, words: &[&str]) -> (i32, Value, String) {
        let finished = self.plan(&[&["--format", "json"], words].concat());
        let document = finished.json();
        let all = document["extensions"].as_array().unwrap().iter();
        let mut reasons: Vec<(&str, &str)> =
            all.map(|one| (one["id"].as_str().unwrap(), one["reason"].as_str().unwrap())).collect();
        reasons.sort_unstable();
        let reasons: Vec<&str> = reasons.into_iter().map(|(_, reason)| reason).collect();
        let reasons = reasons.join(" ");
        (finished.code(), document, reasons)
    }
}

pub(crate) fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// Writes what an engine stores of a container that was started. The runtime's record is not written.
pub(crate) fn deploy(
    host: &Host,
    letter: char,
    labels: &[(&str, &str)],
    layers: &[&[(&str, &str)]],
) {
    let id = id(letter);
    let own = Layer { name: format!("own-{letter}"), nodes: Vec::new() };
    let image = layers.iter().enumerate().map(|(at, files)| {
        let file = |(path, text): &(&str, &str)| match *text {
            "/" => ((*path).to_owned(), Node::Directory),
            text => ((*path).to_owned(), Node::File(text.to_owned())),
        };
        Layer { name: format!("{letter}{at}"), nodes: files.iter().map(file).collect() }
    });
    let links: Vec<String> =
        [own].into_iter().chain(image).map(|layer| write_layer(host, &layer)).collect();
    let init = write_layer(host, &Layer { name: format!("own-{letter}-init"), nodes: Vec::new() });
    let lower: Vec<String> =
        [&init].into_iter().chain(&links[1..]).map(|link| format!("l/{link}")).collect();
    host.write(&format!("{STORE}/overlay2/own-{letter}/lower"), &lower.join(":"));
    let mount_id = format!("{STORE}/image/overlay2/layerdb/mounts/{id}/mount-id");
    host.write(&mount_id, &format!("own-{letter}"));
    let mut all = json!({ "io.balena.image.class": "overlay" });
    for (name, text) in labels {
        all[format!("io.balena.image.{name}")] = (*text).into();
    }
    let record = json!({
        "ID": id, "Name": format!("/ext-{letter}"), "Driver": "overlay2", "Image": "sha256:1",
        "State": { "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": 0, "Error": "" },
        "Config": { "Image": format!("image-{letter}"), "Labels": all },
    });
    host.write(&format!("{STORE}/containers/{id}/config.v2.json"), &record.to_string());
}

/// Writes a layer, and returns the name of its link.
fn write_layer(host: &Host, layer: &Layer) -> String {
    let store = host.path(STORE).join("overlay2");
    write_nodes(&store.join(&layer.name).join("diff"), &layer.nodes, &layer.name);
    let link = format!("{:X<26}", layer.name.to_uppercase().replace('-', "0"));
    fs::write(store.join(&layer.name).join("link"), &link).unwrap();
    fs::create_dir_all(store.join("l")).unwrap();
    std::os::unix::fs::symlink(format!("../{}/diff", layer.name), store.join("l").join(&link))
        .unwrap();
    link
}
