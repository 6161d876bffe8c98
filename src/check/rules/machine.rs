//! The processor that an extension is for: its names, and the programs that run on it.

use std::fmt;

/// The processor that the extension is for, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetMachine {
    /// As `uname -m` or images name it.
    pub(crate) name: String,
    /// A clause for messages: "this machine is x86_64".
    why: String,
}

/// The processors of one family: its name in `model/container/exit.rs`, and the names of its members, as
/// `uname -m` and images (Go) have them.
const FAMILIES: [(&str, &[&str]); 11] = [
    ("x86_64", &["x86_64", "amd64"]),
    ("i686", &["i386", "i486", "i586", "i686", "386"]),
    ("aarch64", &["aarch64", "arm64"]),
    ("armv7l", &["armv5tel", "armv5tejl", "armv6l", "armv7l", "armv8l", "arm", "armv7hf"]),
    ("mips", &["mips", "mips64", "mipsle", "mips64le"]),
    ("ppc", &["ppc"]),
    ("ppc64le", &["ppc64", "ppc64le"]),
    ("riscv32", &["riscv32"]),
    ("riscv64", &["riscv64"]),
    ("s390x", &["s390", "s390x"]),
    (OTHER, &["loongarch64", "loong64"]),
];
/// The family of all others.
const OTHER: &str = "another machine";

/// A name that is not the name of a processor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown machine {name:?}; the machines are {}", names().collect::<Vec<_>>().join(", "))]
pub(crate) struct UnknownMachine {
    pub(crate) name: String,
}

fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.into_iter().flat_map(|(_, names)| names.iter().copied())
}

impl TargetMachine {
    pub(crate) fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into() }
    }

    /// The machine that an image names. Its name may be unknown.
    pub(crate) fn of_image(architecture: &str) -> Self {
        Self::new(architecture, format!("the image is for {architecture}"))
    }

    /// The machine that a person has named. An unknown name is refused: every program would be for
    /// another machine.
    pub(crate) fn parse(name: &str) -> Result<Self, UnknownMachine> {
        if !names().any(|known| known == name) {
            return Err(UnknownMachine { name: name.to_owned() });
        }
        Ok(Self::new(name, format!("--machine is {name}")))
    }

    /// Whether it runs programs for the family `found`. 64-bit processors also run the 32-bit programs of
    /// their family; whether the host's kernel permits that is unknown here.
    pub(crate) fn runs(&self, found: &str) -> bool {
        let smaller = matches!((self.family(), found), ("x86_64", "i686") | ("aarch64", "armv7l"));
        smaller || self.loads(found)
    }

    /// Whether its kernel loads modules for the family `found`.
    pub(crate) fn loads(&self, found: &str) -> bool {
        self.family() == found
    }

    fn family(&self) -> &'static str {
        let is_member = |(_, names): &&(&str, &[&str])| names.contains(&self.name.as_str());
        FAMILIES.iter().find(is_member).map_or(OTHER, |(family, _)| family)
    }
}

impl fmt::Display for TargetMachine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_run_the_programs_of_their_own_family() {
        assert!(TargetMachine::of_image("amd64").runs("x86_64"));
        assert!(TargetMachine::of_image("amd64").runs("i686"));
        assert!(TargetMachine::of_image("arm").runs("armv7l"));
        assert!(TargetMachine::of_image("arm64").runs("armv7l"));
        assert!(!TargetMachine::of_image("arm64").runs("x86_64"));
        assert!(TargetMachine::new("armv6l", "x").runs("armv7l"));
        assert!(TargetMachine::of_image("mips64le").runs("mips"));
        assert!(
            TargetMachine::of_image("386").runs("i686")
                && !TargetMachine::of_image("386").runs("x86_64")
        );
        assert!(TargetMachine::of_image("loong64").runs("another machine"));
        assert!(!TargetMachine::of_image("loong64").runs("x86_64"));
    }

    #[test]
    fn kernels_load_the_modules_of_their_own_kind() {
        assert!(TargetMachine::of_image("amd64").loads("x86_64"));
        assert!(!TargetMachine::of_image("amd64").loads("i686"));
        assert!(TargetMachine::of_image("386").loads("i686"));
        assert!(!TargetMachine::of_image("arm64").loads("armv7l"));
    }

    #[test]
    fn a_name_is_known_or_refused_with_those_that_are() {
        for name in ["amd64", "aarch64", "arm"] {
            let machine = TargetMachine::parse(name).unwrap();
            assert_eq!(machine.to_string(), format!("--machine is {name}"));
        }
        for name in names() {
            let unknown = TargetMachine::parse(name).unwrap().runs(OTHER);
            assert_eq!(unknown, name.starts_with("loong"), "{name}");
        }
        for name in ["", "x86-64", "arm64x", "AMD64", "another machine"] {
            let error = TargetMachine::parse(name).unwrap_err().to_string();
            assert!(error.contains("x86_64") && error.contains("amd64"), "{error}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct UnknownMachine { name };
}
