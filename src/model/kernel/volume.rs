//! The fabricated volume: the manager copies the kernel of an extension into it, because the initramfs cannot see the
//! container's root filesystem. Its name is a pure function of labels and ids, so that both programs know it.

use crate::model::extension::labels::SERVICE_NAME;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const PREFIX: &str = "ext_";
const SUFFIX: &str = "_boot";
/// How many characters of a container id, and how many hex digits of an image id, are used.
const SHORT: usize = 12;
/// The hex digits of an image id, which is a SHA-256.
const DIGITS: usize = 64;
/// The longest name of a file: the engine makes a directory of the volume's name.
const NAME_MAX: usize = 255;
/// The directory of the engine's volumes, seen from the directory of the published kernels.
const VOLUMES: &str = "../docker/volumes";

/// The name of a fabricated volume: `ext_<service>_<image>_boot`.
///
/// It proves that the engine accepts the name, and that it is one component of a path. It does not prove that the
/// volume exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootVolume(String);

/// Why an extension cannot have a fabricated volume.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unnameable {
    /// The engine refuses such a volume.
    #[error(
        "the service name {service:?} cannot be part of a volume's name: it has {found:?}, allowed are letters, \
         digits and _ . -"
    )]
    Service { service: String, found: char },
    /// As above, with the container's id in place of the service.
    #[error(
        "the container id {id:?} cannot be part of a volume's name: it has {found:?}, allowed are letters, digits \
         and _ . -"
    )]
    Container { id: String, found: char },
    #[error("the name of the volume would have {len} bytes, at most {NAME_MAX} are allowed")]
    TooLong { len: usize },
    #[error("the id of the container's image is not known")]
    NoImage,
    #[error("the id of the container's image, {id:?}, is not a SHA-256")]
    Image { id: String },
}

impl Unnameable {
    /// Whether it is certain that no such volume exists, because `create` fails too. Otherwise a fact is missing.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            Self::Service { .. } | Self::Container { .. } | Self::TooLong { .. } => true,
            Self::NoImage | Self::Image { .. } => false,
        }
    }
}

impl BootVolume {
    /// The volume of a container. An empty service name is none; `image` is the image id in the container store, with
    /// or without `sha256:`.
    pub(crate) fn of<'a>(
        label: impl Fn(&str) -> Option<&'a str>,
        container: &str,
        image: Option<&str>,
    ) -> Result<Self, Unnameable> {
        let service = label(SERVICE_NAME).filter(|service| !service.is_empty());
        let owner = service.unwrap_or(container.get(..SHORT).unwrap_or(container));
        if let Some(found) = owner.chars().find(|found| !is_allowed(*found)) {
            return Err(match service {
                Some(service) => Unnameable::Service { service: service.to_owned(), found },
                None => Unnameable::Container { id: container.to_owned(), found },
            });
        }
        let image = short_image(image)?;
        let name = format!("{PREFIX}{owner}_{image}{SUFFIX}");
        if name.len() > NAME_MAX {
            return Err(Unnameable::TooLong { len: name.len() });
        }
        Ok(Self(name))
    }

    /// Reads a name that was recorded; `None` if it is not that of a fabricated volume.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let is_whole = name.len() <= NAME_MAX && name.chars().all(is_allowed);
        (is_whole && is_fabricated(name)).then(|| Self(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The target of the link that publishes the volume's file `kernel`. It is relative, and never made from the
    /// engine's `Mountpoint`: the initramfs mounts the data partition elsewhere.
    pub(crate) fn link_target(&self, kernel: &OsStr) -> PathBuf {
        Path::new(VOLUMES).join(&self.0).join("_data").join(kernel)
    }
}

/// Whether a volume of this name is a fabricated one.
pub(crate) fn is_fabricated(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.ends_with(SUFFIX))
}

/// Moby's rule for the name of a volume. The first character, which may be a letter or a digit only, is ours.
fn is_allowed(found: char) -> bool {
    found.is_ascii_alphanumeric() || matches!(found, '_' | '.' | '-')
}

