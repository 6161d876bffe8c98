//! The documents of an image archive: `manifest.json` of `docker save`, the index and the manifests
//! of an OCI layout, and an image's configuration (OCI image-spec, config.md).

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What describes one image: its configuration and its layers, as names in the archive, the lowest
/// layer first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The first of its names, if it has one.
    pub(crate) name: Option<String>,
    pub(crate) config: String,
    pub(crate) layers: Vec<String>,
}

/// What is read of an image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) architecture: Option<String>,
    pub(crate) has_command: bool,
    pub(crate) has_health_check: bool,
}

/// Why an archive is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("{name} is not what it should be")]
    Document { name: String, source: serde_json::Error },
    #[error("it has no image in it ({name} lists none whose parts are there)")]
    NoImage { name: &'static str },
    #[error("{name}, which its manifest names, is not in it")]
    Missing { name: String },
}

/// What `docker save` writes beside the layers.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The entry point of an OCI layout.
pub(crate) const INDEX: &str = "index.json";
/// How deep indexes may refer to indexes; engines write two.
const DEPTH_MAX: usize = 4;

/// Reads `manifest.json`.
///
/// # Errors
/// It is no such list, or it lists nothing.
pub(crate) fn manifests(bytes: &[u8]) -> Result<Vec<Manifest>, Invalid> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Raw {
        config: String,
        repo_tags: Option<Vec<String>>,
        layers: Option<Vec<String>>,
    }
    let raw: Vec<Raw> = parse(bytes, MANIFEST)?;
    let manifest = |raw: Raw| Manifest {
        name: raw.repo_tags.unwrap_or_default().into_iter().next(),
        config: raw.config,
        layers: raw.layers.unwrap_or_default(),
    };
    let manifests: Vec<Manifest> = raw.into_iter().map(manifest).collect();
    if manifests.is_empty() { Err(Invalid::NoImage { name: MANIFEST }) } else { Ok(manifests) }
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Where an OCI layout keeps the blob.
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replacen(':', "/", 1))
    }

    /// Statements about another image, which builders put beside it.
    fn is_attestation(&self) -> bool {
        let annotations = self.annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key("vnd.docker.reference.type"))
    }

    fn name(&self) -> Option<String> {
        let annotations = self.annotations.as_ref()?;
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        names.iter().find_map(|name| annotations.get(*name)).cloned()
    }
}

