//! Which extensions the initramfs of the OS selects for the overlay of the root filesystem. It is another program,
//! whose rules docs/plan.md lists.

use crate::model::extension::claim::Running;
use crate::model::extension::labels::{KERNEL_VERSION, Labels};
use std::fmt;

/// The only storage driver whose containers the initramfs can mount.
const OVERLAY2: &str = "overlay2";
/// The initramfs layers nothing if a word of the kernel's command line contains one of these.
const NO_OVERLAYS: [&str; 2] = ["emergency", "mobynit.no_overlays"];

const OPTION: &str = "lowerdir=";
/// A link of the engine to a layer, as the initramfs names it when it mounts an extension alone.
const OWN_LINK: &str = "/tmp/mobynit-data/docker/overlay2/l/ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// What the initramfs reads about one extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootCandidate<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) storage: &'a StoredLayers,
    pub(crate) modules: &'a Result<BroughtModules, String>,
}

/// The engine's records of a container's filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredLayers {
    /// The engine is removing the container, or a removal failed.
    pub(crate) is_ending: bool,
    pub(crate) driver: Option<String>,
    /// The names of its layers, its own first, without the engine's `-init` layer; or why they are unknown.
    pub(crate) layers: Result<Vec<String>, String>,
}

/// The kernel that an extension's files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BroughtModules {
    /// It has no modules for the kernel that will run.
    Unrelated,
    /// It has such modules, and its `/boot` has that very kernel.
    KernelInBoot,
    /// It has such modules, but its `/boot` does not have that kernel.
    KernelMissing,
}

/// The decision about one extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    Selected,
    Dropped(Drop),
    /// Why it cannot be predicted.
    Unknown(String),
}

/// Why the initramfs drops an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    /// Nothing is layered at all, for this reason.
    NothingLayered(String),
    BeingRemoved,
    StorageDriver(String),
    /// The initramfs first mounts each extension alone, and cannot mount this number of layers.
    CannotMount {
        layers: usize,
    },
    KernelVersion {
        claimed: String,
        booted: String,
    },
    /// It brings modules, but an OS's own kernel will run.
    StockKernel,
    /// It brings modules, but not the kernel that will run.
    AnotherKernel,
}

impl fmt::Display for Drop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingLayered(why) => formatter.write_str(why),
            Self::BeingRemoved => formatter.write_str("the engine is removing it"),
            Self::StorageDriver(driver) => {
                write!(formatter, "its storage driver is {driver:?}; only {OVERLAY2} is mounted")
            }
            Self::CannotMount { layers: 0 | 1 } => {
                formatter.write_str("its image has no layers, and overlayfs needs two with the container's own")
            }
            Self::CannotMount { layers } => {
                write!(formatter, "its {layers} layers exceed the options of one mount")
            }
            Self::KernelVersion { claimed, booted } => {
                write!(formatter, "it was built for kernel {claimed:?}, but {booted} will run")
            }
            Self::StockKernel => formatter.write_str(
                "it has the modules of the kernel that will run, but that is the OS's stock kernel",
            ),
            Self::AnotherKernel => formatter.write_str(
                "it has modules for the release that will run, but its /boot does not have that kernel",
            ),
        }
    }
}

/// Decides about one extension.
pub(crate) fn select(candidate: BootCandidate<'_>, booted: &Running, page: usize) -> Selection {
    let BootCandidate { labels, storage, modules } = candidate;
    if storage.is_ending {
        return Selection::Dropped(Drop::BeingRemoved);
    }
    match storage.driver.as_deref() {
        Some(OVERLAY2) => {}
        Some(other) => return Selection::Dropped(Drop::StorageDriver(other.to_owned())),
        None => return Selection::Unknown("its record names no storage driver".to_owned()),
    }
    if let Some(claimed) = labels.value(KERNEL_VERSION) {
        match &booted.kernel_release {
            Ok(release) if version_of(release) == claimed => {}
            Ok(release) => {
                let (claimed, booted) = (claimed.to_owned(), version_of(release).to_owned());
                return Selection::Dropped(Drop::KernelVersion { claimed, booted });
            }
            Err(why) => return Selection::Unknown(why.clone()),
        }
    }
    let layers = match &storage.layers {
        Ok(layers) => layers.len(),
        Err(why) => return Selection::Unknown(why.clone()),
    };
    if layers < 2 || layers > most_layers(page) {
        return Selection::Dropped(Drop::CannotMount { layers });
    }
    match (modules, &booted.abi) {
        (Ok(BroughtModules::Unrelated), _) => Selection::Selected,
        (Err(why), _) | (_, Err(why)) => Selection::Unknown(why.clone()),
        (Ok(_), Ok(None)) => Selection::Dropped(Drop::StockKernel),
        (Ok(BroughtModules::KernelInBoot), Ok(Some(_))) => Selection::Selected,
        (Ok(BroughtModules::KernelMissing), Ok(Some(_))) => Selection::Dropped(Drop::AnotherKernel),
    }
}

/// How many layers an extension can have, which the initramfs first mounts alone.
pub(crate) fn most_layers(page: usize) -> usize {
    page.saturating_sub(1).saturating_sub(OPTION.len()) / (OWN_LINK.len() + 1)
}

/// The word of the kernel's command line for which the initramfs layers nothing.
pub(crate) fn no_overlays_word(cmdline: &str) -> Option<&str> {
    let mut words = cmdline.split_ascii_whitespace();
    words.find(|word| NO_OVERLAYS.iter().any(|part| word.contains(part)))
}