/// The first digits of an image id.
fn short_image(image: Option<&str>) -> Result<&str, Unnameable> {
    let id = image.filter(|id| !id.is_empty()).ok_or(Unnameable::NoImage)?;
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    let is_digit = |found: u8| matches!(found, b'0'..=b'9' | b'a'..=b'f');
    let is_sha256 = digits.len() == DIGITS && digits.bytes().all(is_digit);
    let short = digits.get(..SHORT).filter(|_| is_sha256);
    short.ok_or_else(|| Unnameable::Image { id: id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTAINER: &str = "0123456789abcdef0123";

    fn named(
        service: Option<&str>,
        container: &str,
        image: Option<&str>,
    ) -> Result<BootVolume, Unnameable> {
        BootVolume::of(|name| service.filter(|_| name == SERVICE_NAME), container, image)
    }

    fn image() -> String {
        format!("sha256:{}", "0a1b2c3d4e5f6789".repeat(4))
    }

    #[test]
    fn the_name_is_made_of_the_service_and_the_image() {
        for (service, container, expected) in [
            (Some("kernel"), CONTAINER, "ext_kernel_0a1b2c3d4e5f_boot"),
            (Some("a_b.c-D9"), CONTAINER, "ext_a_b.c-D9_0a1b2c3d4e5f_boot"),
            (Some("-"), CONTAINER, "ext_-_0a1b2c3d4e5f_boot"),
            (None, CONTAINER, "ext_0123456789ab_0a1b2c3d4e5f_boot"),
            (Some(""), CONTAINER, "ext_0123456789ab_0a1b2c3d4e5f_boot"),
            (None, "web-1", "ext_web-1_0a1b2c3d4e5f_boot"),
            (None, "0123456789ab+", "ext_0123456789ab_0a1b2c3d4e5f_boot"),
        ] {
            let image = image();
            for id in [image.as_str(), image.strip_prefix("sha256:").unwrap()] {
                let volume = named(service, container, Some(id)).unwrap();
                assert_eq!(volume.as_str(), expected, "{service:?} {container}");
                assert!(is_fabricated(expected));
                assert_eq!(BootVolume::parse(expected), Some(volume));
            }
        }
    }

    #[test]
    fn a_name_that_the_engine_refuses_is_not_made() {
        for service in ["a/b", "../a", "a b", "a:b", "a+b", "ä", "a\n", "\0"] {
            let refused = named(Some(service), CONTAINER, Some(&image())).unwrap_err();
            assert!(matches!(refused, Unnameable::Service { .. }), "{service:?}: {refused}");
            assert!(refused.is_certain());
        }
        let refused = named(None, "a+b", Some(&image())).unwrap_err();
        assert_eq!(refused, Unnameable::Container { id: "a+b".to_owned(), found: '+' });
        let longest = "a".repeat(NAME_MAX - "ext__0a1b2c3d4e5f_boot".len());
        let volume = named(Some(&longest), CONTAINER, Some(&image())).unwrap();
        assert_eq!(volume.as_str().len(), NAME_MAX);
        let refused = named(Some(&format!("{longest}a")), CONTAINER, Some(&image()));
        assert_eq!(refused, Err(Unnameable::TooLong { len: NAME_MAX + 1 }));
    }

    #[test]
    fn an_image_that_is_unknown_or_malformed_is_not_guessed() {
        for image in [None, Some("")] {
            let refused = named(Some("a"), CONTAINER, image).unwrap_err();
            assert_eq!(refused, Unnameable::NoImage);
            assert!(!refused.is_certain());
        }
        let (upper, long) = ("A".repeat(DIGITS), "a".repeat(DIGITS + 1));
        let twice = format!("sha256:{}", image());
        let other = format!("sha512:{}", "a".repeat(DIGITS));
        for image in ["sha256:", "0a1b2c3d4e5f", "alpine", "../../x", &upper, &long, &twice, &other]
        {
            let refused = named(Some("a"), CONTAINER, Some(image)).unwrap_err();
            assert_eq!(refused, Unnameable::Image { id: image.to_owned() });
            assert!(!refused.is_certain());
        }
    }

    #[test]
    fn a_fabricated_volume_is_known_by_its_name() {
        for name in ["ext_a_b_boot", "ext__boot", "ext_boot_boot"] {
            assert!(is_fabricated(name) && BootVolume::parse(name).is_some(), "{name}");
        }
        for name in ["", "ext_boot", "ext_a_boo", "xext_a_boot", "ext_a_boot2", "EXT_a_boot"] {
            assert!(!is_fabricated(name) && BootVolume::parse(name).is_none(), "{name}");
        }
        for name in ["ext_a/../b_boot", "ext_a b_boot", &format!("ext_{}_boot", "a".repeat(247))] {
            assert!(is_fabricated(name) && BootVolume::parse(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_link_leads_to_the_volumes_file() {
        let volume = named(Some("k"), CONTAINER, Some(&image())).unwrap();
        assert_eq!(
            volume.link_target(OsStr::new("bzImage")).as_os_str(),
            "../docker/volumes/ext_k_0a1b2c3d4e5f_boot/_data/bzImage"
        );
    }

    proptest! {
        #[test]
        fn a_name_is_one_plain_component_or_none(service in "\\PC{0,12}|[a./_+-]{0,6}") {
            if let Ok(volume) = named(Some(&service), CONTAINER, Some(&image())) {
                let mut components = Path::new(volume.as_str()).components();
                prop_assert!(matches!(components.next(), Some(std::path::Component::Normal(_))));
                prop_assert!(components.next().is_none());
            }
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Unnameable {
        Service { service, found }, Container { id, found }, TooLong { len }, NoImage, Image { id },
    }
}
