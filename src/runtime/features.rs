//! `features`: what is supported, honestly (runtime-spec features.md and features-linux.md).

use super::error::Error;
use super::journal::Outcome;
use super::print_json;
use crate::model::container::spec::OCI_VERSION;
use serde_json::json;

/// The oldest `ociVersion` that is accepted.
const OLDEST: &str = "1.0.0";

pub(super) fn features() -> Result<Outcome, Error> {
    let off = json!({ "enabled": false });
    print_json(&json!({
        "ociVersionMin": OLDEST,
        "ociVersionMax": OCI_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
        ],
        "mountOptions": [],
        "linux": {
            "namespaces": ["network"],
            "capabilities": [],
            "cgroup": {
                "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false
            },
            "seccomp": off,
            "apparmor": off,
            "selinux": off,
            "intelRdt": { "enabled": false, "schemata": false, "monitoring": false },
            "memoryPolicy": { "modes": [], "flags": [] },
            "mountExtensions": { "idmap": off },
            "netDevices": off
        },
        "annotations": {
            "io.balena.extension-runtime.version": crate::version::VERSION,
            "io.balena.extension-runtime.commit": crate::version::COMMIT
        },
        // They make a container an extension, whose hooks run on the host as root.
        "potentiallyUnsafeConfigAnnotations": ["io.balena.image."]
    }))
}
