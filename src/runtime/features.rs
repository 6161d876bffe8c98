//! `features`: what is supported, honestly (runtime-spec features.md and features-linux.md).

use super::{Outcome, print_json};
use crate::model::spec::OCI_VERSION;
use serde_json::json;

/// The oldest `ociVersion` that is accepted.
const OLDEST: &str = "1.0.0";

pub(super) fn features() -> Outcome {
    let off = json!({ "enabled": false });
    Ok(print_json(&json!({
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
            "intelRdt": off,
            "mountExtensions": { "idmap": off }
        },
        "annotations": {
            "io.balena.image.class": "overlay",
            "io.balena.extension.runtime.version": crate::version::VERSION,
            "io.balena.extension.runtime.commit": crate::version::COMMIT
        }
    }))?)
}
