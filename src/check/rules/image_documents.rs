//! The documents of an image archive: `manifest.json` of `docker save`, the index and the manifests of an OCI
//! layout, and an image's configuration (OCI image-spec, config.md). All are read as engines read them.

use crate::model::text::go_json::{Json, WrongType};
use std::collections::{BTreeMap, BTreeSet};

/// The parts of one image, as names in the archive. The lowest layer comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The first of its names.
    pub(crate) name: Option<String>,
    pub(crate) config: String,
    pub(crate) layers: Vec<String>,
    /// Whether the names are the hashes of the parts, which engines verify.
    pub(crate) is_by_digest: bool,
}

/// The fields of an image's configuration that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) architecture: Option<String>,
    /// Whether there is a `Cmd` or an `Entrypoint`.
    pub(crate) has_command: bool,
    pub(crate) has_health_check: bool,
    /// The hashes of the layers without compression, the lowest first.
    pub(crate) diff_ids: Vec<String>,
    os: String,
    has_rootfs: bool,
    /// The first time in it that is malformed.
    odd_time: Option<String>,
    /// The number of layers in its history.
    history: usize,
}

/// Why an archive is not an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidDocument {
    #[error("{name} is not valid JSON")]
    Document { name: String, source: serde_json::Error },
    #[error("{name} is not a valid image document")]
    Type { name: String, source: WrongType },
    #[error("{name}, which the manifest names, is not a JSON document")]
    NotJson { name: String },
    #[error("no image found ({name} lists no image whose parts are in the archive)")]
    NoImage { name: &'static str },
    #[error("no image found ({MANIFEST} belongs to another program)")]
    NoManifest,
    #[error("the archive does not contain {name}, which the manifest names")]
    Missing { name: String },
}

/// Written by `docker save` and by `skopeo copy … dir:`.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The entry point of an OCI layout.
pub(crate) const INDEX: &str = "index.json";
/// The most indexes that refer to each other; engines write two.
const DEPTH_MAX: usize = 4;
/// The most layers that Moby accepts.
const LAYERS_MAX: usize = 125;

/// Reads `manifest.json`: the list of `docker save`, or the one manifest of a `dir:`.
pub(crate) fn manifests(bytes: &[u8]) -> Result<Vec<Manifest>, InvalidDocument> {
    let in_document = |source| InvalidDocument::Type { name: MANIFEST.to_owned(), source };
    let is_list = bytes.trim_ascii_start().starts_with(b"[");
    let document = parse(bytes, MANIFEST);
    let document = document.map_err(|e| if is_list { e } else { InvalidDocument::NoManifest })?;
    if let Json::List(items) = &document {
        let is_ours = |item: &Json| item.field("Config").is_ok_and(|found| !found.is_empty());
        if !items.iter().any(is_ours) {
            return Err(InvalidDocument::NoManifest);
        }
        return items.iter().map(listed).collect::<Result<_, _>>().map_err(in_document);
    }
    let parts = parts(&document).ok().flatten();
    let (config, layers) = parts.ok_or(InvalidDocument::NoManifest)?;
    let layers = layers.iter().map(|layer| layer.hash().to_owned()).collect();
    let config = config.hash().to_owned();
    Ok(vec![Manifest { name: None, config, layers, is_by_digest: true }])
}

fn listed(item: &Json) -> Result<Manifest, WrongType> {
    Ok(Manifest {
        name: item.last("RepoTags")?.texts("RepoTags")?.into_iter().next(),
        config: item.text_of("Config")?.unwrap_or_default().to_owned(),
        layers: item.last("Layers")?.texts("Layers")?,
        is_by_digest: false,
    })
}

/// A reference to a blob.
struct BlobDescriptor {
    digest: String,
    media_type: String,
    is_artifact: bool,
    name: Option<String>,
}

impl BlobDescriptor {
    fn of(json: &Json) -> Result<Self, WrongType> {
        let platform = json.last("platform")?;
        let unknown = |name| Ok(platform.text_of(name)? == Some("unknown"));
        let annotations = json.last("annotations")?.fields("annotations")?;
        let annotation = |wanted: &str| annotations.iter().rev().find(|(name, _)| *name == wanted);
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let name = names.iter().find_map(|name| annotation(name));
        Ok(Self {
            digest: json.text_of("digest")?.unwrap_or_default().to_owned(),
            media_type: json.text_of("mediaType")?.unwrap_or_default().to_owned(),
            // Builders add attestations about another image.
            is_artifact: annotation("vnd.docker.reference.type").is_some()
                || is_artifact_type(json)?
                || unknown("architecture")? && unknown("os")?,
            name: name.and_then(|(_, text)| text.text("").ok().flatten()).map(str::to_owned),
        })
    }

