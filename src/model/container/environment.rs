//! The environment of an image's hooks: the labels of the image, and the mounts of its container.

use crate::model::container::spec::Mount;
use crate::model::extension::hook::PATH;
use crate::model::extension::labels::IMAGE_PREFIX;
use std::collections::BTreeMap;
use std::path::Path;

/// What the variables of volumes begin with.
pub(crate) const VOLUME_PREFIX: &str = "EXTENSION_VOLUME_";
const ROOTFS: &str = "EXTENSION_ROOTFS";
/// Where a kernel is in an image.
const BOOT: &str = "/boot";
/// The kernel's limit for one string of the environment, its final NUL included (execve(2)).
const STRING_MAX: usize = 128 * 1024;
/// What all strings together may have. The kernel grants a quarter of the stack limit, usually
/// 2 MiB, to arguments and environment with their pointers.
const TOTAL_MAX: usize = 1024 * 1024;

/// The environment of the image's hooks, `NAME=value` each, in the order that [`environment`] documents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) variables: Vec<String>,
    /// The variables that two labels or two mounts set; the last value is used.
    pub(crate) collisions: Vec<String>,
}

/// Why a label or a mount cannot be passed to the hooks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unpassable {
    #[error(
        "{origin} cannot be passed to the hooks: its name has {found:?}, which no environment \
         variable's name may have"
    )]
    Name { origin: VariableOrigin, found: char },
    #[error("{origin} cannot be passed to the hooks: its value has a NUL byte")]
    Value { origin: VariableOrigin },
    #[error(
        "{origin} cannot be passed to the hooks: it takes {len} bytes of environment, at most \
         {STRING_MAX} are possible"
    )]
    TooLong { origin: VariableOrigin, len: usize },
    #[error(
        "labels and mounts cannot be passed to the hooks: together they take more than {TOTAL_MAX} \
         bytes of environment"
    )]
    TooMuch,
}

/// Where a variable comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VariableOrigin {
    Label(String),
    Mount(String),
    Rootfs,
}

impl std::fmt::Display for VariableOrigin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// A name in a message: quoted, and cut where it is absurd.
        fn brief(name: &str) -> String {
            name.chars().take(80).collect()
        }
        match self {
            Self::Label(name) => write!(formatter, "label {:?}", brief(name)),
            Self::Mount(destination) => write!(formatter, "the mount at {:?}", brief(destination)),
            Self::Rootfs => formatter.write_str("the path of the rootfs"),
        }
    }
}

/// Builds the environment: `PATH`, the rootfs, the labels sorted, the mounts sorted; nothing else.
///
/// # Errors
/// The label or mount that would break out of its variable, or that no execve(2) takes.
pub(crate) fn environment(
    rootfs: &str,
    labels: &BTreeMap<String, String>,
    mounts: &[Mount],
) -> Result<Environment, Unpassable> {
    let rootfs = variable(ROOTFS, rootfs, VariableOrigin::Rootfs)?;
    let mut environment =
        Environment { variables: vec![PATH.to_owned(), rootfs], collisions: Vec::new() };
    environment.extend(labels.iter().filter_map(|(label, text)| {
        let name = label.strip_prefix(IMAGE_PREFIX)?.replace('-', "_").to_uppercase();
        let origin = VariableOrigin::Label(label.clone());
        Some((format!("EXTENSION_IMAGE_{name}"), text.as_str(), origin))
    }))?;
    environment.extend(mounts.iter().filter_map(|mount| {
        let origin = VariableOrigin::Mount(mount.destination.clone());
        Some((volume_variable(&mount.destination)?, mount.source.as_str(), origin))
    }))?;
    if environment.variables.iter().map(|entry| entry.len() + 1).sum::<usize>() > TOTAL_MAX {
        return Err(Unpassable::TooMuch);
    }
    Ok(environment)
}

/// The variable of a mount; `None` if the hooks do not get it.
fn volume_variable(destination: &str) -> Option<String> {
    let name = destination.strip_prefix('/').filter(|name| !name.is_empty())?;
    Some(format!("{VOLUME_PREFIX}{}", name.replace(['/', '-'], "_").to_uppercase()))
}

/// The mounts of a container whose image brings a kernel, for its hooks: the volume of the kernel takes the place of
/// any mount with the variable of `/boot`.
pub(crate) fn with_boot_volume(mounts: &[Mount], volume: &Path) -> Vec<Mount> {
    let boot = volume_variable(BOOT);
    let others = mounts.iter().filter(|mount| volume_variable(&mount.destination) != boot);
    let source = volume.display().to_string();
    others.cloned().chain([Mount { destination: BOOT.to_owned(), source }]).collect()
}

impl Environment {
    /// Adds variables, sorted.
    fn extend<'a>(
        &mut self,
        entries: impl Iterator<Item = (String, &'a str, VariableOrigin)>,
    ) -> Result<(), Unpassable> {
        let mut sorted = BTreeMap::new();
        for (name, text, origin) in entries {
            let entry = variable(&name, text, origin)?;
            if sorted.insert(name.clone(), entry).is_some() {
                self.collisions.push(name);
            }
        }
        self.variables.extend(sorted.into_values());
        Ok(())
    }
}

/// Whether an `environment`, NUL after every variable, is that of a hook whose image has its rootfs at one of these
/// paths. Only the hooks of an image have that variable.
pub(crate) fn is_of_hook(environment: &[u8], rootfs: &[&str]) -> bool {
    let is_rootfs = |variable: &[u8]| {
        let path = variable.strip_prefix(ROOTFS.as_bytes()).and_then(|it| it.strip_prefix(b"="));
        path.is_some_and(|path| rootfs.iter().any(|rootfs| rootfs.as_bytes() == path))
    };
    environment.split(|&byte| byte == 0).any(is_rootfs)
}

