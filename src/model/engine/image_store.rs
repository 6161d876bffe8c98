//! The engine's records of its images on disk: which image a name means, its labels, and the names of its layers in the
//! layer store. `host/engine/stored_image.rs` reads the files.

use crate::model::extension::labels::Labels;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The algorithm of all ids.
const SHA256: &str = "sha256:";
const DIGITS: usize = 64;
/// How the engine shortens the names of Docker Hub.
const HUB: [&str; 2] = ["docker.io/", "index.docker.io/"];
const HUB_OFFICIAL: &str = "library/";

/// The names of the images (`repositories.json`): the id of an image by its name and tag, and by its name and digest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Repositories {
    #[serde(default)]
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why a name means no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownImage {
    #[error("the engine has no image {name:?}")]
    None { name: String },
    #[error("several ids of images begin with {name:?}: {}", ids.join(", "))]
    Several { name: String, ids: Vec<String> },
}

/// Finds the image that the user calls `name`: by its whole id, else by its name, else by the beginning of its id. `ids`
/// are the hex digits of all ids.
pub(crate) fn find(
    name: &str,
    repositories: &Repositories,
    ids: &[String],
) -> Result<String, UnknownImage> {
    let digits = name.strip_prefix(SHA256).unwrap_or(name);
    if ids.iter().any(|id| id == digits) {
        return Ok(digits.to_owned());
    }
    let key = key_of(name);
    let mut all = repositories.repositories.values();
    if let Some(id) = all.find_map(|names| names.get(&key)) {
        return Ok(id.strip_prefix(SHA256).unwrap_or(id).to_owned());
    }
    let matching: Vec<&String> = match digits {
        "" => Vec::new(),
        _ => ids.iter().filter(|id| id.starts_with(digits)).collect(),
    };
    match matching.as_slice() {
        [] => Err(UnknownImage::None { name: name.to_owned() }),
        [id] => Ok((*id).clone()),
        several => Err(UnknownImage::Several {
            name: name.to_owned(),
            ids: several.iter().map(|id| id.chars().take(12).collect()).collect(),
        }),
    }
}

/// The key of a name in the engine's records: without the registry of Docker Hub, and with a tag or a digest.
fn key_of(name: &str) -> String {
    let name = HUB.iter().find_map(|hub| name.strip_prefix(hub)).unwrap_or(name);
    let official = name.strip_prefix(HUB_OFFICIAL).filter(|rest| !rest.contains('/'));
    let name = official.unwrap_or(name);
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    // A colon before the last slash belongs to the port of a registry.
    let tag = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    match (digest, tag) {
        // Of a name with both, the engine ignores the tag.
        (Some(digest), Some((name, _))) => format!("{name}@{digest}"),
        (Some(digest), None) => format!("{name}@{digest}"),
        (None, Some(_)) => name.to_owned(),
        (None, None) => format!("{name}:latest"),
    }
}

/// The record of an image, as far as a try needs it.
#[derive(Debug, Deserialize)]
pub(crate) struct StoredImage {
    config: Option<StoredImageConfig>,
    rootfs: Option<StoredRootfs>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StoredImageConfig {
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Deserialize)]
struct StoredRootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl StoredImage {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn labels(&self) -> Labels {
        self.config.as_ref().map(|config| config.labels.clone()).unwrap_or_default()
    }

    /// The names of the directories of its layers below `layerdb/sha256`, the lowest first. `sha256` returns the hash of
    /// a text in hex digits. `None` if the record has an id of another form.
    pub(crate) fn chain(&self, sha256: impl Fn(&str) -> String) -> Option<Vec<String>> {
        let mut chain: Vec<String> = Vec::new();
        for id in self.rootfs.iter().flat_map(|rootfs| &rootfs.diff_ids) {
            let digits = id.strip_prefix(SHA256).filter(|digits| is_hash(digits))?;
            chain.push(match chain.last() {
                None => digits.to_owned(),
                // The id of a chain is that of the chain below it and of the layer (OCI image-spec, "Layer ChainID").
                Some(below) => sha256(&format!("{SHA256}{below} {id}")),
            });
        }
        Some(chain)
    }
}