    /// Where an OCI layout keeps the blob.
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replacen(':', "/", 1))
    }

    fn hash(&self) -> &str {
        self.digest.split_once(':').map_or(self.digest.as_str(), |(_, hash)| hash)
    }

    fn is_configuration(&self) -> bool {
        self.media_type.is_empty() || CONFIGURATIONS.contains(&self.media_type.as_str())
    }

    fn is_layer(&self) -> bool {
        let known = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
        self.media_type.is_empty() || known.iter().any(|kind| self.media_type.starts_with(kind))
    }
}

/// The media types of an image's configuration.
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Whether a manifest, or a reference to one, is that of an artifact, not of an image (image-spec, manifest.md,
/// "Guidelines for Artifact Usage"). An image may name the type of its configuration there.
fn is_artifact_type(json: &Json) -> Result<bool, WrongType> {
    let kind = json.text_of("artifactType")?.unwrap_or_default();
    Ok(!kind.is_empty() && !CONFIGURATIONS.contains(&kind))
}

/// The configuration and the layers of a manifest. `None` if it is not that of an image.
fn parts(manifest: &Json) -> Result<Option<(BlobDescriptor, Vec<BlobDescriptor>)>, WrongType> {
    let config = manifest.last("config")?;
    let is_referrer = !matches!(manifest.last("subject")?, Json::Null);
    if matches!(config, Json::Null) || is_referrer || is_artifact_type(manifest)? {
        return Ok(None);
    }
    let config = BlobDescriptor::of(config)?;
    let layers = manifest.last("layers")?.list("layers")?.iter().map(BlobDescriptor::of);
    let layers: Vec<BlobDescriptor> = layers.collect::<Result<_, _>>()?;
    let is_image = !config.digest.is_empty()
        && config.is_configuration()
        && layers.iter().all(BlobDescriptor::is_layer);
    Ok(is_image.then_some((config, layers)))
}

/// Finds the images of an OCI layout among its `documents`. Of an image for several machines, returns those
/// that the layout contains.
pub(crate) fn manifests_of_layout(
    documents: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<Manifest>, InvalidDocument> {
    let mut layout = Layout { documents, seen: BTreeSet::new(), found: Vec::new() };
    let index = documents.get(INDEX).map(Vec::as_slice).unwrap_or_default();
    layout.descend(index, INDEX, None, DEPTH_MAX)?;
    let found = layout.found;
    if found.is_empty() { Err(InvalidDocument::NoImage { name: INDEX }) } else { Ok(found) }
}

struct Layout<'a> {
    documents: &'a BTreeMap<String, Vec<u8>>,
    /// Each document is read once, because indexes may name each other.
    seen: BTreeSet<String>,
    found: Vec<Manifest>,
}

impl Layout<'_> {
    fn descend(
        &mut self,
        bytes: &[u8],
        name: &str,
        image: Option<String>,
        depth: usize,
    ) -> Result<(), InvalidDocument> {
        let typed = |source| InvalidDocument::Type { name: name.to_owned(), source };
        let document = parse(bytes, name)?;
        let children = document.last("manifests").and_then(|list| list.list("manifests"));
        for child in children.map_err(typed)? {
            let child = BlobDescriptor::of(child).map_err(typed)?;
            let path = child.path();
            if child.is_artifact || !self.seen.insert(path.clone()) {
                continue;
            }
            if let (Some(bytes), Some(depth)) = (self.documents.get(&path), depth.checked_sub(1)) {
                self.descend(bytes, &path, child.name.or_else(|| image.clone()), depth)?;
            }
        }
        if let Some((config, layers)) = parts(&document).map_err(typed)? {
            let (config, layers) = (config.path(), layers.iter().map(BlobDescriptor::path));
            if self.documents.contains_key(&config) {
                let layers = layers.collect();
                self.found.push(Manifest { name: image, config, layers, is_by_digest: true });
            }
        }
        Ok(())
    }
}

impl Configuration {
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self, InvalidDocument> {
        let document = parse(bytes, name)?;
        Self::of(&document)
            .map_err(|source| InvalidDocument::Type { name: name.to_owned(), source })
    }

    fn of(document: &Json) -> Result<Self, WrongType> {
        let mut config = RunConfig::default();
        // A repeated field is set twice: `null` clears it, an object adds to it.
        for value in document.field("config")? {
            if matches!(value, Json::Null) {
                config = RunConfig::default();
            }
            config.set(value)?;
        }
        let mut found = Self {
            labels: config.labels,
            architecture: document.text_of("architecture")?.map(str::to_owned),
            has_command: config.has_command || config.has_entrypoint,
            has_health_check: config.test.first().is_some_and(|first| first != "NONE"),
            os: document.text_of("os")?.unwrap_or_default().to_owned(),
            ..Self::default()
        };
        found.architecture = found.architecture.filter(|text| !text.is_empty());
        for value in document.field("rootfs")? {
            found.has_rootfs = !matches!(value, Json::Null);
            match value.field("diff_ids")?.pop() {
                Some(ids) => found.diff_ids = ids.texts("diff_ids")?,
                None if !found.has_rootfs => found.diff_ids.clear(),
                None => {}
            }
        }
        for step in document.last("history")?.list("history")? {
            let is_empty = step.last("empty_layer")?.is_true("empty_layer")?;
            found.history += usize::from(!is_empty);
            found.check_time(step)?;
        }
        found.check_time(document)?;
        Ok(found)
    }

