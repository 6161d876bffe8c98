//! The engine's container store, which holds the labels that engines do not copy into `config.json`:
//! Moby's `<docker-root>/containers/<id>/config.v2.json`, and containers/storage (Podman), where the
//! container names its image and the image's configuration has the labels.

use crate::model::object::only_objects;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// What is read of a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) labels: BTreeMap<String, String>,
    /// The image id: `sha256:…` in Moby's store, bare in Podman's.
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

type RawLabels = Option<BTreeMap<String, Option<String>>>;

fn labels(raw: RawLabels) -> BTreeMap<String, String> {
    let raw = raw.unwrap_or_default();
    raw.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect()
}

impl Record {
    /// Reads the bytes of Moby's `config.v2.json`.
    ///
    /// # Errors
    /// Line and column where the JSON is not such a record.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "Self", rename_all = "PascalCase")]
        struct Raw {
            config: Option<RawConfig>,
            image: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(remote = "Self", rename_all = "PascalCase")]
        struct RawConfig {
            labels: RawLabels,
        }
        only_objects!(Raw, RawConfig);
        let raw: Raw = serde_json::from_slice(bytes)?;
        let labels = labels(raw.config.and_then(|config| config.labels));
        Ok(Self { labels, image: raw.image })
    }

    /// Reads the bytes of an OCI image configuration (image-spec config.md), the image being `image`.
    ///
    /// # Errors
    /// Line and column where the JSON is not one.
    pub(crate) fn parse_image(bytes: &[u8], image: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "Self")]
        struct Raw {
            config: Option<RawConfig>,
        }
        #[derive(Deserialize)]
        #[serde(remote = "Self")]
        struct RawConfig {
            #[serde(rename = "Labels")]
            labels: RawLabels,
        }
        only_objects!(Raw, RawConfig);
        let raw: Raw = serde_json::from_slice(bytes)?;
        let labels = labels(raw.config.and_then(|config| config.labels));
        Ok(Self { labels, image: Some(image.to_owned()) })
    }
}

/// Finds the image of container `id` in a `containers.json` of containers/storage. `None` if the
/// container is not in it, or has no image.
///
/// # Errors
/// Line and column where the JSON is not such a list.
pub(crate) fn image_of(bytes: &[u8], id: &str) -> Result<Option<String>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(remote = "Self")]
    struct Raw {
        id: String,
        image: Option<String>,
    }
    only_objects!(Raw);
    let containers: Vec<Raw> = serde_json::from_slice(bytes)?;
    let container = containers.into_iter().find(|container| container.id == id);
    Ok(container.and_then(|container| container.image).filter(|image| is_hex(image)))
}

/// The name of the file, in the image's own folder, that holds the configuration of `image`:
/// containers/storage keeps each blob under its key in base64, and this key is the image's digest.
pub(crate) fn image_config_name(image: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digest = format!("sha256:{image}");
    let mut name = String::from("=");
    for group in digest.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for position in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * position) & 63).unwrap_or_default();
            let filled = position <= group.len();
            let letter = ALPHABET.get(index).filter(|_| filled);
            name.push(letter.map_or('=', |letter| char::from(*letter)));
        }
    }
    name
}

/// An image id becomes part of a path.
fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Lookup {
    /// The file that was found, or looked for.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Found { path, .. } | Self::Absent { path } | Self::Unusable { path, .. } => path,
        }
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

    #[test]
    fn podmans_store_leads_from_the_container_to_the_labels_of_its_image() {
        let list =
            br#"[{"id":"a","image":"00ff","layer":"l"},{"id":"b"},{"id":"c","image":"../x"}]"#;
        assert_eq!(image_of(list, "a").unwrap().as_deref(), Some("00ff"));
        assert_eq!(image_of(list, "b").unwrap(), None);
        assert_eq!(image_of(list, "c").unwrap(), None, "an image id that is a path");
        assert_eq!(image_of(list, "d").unwrap(), None);
        assert!(image_of(b"{", "a").is_err());
        let record = Record::parse_image(br#"{"config":{"Labels":{"a":"1"}}}"#, "00ff").unwrap();
        assert_eq!(record.labels.len(), 1);
        assert_eq!(record.image.as_deref(), Some("00ff"));
    }

    #[test]
    fn the_name_of_a_blob_is_its_key_in_base64() {
        assert_eq!(image_config_name("0"), "=c2hhMjU2OjA=");
        assert_eq!(image_config_name("00"), "=c2hhMjU2OjAw");
        assert_eq!(image_config_name("000"), "=c2hhMjU2OjAwMA==");
    }
}
