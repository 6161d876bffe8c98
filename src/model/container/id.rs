//! The container id: the only way a string from outside becomes a path component.

use std::fmt;

/// The longest id the command line accepts, in characters (runc's limit). A filesystem may hold
/// less; then creating the state directory says so.
const MAX_LEN: usize = 1024;

/// A checked container id: `[A-Za-z0-9_][A-Za-z0-9_+.-]*`.
///
/// It proves that the text is one path component which is not hidden and not `.` or `..`. It does
/// not prove that such a container exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerId(String);

/// Why a text is not a container id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidId {
    #[error("the container id is empty")]
    Empty,
    #[error("the container id has {len} characters, at most {MAX_LEN} are allowed")]
    TooLong { len: usize },
    #[error(
        "invalid container id {id:?}: it has {found:?} at position {position}, allowed are \
         letters, digits and _, and after the first character also + . -"
    )]
    Character { id: String, found: char, position: usize },
}

impl ContainerId {
    /// Checks `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        let len = text.chars().count();
        if len > MAX_LEN {
            return Err(InvalidId::TooLong { len });
        }
        let wrong = text.chars().enumerate().find(|&(index, found)| {
            let inner = index > 0 && matches!(found, '+' | '.' | '-');
            !(found.is_ascii_alphanumeric() || found == '_' || inner)
        });
        match wrong {
            Some((index, found)) => {
                Err(InvalidId::Character { id: text.to_owned(), found, position: index + 1 })
            }
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_that_engines_use_are_accepted() {
        let longest = "a".repeat(MAX_LEN);
        for id in ["a", "_x", "0", "web-1", "a.b+c_d", "8f3a", longest.as_str()] {
            assert_eq!(ContainerId::parse(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn whatever_could_leave_the_state_root_is_refused() {
        let long = "a".repeat(MAX_LEN + 1);
        for id in ["", ".", "..", "-a", "+a", "a/b", "../a", "a b", "a\n", "a\0", "ä", &long] {
            assert!(ContainerId::parse(id).is_err(), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_id_is_one_plain_path_component(text in "\\PC{0,12}|[a./_+-]{0,6}") {
            if let Ok(id) = ContainerId::parse(&text) {
                let path = std::path::Path::new(id.as_str());
                let mut components = path.components();
                prop_assert!(matches!(components.next(), Some(std::path::Component::Normal(_))));
                prop_assert!(components.next().is_none());
                prop_assert!(!text.starts_with('.'));
            }
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidId {
        Empty, TooLong { len }, Character { id, found, position },
    }
}