/// The part of the release that is compared with the label. A `-` at its beginning does not end it.
fn version_of(release: &str) -> &str {
    match release.find('-') {
        Some(end) if end > 0 => release.get(..end).unwrap_or(release),
        Some(_) | None => release,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::extension::labels::CLASS;

    fn booted(release: &str, abi: Option<&str>) -> Running {
        Running {
            kernel_release: Ok(release.to_owned()),
            abi: Ok(abi.map(str::to_owned)),
            os_version: Ok("5.0.0".to_owned()),
        }
    }

    fn labels(version: Option<&str>) -> Labels {
        let mut pairs = vec![format!("\"{CLASS}\":\"overlay\"")];
        pairs.extend(version.map(|version| format!("\"{KERNEL_VERSION}\":\"{version}\"")));
        serde_json::from_str(&format!("{{{}}}", pairs.join(","))).unwrap()
    }

    fn storage() -> StoredLayers {
        let layers = Ok(vec!["own".to_owned(), "image".to_owned()]);
        StoredLayers { is_ending: false, driver: Some(OVERLAY2.to_owned()), layers }
    }

    fn selected(labels: &Labels, storage: &StoredLayers, booted: &Running) -> Selection {
        let modules = &Ok(BroughtModules::Unrelated);
        select(BootCandidate { labels, storage, modules }, booted, 4096)
    }

    #[test]
    fn the_kernel_version_is_the_release_up_to_its_first_dash() {
        for (claimed, release, kept) in [
            (None, "6.1.0-18", true),
            (Some("6.1.0"), "6.1.0-18", true),
            (Some("6.1.0"), "6.1.0", true),
            (Some("6.1.0-18"), "6.1.0-18", false),
            (Some("6.1"), "6.1.0", false),
            // An empty label is one, too.
            (Some(""), "6.1.0", false),
            (Some("-rc1"), "-rc1", true),
            (Some(""), "-rc1", false),
        ] {
            let selection = selected(&labels(claimed), &storage(), &booted(release, None));
            assert_eq!(selection == Selection::Selected, kept, "{claimed:?} on {release}");
        }
    }

    #[test]
    fn an_extension_with_modules_needs_its_own_kernel() {
        use BroughtModules::{KernelInBoot, KernelMissing, Unrelated};
        for (modules, abi, expected) in [
            (Unrelated, None, Selection::Selected),
            (Unrelated, Some("a"), Selection::Selected),
            (KernelInBoot, Some("a"), Selection::Selected),
            (KernelMissing, Some("a"), Selection::Dropped(Drop::AnotherKernel)),
            (KernelInBoot, None, Selection::Dropped(Drop::StockKernel)),
            (KernelMissing, None, Selection::Dropped(Drop::StockKernel)),
        ] {
            let (labels, storage, modules) = (labels(None), storage(), Ok(modules));
            let candidate = BootCandidate { labels: &labels, storage: &storage, modules: &modules };
            assert_eq!(
                select(candidate, &booted("6.1.0", abi), 4096),
                expected,
                "{modules:?} {abi:?}"
            );
        }
    }

    #[test]
    fn a_container_that_cannot_be_mounted_is_dropped() {
        let on = |storage: StoredLayers| selected(&labels(None), &storage, &booted("6.1.0", None));
        let ending = StoredLayers { is_ending: true, ..storage() };
        assert_eq!(on(ending), Selection::Dropped(Drop::BeingRemoved));
        let aufs = StoredLayers { driver: Some("aufs".to_owned()), ..storage() };
        assert_eq!(on(aufs), Selection::Dropped(Drop::StorageDriver("aufs".to_owned())));
        for (count, is_mounted) in [(0, false), (1, false), (2, true), (64, true), (65, false)] {
            let layers = Ok(vec!["layer".to_owned(); count]);
            let selection = on(StoredLayers { layers, ..storage() });
            let expected = match is_mounted {
                true => Selection::Selected,
                false => Selection::Dropped(Drop::CannotMount { layers: count }),
            };
            assert_eq!(selection, expected, "{count}");
        }
        let unnamed = StoredLayers { driver: None, ..storage() };
        assert!(matches!(on(unnamed), Selection::Unknown(_)));
        let unread = StoredLayers { layers: Err("no".to_owned()), ..storage() };
        assert_eq!(on(unread), Selection::Unknown("no".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_unknown_unless_nothing_depends_on_it() {
        let why = || Err("unread".to_owned());
        let blind = Running { kernel_release: why(), ..booted("", None) };
        let unknown = Selection::Unknown("unread".to_owned());
        assert_eq!(selected(&labels(Some("6.1.0")), &storage(), &blind), unknown);
        assert_eq!(selected(&labels(None), &storage(), &blind), Selection::Selected);
        let blind = Running { abi: Err("unread".to_owned()), ..booted("6.1.0", None) };
        assert_eq!(selected(&labels(None), &storage(), &blind), Selection::Selected);
        let (labels, storage) = (labels(None), storage());
        for (modules, booted) in [
            (Ok(BroughtModules::KernelInBoot), &blind),
            (Err("unread".to_owned()), &booted("6.1.0", None)),
        ] {
            let candidate = BootCandidate { labels: &labels, storage: &storage, modules: &modules };
            assert_eq!(select(candidate, booted, 4096), unknown, "{modules:?}");
        }
    }

    #[test]
    fn a_word_that_contains_the_name_counts() {
        for (cmdline, word) in [
            ("root=/dev/sda quiet", None),
            ("root=/dev/sda emergency", Some("emergency")),
            ("systemd.unit=emergency.target", Some("systemd.unit=emergency.target")),
            ("mobynit.no_overlays=0\n", Some("mobynit.no_overlays=0")),
            ("Emergency", None),
        ] {
            assert_eq!(no_overlays_word(cmdline), word, "{cmdline}");
        }
    }
}