/// Finds the images of an OCI layout, whose small documents are in `documents`. Of an image for
/// several machines those that are there.
///
/// # Errors
/// A document is not what it should be, or there is no whole image.
pub(crate) fn manifests_of_layout(
    documents: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<Manifest>, Invalid> {
    let mut found = Vec::new();
    let index = documents.get(INDEX).map(Vec::as_slice).unwrap_or_default();
    descend(index, INDEX, None, documents, DEPTH_MAX, &mut BTreeSet::new(), &mut found)?;
    if found.is_empty() { Err(Invalid::NoImage { name: INDEX }) } else { Ok(found) }
}

fn descend(
    bytes: &[u8],
    name: &str,
    image: Option<String>,
    documents: &BTreeMap<String, Vec<u8>>,
    depth: usize,
    seen: &mut BTreeSet<String>,
    found: &mut Vec<Manifest>,
) -> Result<(), Invalid> {
    #[derive(Deserialize)]
    struct Raw {
        manifests: Option<Vec<Descriptor>>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
    }
    let raw: Raw = parse(bytes, name)?;
    for child in raw.manifests.unwrap_or_default() {
        let path = child.path();
        // Each is read once: indexes that name each other many times would take for ever.
        if !seen.insert(path.clone()) {
            continue;
        }
        if let (false, Some(bytes), Some(depth)) =
            (child.is_attestation(), documents.get(&path), depth.checked_sub(1))
        {
            let image = child.name().or_else(|| image.clone());
            descend(bytes, &path, image, documents, depth, seen, found)?;
        }
    }
    if let Some(config) = raw.config.filter(|config| documents.contains_key(&config.path())) {
        let layers = raw.layers.unwrap_or_default();
        let layers = layers.iter().map(Descriptor::path).collect();
        found.push(Manifest { name: image, config: config.path(), layers });
    }
    Ok(())
}

impl Configuration {
    /// Reads an image's configuration, in the spelling of the image-spec or in that of an engine's
    /// answer.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self, Invalid> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(alias = "Architecture")]
            architecture: Option<String>,
            #[serde(alias = "Config")]
            config: Option<RawConfig>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct RawConfig {
            labels: Option<BTreeMap<String, Option<String>>>,
            cmd: Option<Vec<String>>,
            entrypoint: Option<Vec<String>>,
            healthcheck: Option<RawHealthcheck>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct RawHealthcheck {
            test: Option<Vec<String>>,
        }
        let raw: Raw = parse(bytes, name)?;
        let config = raw.config.unwrap_or_default();
        let some = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|it| !it.is_empty());
        let test = config.healthcheck.and_then(|check| check.test).unwrap_or_default();
        let labels = config.labels.unwrap_or_default().into_iter();
        Ok(Self {
            labels: labels.map(|(name, text)| (name, text.unwrap_or_default())).collect(),
            architecture: raw.architecture.filter(|text| !text.is_empty()),
            has_command: some(&config.cmd) || some(&config.entrypoint),
            has_health_check: test.first().is_some_and(|first| first != "NONE"),
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], name: &str) -> Result<T, Invalid> {
    serde_json::from_slice(bytes)
        .map_err(|source| Invalid::Document { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_docker_lists_its_images() {
        let text = br#"[{"Config":"c.json","RepoTags":["a:1","a:2"],"Layers":["1/layer.tar"]},
            {"Config":"d.json","RepoTags":null,"Layers":null}]"#;
        let found = manifests(text).unwrap();
        assert_eq!(found[0].name.as_deref(), Some("a:1"));
        assert_eq!(found[0].layers, ["1/layer.tar"]);
        assert_eq!((&found[1].name, found[1].layers.len()), (&None, 0));
        assert!(manifests(b"[]").unwrap_err().to_string().contains("no image"));
        assert!(manifests(b"{}").is_err());
    }

    #[test]
    fn a_layout_is_followed_through_its_indexes_past_what_is_not_there() {
        let documents = [
            (
                INDEX,
                r#"{"manifests":[{"digest":"sha256:i","annotations":{"io.containerd.image.name":"a:1"}}]}"#,
            ),
            (
                "blobs/sha256/i",
                r#"{"manifests":[{"digest":"sha256:m"},{"digest":"sha256:elsewhere"},
                {"digest":"sha256:s","annotations":{"vnd.docker.reference.type":"x"}}]}"#,
            ),
            (
                "blobs/sha256/m",
                r#"{"config":{"digest":"sha256:c"},"layers":[{"digest":"sha256:l"}]}"#,
            ),
            ("blobs/sha256/s", r#"{"config":{"digest":"sha256:c"},"layers":[]}"#),
            ("blobs/sha256/c", "{}"),
        ];
        let mut documents: BTreeMap<String, Vec<u8>> =
            documents.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
        let found = manifests_of_layout(&documents).unwrap();
        let manifest = Manifest {
            name: Some("a:1".to_owned()),
            config: "blobs/sha256/c".to_owned(),
            layers: vec!["blobs/sha256/l".to_owned()],
        };
        assert_eq!(found, [manifest]);
        // An index that names itself comes to an end.
        let ring = br#"{"manifests":[{"digest":"sha256:i"}]}"#;
        documents.insert("blobs/sha256/i".to_owned(), ring.to_vec());
        assert!(manifests_of_layout(&documents).is_err());
        // So does one that names it many times over: without a memory, 5,000 to the fourth readings.
        let many = vec![r#"{"digest":"sha256:i"}"#; 5000].join(",");
        let many = format!(r#"{{"manifests":[{many}]}}"#).into_bytes();
        documents.insert(INDEX.to_owned(), many.clone());
        documents.insert("blobs/sha256/i".to_owned(), many);
        assert!(manifests_of_layout(&documents).is_err());
    }

    #[test]
    fn a_configuration_says_labels_command_and_machine() {
        let text = br#"{"architecture":"arm64","config":{"Labels":{"a":"1","b":null},"Cmd":["x"],
            "Healthcheck":{"Test":["NONE"]},"Env":["A=1"]},"rootfs":{}}"#;
        let found = Configuration::parse(text, "c").unwrap();
        assert_eq!(found.labels.len(), 2);
        assert_eq!(found.architecture.as_deref(), Some("arm64"));
        assert!(found.has_command && !found.has_health_check);
        let text =
            br#"{"config":{"Labels":null,"Entrypoint":[],"Healthcheck":{"Test":["CMD","x"]}}}"#;
        let found = Configuration::parse(text, "c").unwrap();
        assert!(!found.has_command && found.has_health_check && found.labels.is_empty());
        let error = Configuration::parse(b"[]", "c").unwrap_err().to_string();
        assert_eq!(error, "c is not what it should be");
    }
}