fn variable(name: &str, text: &str, origin: VariableOrigin) -> Result<String, Unpassable> {
    // `=` would end the name early and so set another variable; a control character would let a
    // name pretend to be two lines in what `env` prints.
    if let Some(found) = name.chars().find(|&found| found == '=' || found.is_control()) {
        return Err(Unpassable::Name { origin, found });
    }
    if text.contains('\0') {
        return Err(Unpassable::Value { origin });
    }
    let len = name.len() + 1 + text.len();
    if len >= STRING_MAX {
        return Err(Unpassable::TooLong { origin, len });
    }
    Ok(format!("{name}={text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn mount(destination: &str, source: &str) -> Mount {
        Mount { destination: destination.to_owned(), source: source.to_owned() }
    }

    #[test]
    fn the_environment_is_exactly_the_contracts() {
        let labels = labels(&[
            ("io.balena.image.kernel-abi-id", "00ff"),
            ("io.balena.image.class", "overlay"),
            ("io.balena.update.requires-reboot", "1"),
            ("maintainer", "x"),
        ]);
        let mounts = [
            mount("/var/lib-x/y", "/src"),
            mount("/boot", "/vol/boot"),
            mount("/", "/no"),
            mount("relative", "/no"),
        ];
        let environment = environment("/r", &labels, &mounts).unwrap();
        assert_eq!(
            environment.variables,
            [
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "EXTENSION_ROOTFS=/r",
                "EXTENSION_IMAGE_CLASS=overlay",
                "EXTENSION_IMAGE_KERNEL_ABI_ID=00ff",
                "EXTENSION_VOLUME_BOOT=/vol/boot",
                "EXTENSION_VOLUME_VAR_LIB_X_Y=/src",
            ]
        );
        assert!(environment.collisions.is_empty());
    }

    #[test]
    fn of_two_that_share_a_variable_the_last_has_it_and_it_is_told() {
        let mounts = [mount("/a/b", "/1"), mount("/a-b", "/2")];
        let environment = environment("/r", &labels(&[]), &mounts).unwrap();
        assert_eq!(environment.variables.last().unwrap(), "EXTENSION_VOLUME_A_B=/2");
        assert_eq!(environment.collisions, ["EXTENSION_VOLUME_A_B"]);
    }

    #[test]
    fn the_volume_of_the_kernel_is_the_only_one_with_its_variable() {
        let mounts = [mount("/boot", "/1"), mount("/BOOT", "/2"), mount("/boot/x", "/3")];
        let mounts = with_boot_volume(&mounts, Path::new("/volume"));
        let environment = environment("/r", &labels(&[]), &mounts).unwrap();
        let expected = ["EXTENSION_VOLUME_BOOT=/volume", "EXTENSION_VOLUME_BOOT_X=/3"];
        assert_eq!(environment.variables[2..], expected);
        assert!(environment.collisions.is_empty());
    }

    #[test]
    fn what_would_break_out_of_its_variable_is_refused_by_name() {
        let long = "x".repeat(STRING_MAX);
        for (label, text, expected) in [
            ("io.balena.image.a=b", "c", "has '='"),
            ("io.balena.image.a\nPATH", "c", r"has '\n'"),
            ("io.balena.image.a\0", "c", r"has '\0'"),
            ("io.balena.image.a", "c\0d", "NUL byte"),
            ("io.balena.image.a", long.as_str(), "131072 are possible"),
        ] {
            let error = environment("/r", &labels(&[(label, text)]), &[]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("label"), "{error}");
        }
        let error = environment("/r", &labels(&[]), &[mount("/a=b", "/s")]).unwrap_err();
        assert!(error.to_string().contains(r#"the mount at "/a=b""#), "{error}");
        let many: Vec<Mount> =
            (0..100_000).map(|index| mount(&format!("/m{index}"), "/source")).collect();
        assert_eq!(environment("/r", &labels(&[]), &many), Err(Unpassable::TooMuch));
    }

    #[test]
    fn a_hook_is_known_by_its_rootfs() {
        let environment = b"PATH=/bin\0EXTENSION_ROOTFS=/r\0X=EXTENSION_ROOTFS=/s\0";
        assert!(is_of_hook(environment, &["/q", "/r"]));
        assert!(!is_of_hook(environment, &["/s", "/", "/r/a"]));
        assert!(!is_of_hook(b"", &["/r"]));
    }

    #[test]
    fn a_newline_in_a_value_stays_in_its_value() {
        let labels = labels(&[("io.balena.image.a", "1\nPATH=/evil")]);
        let environment = environment("/r", &labels, &[]).unwrap();
        assert_eq!(environment.variables.last().unwrap(), "EXTENSION_IMAGE_A=1\nPATH=/evil");
    }

    proptest! {
        #[test]
        fn no_label_or_mount_sets_a_variable_outside_its_own_prefix(
            name in "\\PC{0,8}|[a-z=\n\u{0}-]{0,8}", text in "\\PC{0,8}", destination in "/[a-z=/\n-]{0,8}",
        ) {
            let labels = BTreeMap::from([(format!("io.balena.image.{name}"), text.clone())]);
            if let Ok(environment) = environment("/r", &labels, &[mount(&destination, &text)]) {
                for entry in environment.variables.iter().skip(2) {
                    let (name, value) = entry.split_once('=').unwrap();
                    prop_assert!(
                        name.starts_with("EXTENSION_IMAGE_") || name.starts_with("EXTENSION_VOLUME_")
                    );
                    prop_assert_eq!(value, &text);
                }
            }
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Unpassable {
        Name { origin = VariableOrigin::Rootfs, found }, Value { origin = VariableOrigin::Rootfs },
        TooLong { origin = VariableOrigin::Rootfs, len }, TooMuch,
    }
}
