//! The engine's containers, images and volumes, as far as they concern extensions. Parses the lists of the
//! engine's API, leniently where no decision depends on a field.

pub(crate) use crate::model::extension::labels::Labels;

use crate::model::engine::sharing::ForeignMount;
use crate::model::text::cause::sentence;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How many characters of an item that cannot be parsed are shown.
const SHOWN: usize = 100;
/// How many items that cannot be parsed are reported. A list may have millions of them.
const UNREADABLE_MAX: usize = 100;

/// The state of a container, in the engine's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineState {
    /// `configured` is Podman's word, as `stopped` is.
    #[serde(alias = "configured")]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    #[serde(alias = "stopped")]
    Exited,
    Dead,
    /// A state of a newer engine, or none.
    #[default]
    #[serde(other)]
    Other,
}

impl fmt::Display for EngineState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mounted {
    /// The volume's name; `None` for a directory of the host.
    pub(crate) volume: Option<String>,
    /// The path on the host.
    pub(crate) source: String,
    /// The path in the container.
    pub(crate) destination: String,
}

/// The facts that only the inspection of a container shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    NotAsked,
    Known(LastRun),
    /// Why the engine did not answer.
    Unreadable(String),
}

/// A container's last run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastRun {
    /// `None` if the engine does not report it.
    pub(crate) exit_code: Option<i64>,
    /// Why the engine could not create or start it; empty if it could. `None` if the engine does not keep
    /// this text (Podman): then only the runtime's record shows it.
    pub(crate) error: Option<String>,
    /// RFC 3339; Go's zero time if it never started.
    pub(crate) started: String,
    /// The container's own layer and the topmost one of its image, by the names of their directories. `None`
    /// if they are unknown.
    pub(crate) layers: Option<Vec<String>>,
    /// The restart policy, empty if there is none.
    pub(crate) restart: String,
    /// The name of the container's runtime; empty if the engine does not report it.
    pub(crate) runtime: String,
}

impl LastRun {
    /// Why the create or start failed, in the engine's words.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.error.as_deref().filter(|error| !error.is_empty())
    }
}

/// An extension's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineContainer {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The image's name, as given when the container was created.
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) state: EngineState,
    pub(crate) labels: Labels,
    pub(crate) mounts: Vec<Mounted>,
    pub(crate) detail: Detail,
}

impl EngineContainer {
    pub(crate) fn id_and_name(&self) -> (&str, &str) {
        (&self.id, &self.name)
    }

    /// The last run, if it is known.
    pub(crate) fn last_run(&self) -> Option<&LastRun> {
        match &self.detail {
            Detail::Known(last_run) => Some(last_run),
            Detail::NotAsked | Detail::Unreadable(_) => None,
        }
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| mount.volume.as_deref())
    }
}

/// An extension's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtensionImage {
    pub(crate) id: String,
    /// Its tags and then its digests, `repository@sha256:…`.
    pub(crate) names: Vec<String>,
    pub(crate) labels: Labels,
    pub(crate) bytes: Option<u64>,
}

/// An extension's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) bytes: Option<u64>,
}

/// The objects that a cleanup decides about, and the facts that its decisions depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) containers: Vec<EngineContainer>,
    pub(crate) images: Vec<ExtensionImage>,
    pub(crate) volumes: Vec<Volume>,
    /// The images and volumes that other containers use. These containers are never touched.
    pub(crate) foreign: Uses,
    /// The volumes of extensions whose `deactivate` must not run, by name, and why not.
    pub(crate) shared: BTreeMap<String, String>,
    /// The parent of each image that has one, by their ids.
    pub(crate) parents: BTreeMap<String, String>,
    /// The images that have a parent and are not extensions.
    pub(crate) foreign_children: Vec<String>,
    /// The sizes of all images, by id, as far as the engine reports them.
    pub(crate) image_sizes: BTreeMap<String, u64>,
    /// Items of the engine's lists that cannot be parsed, and why.
    pub(crate) unreadable: Vec<String>,
}

/// The images and volumes that containers which are not extensions use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses {
    pub(crate) images: BTreeSet<String>,
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) mounts: Vec<ForeignMount>,
}

/// A container in a list of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListedContainer {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    #[serde(rename = "ImageID")]
    image_id: Option<String>,
    state: Option<EngineState>,
    #[serde(default)]
    labels: Labels,
    mounts: Option<Vec<ListedMount>>,
}

/// A mount in a list, in an inspection or in the container store.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListedMount {
    #[serde(rename = "Type")]
    kind: Option<String>,
    name: Option<String>,
    source: Option<String>,
    destination: Option<String>,
}

impl ListedMount {
    /// Whether the source may be any directory of the host.
    fn is_of_unknown_source(&self) -> bool {
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        match self.kind.as_deref() {
            Some("volume") => is_empty(&self.name) && is_empty(&self.source),
            Some("bind") | None => is_empty(&self.source),
            // A tmpfs, or another new filesystem.
            Some(_) => false,
        }
    }

    pub(crate) fn into_mounted(self) -> Mounted {
        let is_volume = self.kind.as_deref() == Some("volume");
        Mounted {
            volume: self.name.filter(|name| is_volume && !name.is_empty()),
            source: self.source.unwrap_or_default(),
            destination: self.destination.unwrap_or_default(),
        }
    }
}

