//! The labels of an image: the name of every label that a program reads, and a set of labels as the engine's
//! API and its store have them.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use std::collections::BTreeMap;

/// The prefix of all label names. Other labels are not ours.
pub(crate) const PREFIX: &str = "io.balena.";
/// The names of the labels that hooks get as environment variables begin so.
pub(crate) const IMAGE_PREFIX: &str = "io.balena.image.";

/// Makes an image an extension if it is [`OVERLAY`].
pub(crate) const CLASS: &str = "io.balena.image.class";
/// The only class.
pub(crate) const OVERLAY: &str = "overlay";
/// A claim: the ABI of the kernel that the extension needs, or that its image brings.
pub(crate) const ABI: &str = "io.balena.image.kernel-abi-id";
/// A claim: the version of the kernel, `6.1.83`.
pub(crate) const KERNEL_VERSION: &str = "io.balena.image.kernel-version";
/// A claim: globs for the version of the OS, separated by commas.
pub(crate) const OS_VERSION: &str = "io.balena.image.os-version";
/// The boot-time overlay puts the extension above the root filesystem, in the order of these numbers.
pub(crate) const OVERRIDE: &str = "io.balena.image.override";
/// The extension takes effect at the next boot; the second name is an older one.
pub(crate) const REQUIRES_REBOOT: [&str; 2] =
    ["io.balena.image.requires-reboot", "io.balena.update.requires-reboot"];
/// The name of the service, after which a fabricated volume is named. The container has it, not the image.
pub(crate) const SERVICE_NAME: &str = "io.balena.service-name";

/// The annotations by which containerd and CRI-O mark a Kubernetes sandbox container.
pub(crate) const SANDBOX: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "sandbox"),
    ("io.kubernetes.cri-o.ContainerType", "sandbox"),
];

/// The labels of an object under [`PREFIX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Labels(Vec<(String, String)>);

impl Labels {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(label, _)| label == name).map(|(_, text)| text.as_str())
    }

    pub(crate) fn is_extension(&self) -> bool {
        self.value(CLASS) == Some(OVERLAY)
    }

    pub(crate) fn from_map(labels: BTreeMap<String, String>) -> Self {
        Self(labels.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect())
    }

    pub(crate) fn to_map(&self) -> BTreeMap<String, String> {
        self.0.iter().cloned().collect()
    }
}

/// Reads an object of strings. Anything else, such as null, has no labels, and a value that is not a string is
/// left out, because nothing can be concluded from it.
impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Of two with one name the last counts, as for other readers of JSON.
        let Or::This(labels) = Or::<BTreeMap<String, Or<String>>>::deserialize(deserializer)?
        else {
            return Ok(Self::default());
        };
        let labels = labels.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
        let labels = labels.filter_map(|(name, value)| match value {
            Or::This(text) => Some((name, text)),
            Or::Other(_) => None,
        });
        Ok(Self(labels.collect()))
    }
}

/// A `T`, or any other JSON value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Or<T> {
    This(T),
    Other(IgnoredAny),
}
