//! The runtimes that an engine has registered: which of them is this one.

use std::collections::BTreeMap;

/// What a registered runtime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// This one.
    This,
    /// Another program.
    Another,
}

/// By their names; those of which it cannot be told what they are, are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtimes(pub(crate) BTreeMap<String, Registered>);

/// What ran a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RanBy {
    This,
    Another,
    Unknown,
}

impl Runtimes {
    /// What a runtime of that name is.
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
    fn what_is_not_registered_is_unknown() {
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