    fn check_time(&mut self, document: &Json) -> Result<(), WrongType> {
        for time in document.field("created")? {
            let time = time.text("created")?;
            let odd = time.filter(|time| !is_time(time)).map(str::to_owned);
            self.odd_time = self.odd_time.take().or(odd);
        }
        Ok(())
    }

    /// Why an engine would not load it with this number of layers.
    pub(crate) fn refusal(&self, layers: usize) -> Option<String> {
        let (ids, history) = (self.diff_ids.len(), self.history);
        Some(if !self.has_rootfs {
            "the configuration has no rootfs".to_owned()
        } else if layers != ids {
            format!("the manifest names {layers} layers, but the configuration {ids} diff_ids")
        } else if history > ids {
            format!("the history has {history} layers, but the configuration {ids} diff_ids")
        } else if layers > LAYERS_MAX {
            format!("the image has {layers} layers, but engines accept at most {LAYERS_MAX}")
        } else if !["", "linux"].contains(&self.os.as_str()) {
            format!("the configuration is for the os {:?}, not for linux", self.os)
        } else {
            format!("the configuration has an invalid time: {:?}", self.odd_time.as_ref()?)
        })
    }
}

/// Whether a text has the form of RFC 3339, `2026-11-27T10:00:00.5Z`.
fn is_time(text: &str) -> bool {
    let (Some(start), Some(rest)) = (text.get(..19), text.get(19..)) else { return false };
    let has_form = |text: &str, form: &str| {
        let fits = |(found, wanted): (u8, u8)| match wanted {
            b'0' => found.is_ascii_digit(),
            wanted => found == wanted,
        };
        text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
    };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|letter: char| letter.is_ascii_digit()),
        None => rest,
    };
    has_form(start, "0000-00-00T00:00:00")
        && (zone == "Z" || has_form(zone, "+00:00") || has_form(zone, "-00:00"))
}

/// The defaults for containers of the image.
#[derive(Default)]
struct RunConfig {
    labels: BTreeMap<String, String>,
    has_command: bool,
    has_entrypoint: bool,
    test: Vec<String>,
}

impl RunConfig {
    fn set(&mut self, config: &Json) -> Result<(), WrongType> {
        for labels in config.field("Labels")? {
            if matches!(labels, Json::Null) {
                self.labels.clear();
            }
            for (name, text) in labels.fields("Labels")? {
                let text = text.text("a label")?.unwrap_or_default();
                self.labels.insert(name.to_owned(), text.to_owned());
            }
        }
        for command in config.field("Cmd")? {
            self.has_command = has_words(command, "Cmd")?;
        }
        for command in config.field("Entrypoint")? {
            self.has_entrypoint = has_words(command, "Entrypoint")?;
        }
        for check in config.field("Healthcheck")? {
            if matches!(check, Json::Null) {
                self.test.clear();
            }
            for test in check.field("Test")? {
                self.test = test.texts("Test")?;
            }
        }
        Ok(())
    }
}

/// Whether a command has words. A string is one word.
fn has_words(command: &Json, name: &str) -> Result<bool, WrongType> {
    Ok(matches!(command, Json::Text(_)) || !command.texts(name)?.is_empty())
}

fn parse(bytes: &[u8], name: &str) -> Result<Json, InvalidDocument> {
    Json::parse(bytes).map_err(|source| InvalidDocument::Document { name: name.to_owned(), source })
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
        assert!(manifests(b"[]").unwrap_err().to_string().contains("no image found"));
        assert!(matches!(manifests(b"{}"), Err(InvalidDocument::NoManifest)));
        assert!(matches!(manifests(br#"[{"Config":5}]"#), Err(InvalidDocument::Type { .. })));
        // Layers as a `dir:` has them.
        let text = br#"{"config":{"digest":"sha256:c"},"layers":[{"digest":"sha256:l"}]}"#;
        let found = manifests(text).unwrap();
        assert_eq!(
            (found[0].config.as_str(), found[0].layers.as_slice()),
            ("c", &["l".to_owned()][..])
        );
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
            is_by_digest: true,
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
    fn a_configuration_has_labels_a_command_and_a_machine() {
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
        assert_eq!(error, "c is not a valid image document");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidDocument {
        Document { name, source }, Type { name, source }, NotJson { name }, NoImage { name },
        NoManifest, Missing { name },
    }
}
