//! Extension images for tests: a root filesystem with only hooks. Hooks run on the host, so an extension needs
//! no programs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;

use crate::command::run;

pub(crate) const CLASS: (&str, &str) = ("io.balena.image.class", "overlay");

pub(crate) struct Image {
    /// Unique in this run, so that tests can share an engine.
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    dir: TempDir,
}

impl Image {
    /// An image without labels and hooks.
    pub(crate) fn unlabelled() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("image-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        let dir = tempfile::Builder::new().prefix(&name).tempdir().unwrap();
        fs::create_dir_all(dir.path().join("rootfs/hooks")).unwrap();
        fs::create_dir(dir.path().join("notes")).unwrap();
        Self { name, labels: BTreeMap::new(), dir }
    }

    /// A valid extension without hooks.
    pub(crate) fn extension() -> Self {
        let mut image = Self::unlabelled();
        image.label(CLASS.0, CLASS.1);
        image
    }

    pub(crate) fn label(&mut self, key: &str, value: &str) -> &mut Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds `hooks/NAME`, a shell script. In it `$NOTES` is [`Self::notes`].
    pub(crate) fn hook(mut self, name: &str, script: &str) -> Self {
        self.add_hook(name, script);
        self
    }

    pub(crate) fn add_hook(&mut self, name: &str, script: &str) {
        let path = self.rootfs().join("hooks").join(name);
        let notes = self.notes();
        let script = format!("#!/bin/sh\nNOTES='{}'\n{script}\n", notes.display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// A directory on the host that hooks and tests use to exchange notes.
    pub(crate) fn notes(&self) -> PathBuf {
        self.dir.path().join("notes")
    }

    pub(crate) fn note(&self, name: &str) -> PathBuf {
        self.notes().join(name)
    }

    /// The note `name` of a hook; empty if there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.note(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes a note for hooks.
    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.note(name), content).unwrap();
    }

    /// The root filesystem as a tar archive.
    pub(crate) fn tar(&self) -> PathBuf {
        let path = self.dir.path().join("layer.tar");
        run(Command::new("tar").arg("-cf").arg(&path).arg("-C").arg(self.rootfs()).arg(".")).ok();
        path
    }

    /// The `--change` arguments of `import`.
    pub(crate) fn changes(&self) -> Vec<String> {
        let labels = self.labels.iter().map(|(key, value)| format!("--change=LABEL {key}={value}"));
        // Engines refuse an image with nothing to run.
        std::iter::once("--change=CMD [\"extension\"]".to_owned()).chain(labels).collect()
    }

    /// The image as `docker save` would write it, which is what `ctr image import` reads.
    pub(crate) fn archive(&self, reference: &str) -> PathBuf {
        let layer = self.tar();
        let sum = run(Command::new("sha256sum").arg(&layer)).ok().out;
        let sum = sum.split(' ').next().unwrap();
        let config = json!({
            "architecture": oci_architecture(),
            "os": "linux",
            "config": { "Cmd": ["extension"], "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        let manifest =
            json!([{ "Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"] }]);
        let dir = self.dir.path();
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        let path = dir.join("image.tar");
        let parts = ["config.json", "layer.tar", "manifest.json"];
        run(Command::new("tar").arg("-cf").arg(&path).arg("-C").arg(dir).args(parts)).ok();
        path
    }
}

pub(crate) fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes a file atomically, because hooks poll for it.
pub(crate) fn touch(path: &Path) {
    fs::write(path, "").unwrap();
}
