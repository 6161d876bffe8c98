//! The OCI bundle of a test: `config.json` as an engine writes it, and a rootfs with hooks.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::process;

/// A bundle in its own directory.
pub(crate) struct Bundle {
    path: PathBuf,
}

impl Bundle {
    /// Makes a bundle whose image is an extension without hooks.
    pub(crate) fn new(path: &Path) -> Self {
        let bundle = Self { path: path.to_owned() };
        std::fs::create_dir_all(bundle.path("rootfs/hooks")).unwrap();
        let config = json!({
            // The version that Docker 20.10 and Podman 4.3 send.
            "ociVersion": "1.0.2-dev",
            "process": { "args": ["/none"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
            "root": { "path": "rootfs" },
            "annotations": { "io.balena.image.class": "overlay" }
        });
        std::fs::write(bundle.path("config.json"), config.to_string()).unwrap();
        bundle
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Changes `config.json`.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Adds a label of the image, as an annotation.
    pub(crate) fn label(&self, name: &str, text: &str) {
        self.configure(|config| config["annotations"][name] = text.into());
    }

    /// Writes the shell script `hooks/<verb>`.
    pub(crate) fn hook(&self, verb: &str, script: &str) {
        self.hook_file(verb, format!("#!/bin/sh\n{script}\n").as_bytes());
    }

    /// Writes the executable file `hooks/<verb>`.
    pub(crate) fn hook_file(&self, verb: &str, bytes: &[u8]) {
        executable(&self.path("rootfs/hooks").join(verb), bytes);
    }

    /// Appends a shell script to a list of the spec's hooks; `change` may add to its entry.
    pub(crate) fn spec_hook(&self, list: &str, script: &str, change: impl FnOnce(&mut Value)) {
        let number = std::fs::read_dir(&self.path).unwrap().count();
        let path = self.path(&format!("{list}-{number}"));
        executable(&path, format!("#!/bin/sh\n{script}\n").as_bytes());
        let mut hook = json!({ "path": path });
        change(&mut hook);
        self.configure(|config| {
            let hooks = &mut config["hooks"][list];
            if hooks.is_null() {
                *hooks = json!([]);
            }
            hooks.as_array_mut().unwrap().push(hook);
        });
    }

    /// The contents of a file in the bundle that a hook has written, trimmed.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{path:?}: {error}")).trim().to_owned()
    }

    /// Whether a hook has created a file in the bundle.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }
}

/// Writes an executable file.
pub(crate) fn executable(path: &Path, bytes: &[u8]) {
    process::alone(|| {
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    });
}