/// Builds an inventory from lists. An item that cannot be parsed does not affect the others.
impl Inventory {
    /// Adds a container: all of an extension, and what any other container uses.
    pub(crate) fn add_container(&mut self, item: &RawValue) {
        let Some(listed) = self.read::<ListedContainer>("container", item) else { return };
        let is_extension = listed.labels.is_extension();
        let mut mounts = listed.mounts.iter().flatten();
        if !is_extension
            && (listed.mounts.is_none() || mounts.any(ListedMount::is_of_unknown_source))
        {
            self.add_unreadable(&format!(
                "cannot list the containers: the engine does not report the mounts of {}",
                listed.id
            ));
        }
        let mounts = listed.mounts.unwrap_or_default().into_iter().map(ListedMount::into_mounted);
        let names = listed.names.unwrap_or_default();
        let name = names.first().map(|name| name.trim_start_matches('/')).unwrap_or_default();
        let image_id = listed.image_id.unwrap_or_default();
        if !is_extension {
            let container = if name.is_empty() { &listed.id } else { name };
            let foreign = &mut self.foreign;
            foreign.images.insert(image_id);
            for Mounted { volume, source, .. } in mounts {
                foreign.volumes.extend(volume.clone());
                let container = container.to_owned();
                foreign.mounts.push(ForeignMount { container, volume, source });
            }
            return;
        }
        self.containers.push(EngineContainer {
            name: name.to_owned(),
            image: listed.image.unwrap_or_default(),
            image_id,
            state: listed.state.unwrap_or_default(),
            labels: listed.labels,
            mounts: mounts.collect(),
            detail: Detail::NotAsked,
            id: listed.id,
        });
    }

    /// Adds an image.
    pub(crate) fn add_image(&mut self, item: &RawValue) {
        let Some(listed) = self.read::<ListedImage>("image", item) else { return };
        let parent = listed.parent_id.clone().filter(|parent| !parent.is_empty());
        if let Some(bytes) = listed.bytes() {
            self.image_sizes.insert(listed.id.clone(), bytes);
        }
        if let Some(parent) = &parent {
            self.parents.insert(listed.id.clone(), parent.clone());
        }
        if listed.labels.is_extension() {
            self.images.push(listed.into_image());
        } else if parent.is_some() {
            self.foreign_children.push(listed.id);
        }
    }

    /// Adds the volumes of extensions.
    pub(crate) fn add_volumes(&mut self, listed: &ListedVolumes) {
        for item in listed.volumes.iter().flatten() {
            let volume = self.read::<ListedVolume>("volume", item);
            self.volumes.extend(volume.and_then(ListedVolume::into_extension));
        }
    }

    /// Drops the intermediate images of builds, which have no name and are parents: the engine removes them together
    /// with the image that the build made.
    pub(crate) fn without_intermediates(mut self) -> Self {
        let parents: BTreeSet<&str> = self.parents.values().map(String::as_str).collect();
        self.images.retain(|image| !image.names.is_empty() || !parents.contains(image.id.as_str()));
        self
    }

    fn add_unreadable(&mut self, why: &str) {
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(sentence(why));
        }
    }

    fn read<'a, T: Deserialize<'a>>(&mut self, kind: &str, item: &'a RawValue) -> Option<T> {
        match serde_json::from_str(item.get()) {
            Ok(read) => Some(read),
            Err(error) => {
                let begin: String = item.get().chars().take(SHOWN).collect();
                self.add_unreadable(&format!(
                    "cannot list the {kind}s: an item of the engine's answer does not follow its API: {error}: {begin}"
                ));
                None
            }
        }
    }
}

/// An image in a list of the API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListedImage {
    id: String,
    parent_id: Option<String>,
    repo_tags: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    #[serde(default)]
    labels: Labels,
    size: Option<i64>,
}

impl ListedImage {
    fn bytes(&self) -> Option<u64> {
        u64::try_from(self.size?).ok()
    }

    fn into_image(self) -> ExtensionImage {
        let bytes = self.bytes();
        let names = [self.repo_tags, self.repo_digests].into_iter().flatten().flatten();
        ExtensionImage {
            id: self.id,
            names: names.filter(|name| !name.starts_with("<none>")).collect(),
            labels: self.labels,
            bytes,
        }
    }
}

/// The list of volumes, or their part of the disk usage.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListedVolumes {
    volumes: Option<Vec<Box<RawValue>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedVolume {
    name: String,
    #[serde(default)]
    labels: Labels,
    usage_data: Option<UsageData>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UsageData {
    size: Option<i64>,
}

impl ListedVolumes {
    /// The sizes by name. A volume that cannot be parsed is left out.
    pub(crate) fn sizes(&self) -> BTreeMap<String, Option<u64>> {
        let items = self.volumes.iter().flatten();
        let volumes =
            items.filter_map(|item| serde_json::from_str::<ListedVolume>(item.get()).ok());
        volumes.map(|volume| (volume.name.clone(), volume.bytes())).collect()
    }
}

impl ListedVolume {
    /// The size; -1 means that the engine does not know it.
    fn bytes(&self) -> Option<u64> {
        u64::try_from(self.usage_data.as_ref()?.size?).ok()
    }

    fn into_extension(self) -> Option<Volume> {
        self.labels.is_extension().then(|| Volume {
            bytes: self.bytes(),
            name: self.name,
            labels: self.labels,
        })
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