/// Whether `text` is a whole hash in hex digits, and therefore a safe name of a file.
pub(crate) fn is_hash(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == DIGITS && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::extension::labels::CLASS;

    const A: &str = "aa00000000000000000000000000000000000000000000000000000000000001";
    const B: &str = "aa00000000000000000000000000000000000000000000000000000000000002";
    const C: &str = "cc00000000000000000000000000000000000000000000000000000000000003";

    fn repositories() -> Repositories {
        let text = format!(
            r#"{{"Repositories":{{
                "busybox":{{"busybox:latest":"sha256:{A}","busybox:1.2":"sha256:{B}"}},
                "me/ext":{{"me/ext:latest":"sha256:{C}","me/ext@sha256:{B}":"sha256:{C}"}},
                "host:5000/ext":{{"host:5000/ext:latest":"sha256:{B}"}},
                "aa0":{{"aa0:latest":"sha256:{C}"}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn found(name: &str) -> Result<String, UnknownImage> {
        find(name, &repositories(), &[A, B, C].map(str::to_owned))
    }

    #[test]
    fn an_image_is_found_by_each_of_its_names() {
        for (name, expected) in [
            ("busybox", A),
            ("busybox:latest", A),
            ("busybox:1.2", B),
            ("docker.io/library/busybox", A),
            ("docker.io/busybox:1.2", B),
            ("index.docker.io/me/ext", C),
            ("me/ext", C),
            (&format!("me/ext@sha256:{B}"), C),
            (&format!("me/ext:old@sha256:{B}"), C),
            ("host:5000/ext", B),
            ("host:5000/ext:latest", B),
            (A, A),
            (&format!("sha256:{B}"), B),
            ("c", C),
            ("sha256:cc", C),
            // A name counts before the beginning of an id.
            ("aa0", C),
        ] {
            assert_eq!(found(name).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn what_means_no_image_or_several_is_refused() {
        let none = |name: &str| Err(UnknownImage::None { name: name.to_owned() });
        for name in ["", "sha256:", "busybox:2", "me/ext:1.0", "ext", "dd", "host/ext"] {
            assert_eq!(found(name), none(name));
        }
        let Err(UnknownImage::Several { ids, .. }) = found("aa") else { panic!() };
        assert_eq!(ids, ["aa0000000000", "aa0000000000"]);
    }

    #[test]
    fn a_chain_id_is_the_hash_of_the_chain_below_and_the_layer() {
        let parse = |layers: &str| {
            let text = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{layers}]}}}}"#);
            StoredImage::parse(text.as_bytes()).unwrap()
        };
        let hash = |text: &str| format!("h({text})");
        let image = parse(&format!(r#""sha256:{A}","sha256:{B}","sha256:{C}""#));
        let second = format!("h(sha256:{A} sha256:{B})");
        let third = format!("h(sha256:{second} sha256:{C})");
        assert_eq!(image.chain(hash), Some(vec![A.to_owned(), second, third]));
        assert_eq!(parse("").chain(hash), Some(Vec::new()));
        for wrong in [r#""""#, r#""sha256:..""#, r#""sha256:x/y""#] {
            assert_eq!(parse(wrong).chain(hash), None, "{wrong}");
        }
    }

    #[test]
    fn the_labels_of_a_record_are_read_and_a_record_may_have_none() {
        let text = format!(r#"{{"config":{{"Labels":{{"{CLASS}":"overlay"}}}}}}"#);
        assert!(StoredImage::parse(text.as_bytes()).unwrap().labels().is_extension());
        for text in ["{}", r#"{"config":null,"rootfs":null}"#, r#"{"config":{"Labels":null}}"#] {
            let image = StoredImage::parse(text.as_bytes()).unwrap();
            assert_eq!(image.labels(), Labels::default(), "{text}");
            assert_eq!(image.chain(str::to_owned), Some(Vec::new()), "{text}");
        }
        assert!(StoredImage::parse(b"[]").is_err());
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum UnknownImage {
        None { name }, Several { name, ids },
    }
}
