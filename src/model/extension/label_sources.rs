//! The engine's container store, which holds the labels that engines do not copy into `config.json`:
//! Moby's `<docker-root>/containers/<id>/config.v2.json`, and containers/storage of Podman
//! (`model/engine/containers_storage.rs`), where the configuration of the container's image has them.

use crate::model::text::json_object::only_objects;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The labels and the image of a container, from an engine's store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredLabels {
    pub(crate) labels: BTreeMap<String, String>,
    /// The image id: `sha256:…` in Moby's store, bare in Podman's.
    pub(crate) image: Option<String>,
}

/// The result of looking up a container in a store.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The store has a record of it at `path`. `data_root` is the engine's, if the store is Moby's.
    Found { path: String, stored: StoredLabels, data_root: Option<PathBuf> },
    /// The store has no record of it at `path`.
    Absent { path: String, store: Store },
    /// The record at `path` cannot be used.
    Unusable { path: String, why: String, store: Store },
}

/// The engine that the store belongs to, on which the advice to the user depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Moby,
    /// containers/storage.
    Podman,
    /// The engine is not known; the default of Moby was tried.
    Unknown,
}

impl Store {
    /// What the user can do if the labels cannot be found in the store.
    fn advice(self) -> &'static str {
        match self {
            Self::Moby => "is --docker-root right?",
            Self::Podman => "with Podman, --annotation can pass the image's labels",
            Self::Unknown => {
                "is --docker-root right? Engines other than Docker can pass the image's labels as annotations"
            }
        }
    }
}

impl StoredLabels {
    /// Reads the bytes of Moby's `config.v2.json`, or of an OCI image configuration (image-spec config.md), which names
    /// no image.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "Self", rename_all = "PascalCase")]
        struct RawRecord {
            #[serde(alias = "config")]
            config: Option<RawConfig>,
            image: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(remote = "Self", rename_all = "PascalCase")]
        struct RawConfig {
            labels: Option<BTreeMap<String, Option<String>>>,
        }
        only_objects!(RawRecord, RawConfig);
        let RawRecord { config, image } = serde_json::from_slice(bytes)?;
        let labels = config.and_then(|config| config.labels).unwrap_or_default().into_iter();
        let labels = labels.map(|(name, text)| (name, text.unwrap_or_default()));
        Ok(Self { labels: labels.collect(), image })
    }
}

impl Lookup {
    /// Which of two stores' answers counts, where `later` was asked second: the one that has the labels; else the
    /// one that cannot be read, since that may have them; else the later one.
    pub(crate) fn or(self, later: Self) -> Self {
        match (&self, &later) {
            (Self::Found { .. }, _)
            | (Self::Unusable { .. }, Self::Unusable { .. } | Self::Absent { .. }) => self,
            (Self::Unusable { .. } | Self::Absent { .. }, _) => later,
        }
    }

    /// The path that was looked up.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Found { path, .. } | Self::Absent { path, .. } | Self::Unusable { path, .. } => {
                path
            }
        }
    }
}

impl fmt::Display for Lookup {
    /// Half a sentence: where the labels were looked for.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { path, .. } => {
                write!(
                    formatter,
                    "it is not among the image's labels in the container store ({path})"
                )
            }
            Self::Absent { path, store } => write!(
                formatter,
                "the container store has no record of it (looked for {path}; {})",
                store.advice()
            ),
            Self::Unusable { path, why, store: Store::Podman } => write!(
                formatter,
                "its record in the container store cannot be read ({path}: {why}; {})",
                Store::Podman.advice()
            ),
            Self::Unusable { path, why, store: Store::Moby | Store::Unknown } => write!(
                formatter,
                "its record in the container store cannot be read ({path}: {why})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_image_are_read_and_the_rest_ignored() {
        let record = StoredLabels::parse(
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
            assert_eq!(StoredLabels::parse(text.as_bytes()).unwrap(), StoredLabels::default());
        }
        for text in ["", "{", r#"{"Config":{"Labels":["#, r#"{"Config":{"Labels":{"a":1}}}"#] {
            assert!(StoredLabels::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_store_that_has_the_labels_wins_then_the_one_that_may_have_them() {
        let path = || "/s".to_owned();
        let found =
            || Lookup::Found { path: path(), stored: StoredLabels::default(), data_root: None };
        let (why, store) = (String::new(), Store::Moby);
        let unusable = || Lookup::Unusable { path: path(), why: why.clone(), store };
        let absent = |store| Lookup::Absent { path: path(), store };
        assert!(matches!(found().or(unusable()), Lookup::Found { .. }));
        for first in [unusable(), absent(Store::Moby)] {
            assert!(matches!(first.or(found()), Lookup::Found { .. }));
        }
        assert!(matches!(unusable().or(absent(Store::Podman)), Lookup::Unusable { .. }));
        assert!(matches!(absent(Store::Moby).or(unusable()), Lookup::Unusable { .. }));
        let last = absent(Store::Moby).or(absent(Store::Podman));
        assert!(matches!(last, Lookup::Absent { store: Store::Podman, .. }));
    }

    #[test]
    fn a_configuration_of_an_image_has_the_labels() {
        let record = StoredLabels::parse(br#"{"config":{"Labels":{"a":"1"}}}"#).unwrap();
        assert_eq!(record.labels.len(), 1);
    }
}
