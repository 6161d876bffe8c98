//! The processor that an extension is for: its names, and what it runs.

use std::fmt;

/// The processor that the extension is for, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// As `uname -m` says it.
    pub(crate) name: String,
    /// Half a sentence: "this machine is x86_64".
    why: String,
}

/// As `uname -m` says them, those of one family together.
const NAMES: [&str; 21] = [
    "x86_64",
    "i386",
    "i486",
    "i586",
    "i686",
    "aarch64",
    "armv5tel",
    "armv5tejl",
    "armv6l",
    "armv7l",
    "armv8l",
    "loongarch64",
    "mips",
    "mips64",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv32",
    "riscv64",
    "s390",
    "s390x",
];
/// As images (by Go's names) and balena name them, where that differs, with what `uname -m` says.
const NAMES_OF_IMAGES: [(&str, &str); 8] = [
    ("amd64", "x86_64"),
    ("386", "i686"),
    ("arm64", "aarch64"),
    ("arm", "armv7l"),
    ("loong64", "loongarch64"),
    ("mipsle", "mips"),
    ("mips64le", "mips64"),
    ("armv7hf", "armv7l"),
];

/// A name that no processor has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no machine {name:?}; the machines are {}", names())]
pub(crate) struct Unknown {
    pub(crate) name: String,
}

fn names() -> String {
    let of_images = NAMES_OF_IMAGES.iter().map(|(name, _)| *name);
    NAMES.into_iter().chain(of_images).collect::<Vec<_>>().join(", ")
}

/// What `uname -m` says where images say `architecture`.
fn as_uname_says(architecture: &str) -> &str {
    let found = NAMES_OF_IMAGES.iter().find(|(name, _)| *name == architecture);
    found.map_or(architecture, |(_, name)| name)
}

impl Machine {
    pub(crate) fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: name.to_owned(), why: why.into() }
    }

    /// By the name that images and Go have for it. Theirs may be one that nobody has heard of.
    pub(crate) fn of_image(architecture: &str) -> Self {
        let why = format!("the image says that it is for {architecture}");
        Self::new(as_uname_says(architecture), why)
    }

    /// By the name that a person has typed, as `uname -m` or images say it.
    ///
    /// # Errors
    /// No processor has this name: with it, every program would be for another.
    pub(crate) fn parse(name: &str) -> Result<Self, Unknown> {
        let known = as_uname_says(name);
        if !NAMES.contains(&known) {
            return Err(Unknown { name: name.to_owned() });
        }
        Ok(Self::new(known, format!("--machine says {name}")))
    }

    /// Whether it runs programs for `found`. Processors with 64 bits run those of their own family
    /// with 32, and whether the host's kernel lets them cannot be known here.
    pub(crate) fn runs(&self, found: &str) -> bool {
        let smaller = matches!((self.family(), found), ("x86_64", "i686") | ("aarch64", "armv7l"));
        smaller || self.loads(found)
    }

    /// Whether its kernel loads modules for `found`: only those that were built as it was itself.
    pub(crate) fn loads(&self, found: &str) -> bool {
        self.family() == found
    }

    /// As `model/container/exit.rs` names what an ELF file is for: by family, and some not at all.
    fn family(&self) -> &str {
        match self.name.as_str() {
            "x86_64" | "aarch64" | "riscv32" | "riscv64" | "s390x" => self.name.as_str(),
            "i386" | "i486" | "i586" | "i686" => "i686",
            "s390" => "s390x",
            "ppc" | "powerpc" => "ppc",
            name if name.starts_with("ppc64") => "ppc64le",
            name if name.starts_with("mips") => "mips",
            name if name.starts_with("arm") => "armv7l",
            _ => "another machine",
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_run_the_programs_of_their_own_family() {
        assert!(Machine::of_image("amd64").runs("x86_64"));
        assert!(Machine::of_image("amd64").runs("i686"));
        assert!(Machine::of_image("arm").runs("armv7l"));
        assert!(Machine::of_image("arm64").runs("armv7l"));
        assert!(!Machine::of_image("arm64").runs("x86_64"));
        assert!(Machine::new("armv6l", "x").runs("armv7l"));
        assert!(Machine::of_image("mips64le").runs("mips"));
        assert!(Machine::of_image("386").runs("i686") && !Machine::of_image("386").runs("x86_64"));
        assert!(Machine::of_image("loong64").runs("another machine"));
        assert!(!Machine::of_image("loong64").runs("x86_64"));
    }

    #[test]
    fn kernels_load_the_modules_of_their_own_kind() {
        assert!(Machine::of_image("amd64").loads("x86_64"));
        assert!(!Machine::of_image("amd64").loads("i686"));
        assert!(Machine::of_image("386").loads("i686"));
        assert!(!Machine::of_image("arm64").loads("armv7l"));
    }

    #[test]
    fn a_name_is_known_or_refused_with_those_that_are() {
        for (name, expected) in [("amd64", "x86_64"), ("aarch64", "aarch64"), ("arm", "armv7l")] {
            let machine = Machine::parse(name).unwrap();
            assert_eq!(machine.name, expected);
            assert_eq!(machine.to_string(), format!("--machine says {name}"));
        }
        for name in NAMES.into_iter().chain(NAMES_OF_IMAGES.map(|(name, _)| name)) {
            let unknown = Machine::parse(name).unwrap().runs("another machine");
            assert_eq!(unknown, name.starts_with("loong"), "{name}");
        }
        for name in ["", "x86-64", "arm64x", "AMD64", "another machine"] {
            let error = Machine::parse(name).unwrap_err().to_string();
            assert!(error.contains("x86_64") && error.contains("amd64"), "{error}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct Unknown { name };
}
