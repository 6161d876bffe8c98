//! The bundles that containers are made of here, from one without any hook to one that uses all that
//! the runtime has.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No hook, no namespace, no cgroup.
    Bare,
    /// The image's three hooks, each with a child of its own.
    Hooks,
    /// The image's hooks, a network namespace, a cgroup, and the spec's own hooks of every moment.
    Full,
    /// A terminal, whose pty goes over a console socket.
    Console,
    /// An image that brings a kernel: start refuses it.
    Kernel,
    /// A Kubernetes sandbox: it has no hooks and stays after start.
    Sandbox,
}

impl Kind {
    /// Those of which every verb is swept. What a kernel changes is in start alone.
    pub(crate) const ALL: [Self; 5] =
        [Self::Bare, Self::Hooks, Self::Full, Self::Console, Self::Sandbox];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Hooks => "hooks",
            Self::Full => "full",
            Self::Console => "console",
            Self::Kernel => "kernel",
            Self::Sandbox => "sandbox",
        }
    }
}

/// A hook that has a child under way while it runs, for whoever kills it must kill both. It reads
/// what there is to read, as the spec's hooks may.
const HOOK: &str = "#!/bin/sh
sleep 20 & child=$!
while read -r line; do :; done
echo \"$0\"
kill $child
";

/// Writes a bundle to `folder`. `cgroup` is the leaf of the proxy.
pub(crate) fn write(folder: &Path, kind: Kind, cgroup: &str) {
    let rootfs = folder.join("rootfs");
    fs::create_dir_all(rootfs.join("hooks")).unwrap();
    if matches!(kind, Kind::Hooks | Kind::Full) {
        for verb in ["create", "start", "delete"] {
            write_hook(&rootfs.join("hooks").join(verb), HOOK);
        }
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "terminal": kind == Kind::Console, "cwd": "/", "args": ["/none"] },
        "annotations": { "io.balena.image.class": "overlay", "io.balena.image.override": "7" },
        "mounts": [{ "destination": "/boot", "type": "bind", "source": "/boot" }],
    });
    if kind == Kind::Full {
        write_hook(&folder.join("hook"), HOOK);
        let hook = json!([{ "path": folder.join("hook"), "env": ["PATH=/usr/bin:/bin"] }]);
        let moments = [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ];
        config["hooks"] =
            Value::Object(moments.iter().map(|&name| (name.to_owned(), hook.clone())).collect());
        config["linux"] =
            json!({ "namespaces": [{ "type": "network" }], "cgroupsPath": format!("/{cgroup}") });
    }
    if kind == Kind::Kernel {
        config["annotations"]["io.balena.image.kernel-abi-id"] = json!("ab".repeat(32));
        fs::create_dir_all(rootfs.join("boot")).unwrap();
        fs::write(rootfs.join("boot/vmlinuz"), "").unwrap();
    }
    if kind == Kind::Sandbox {
        config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// Writes an executable file.
pub(crate) fn write_hook(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
