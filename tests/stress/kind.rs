//! The kinds of containers under test, from one without hooks to one that uses every feature of the runtime.

use crate::bundle::Bundle;
use serde_json::json;
use std::fs;
use std::path::Path;

/// The features of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No hook, no namespace, no cgroup.
    Bare,
    /// The image's three hooks, each with a child of its own.
    Hooks,
    /// The image's hooks, a network namespace, a cgroup, and hooks of the spec in every list.
    Full,
    /// A terminal, whose pty goes over a console socket.
    Console,
    /// An image that brings a kernel, with a label that is not an ABI: start refuses it.
    Kernel,
    /// A Kubernetes sandbox: it has no hooks and is running after start.
    Sandbox,
}

impl Kind {
    /// The kinds that are swept with every verb. A kernel only changes start.
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

/// A hook that has a child while it runs, which has to be killed with it. It reads its standard input, where the
/// spec's hooks get the state.
const HOOK: &str = "sleep 20 & child=$!
while read -r line; do :; done
echo \"$0\"
kill $child";

const SPEC_HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

impl Kind {
    /// Makes a bundle of this kind in `directory`. `cgroup` is the name of the proxy's cgroup.
    pub(crate) fn bundle(self, directory: &Path, cgroup: &str) -> Bundle {
        let bundle = Bundle::new(directory);
        bundle.label("io.balena.image.override", "7");
        if matches!(self, Self::Hooks | Self::Full) {
            for verb in ["create", "start", "delete"] {
                bundle.hook(verb, HOOK);
            }
        }
        if self == Self::Full {
            for list in SPEC_HOOKS {
                bundle.spec_hook(list, HOOK, |hook| hook["env"] = json!(["PATH=/usr/bin:/bin"]));
            }
        }
        if self == Self::Kernel {
            bundle.label("io.balena.image.kernel-abi-id", "not an ABI");
            fs::create_dir_all(bundle.path("rootfs/boot")).unwrap();
            fs::write(bundle.path("rootfs/boot/vmlinuz"), "").unwrap();
        }
        bundle.configure(|config| {
            config["process"]["terminal"] = (self == Self::Console).into();
            config["mounts"] =
                json!([{ "destination": "/boot", "type": "bind", "source": "/boot" }]);
            if self == Self::Full {
                config["linux"] = json!({
                    "namespaces": [{ "type": "network" }], "cgroupsPath": format!("/{cgroup}"),
                });
            }
            if self == Self::Sandbox {
                config["annotations"] = json!({ "io.kubernetes.cri.container-type": "sandbox" });
            }
        });
        bundle
    }
}
