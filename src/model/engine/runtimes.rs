//! Which of the runtimes that an engine has registered is this one.

use std::collections::BTreeMap;

/// Which program a registered runtime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    This,
    Another,
}

/// The registered runtimes by name, without those whose program is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtimes(pub(crate) BTreeMap<String, Registered>);

/// Which runtime ran a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RanBy {
    This,
    Another,
    Unknown,
}

impl Runtimes {
    /// Which runtime has this name.
    pub(crate) fn ran_by(&self, name: &str) -> RanBy {
        match self.0.get(name) {
            Some(Registered::This) => RanBy::This,
            Some(Registered::Another) => RanBy::Another,
            None => RanBy::Unknown,
        }
    }

    /// The name by which the engine knows this runtime.
    pub(crate) fn own_name(&self) -> Option<&str> {
        let mut own = self.0.iter().filter(|(_, registered)| **registered == Registered::This);
        own.next().map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_registered_is_unknown() {
        let runtimes = [("runc", Registered::Another), ("extension", Registered::This)];
        let runtimes = runtimes.map(|(name, registered)| (name.to_owned(), registered));
        let runtimes = Runtimes(BTreeMap::from(runtimes));
        assert_eq!(runtimes.ran_by("runc"), RanBy::Another);
        assert_eq!(runtimes.ran_by("extension"), RanBy::This);
        for name in ["oci", ""] {
            assert_eq!(runtimes.ran_by(name), RanBy::Unknown);
        }
        assert_eq!(runtimes.own_name(), Some("extension"));
        assert_eq!(Runtimes::default().own_name(), None);
    }
}
