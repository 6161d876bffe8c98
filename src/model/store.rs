//! The engine's container store: the record of a container as Moby keeps it in
//! `<docker-root>/containers/<id>/config.v2.json`, which holds the labels that Moby does not copy
//! into `config.json`.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// What is read of a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) labels: BTreeMap<String, String>,
    /// The image id, `sha256:…`.
    pub(crate) image: Option<String>,
}

/// What a look into the store brought.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// A record at `path`.
    Found { path: String, record: Record },
    /// The store has no such container; `path` was tried.
    Absent { path: String },
    /// There is something at `path` that cannot be used.
    Unusable { path: String, why: String },
}

impl Record {
    /// Reads the bytes of a `config.v2.json`.
    ///
    /// # Errors
    /// Line and column where the JSON is not such a record.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Raw {
            config: Option<RawConfig>,
            image: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct RawConfig {
            labels: Option<BTreeMap<String, Option<String>>>,
        }
        let raw: Raw = serde_json::from_slice(bytes)?;
        let labels = raw.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(Self {
            labels: labels
                .into_iter()
                .map(|(name, text)| (name, text.unwrap_or_default()))
                .collect(),
            image: raw.image,
        })
    }
}

impl fmt::Display for Lookup {
    /// The half of a sentence that says where the labels were looked for.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { path, .. } => {
                write!(
                    formatter,
                    "the image's labels in the container store do not have it ({path})"
                )
            }
            Self::Absent { path } => write!(
                formatter,
                "the container store has no record of it (looked for {path}; is --docker-root right?)"
            ),
            Self::Unusable { path, why } => {
                write!(
                    formatter,
                    "its record in the container store cannot be read ({path}: {why})"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_image_are_read_and_the_rest_ignored() {
        let record = Record::parse(
            br#"{"ID":"x","Config":{"Labels":{"a":"1","b":null},"Env":["X"]},"Image":"sha256:9"}"#,
        )
        .unwrap();
        assert_eq!(record.labels.get("a").map(String::as_str), Some("1"));
        assert_eq!(record.labels.get("b").map(String::as_str), Some(""));
        assert_eq!(record.image.as_deref(), Some("sha256:9"));
    }

    #[test]
    fn a_record_without_labels_has_none_and_a_truncated_one_is_an_error() {
        for text in ["{}", r#"{"Config":null}"#, r#"{"Config":{"Labels":null}}"#] {
            assert_eq!(Record::parse(text.as_bytes()).unwrap(), Record::default());
        }
        for text in ["", "{", r#"{"Config":{"Labels":["#, r#"{"Config":{"Labels":{"a":1}}}"#] {
            assert!(Record::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
