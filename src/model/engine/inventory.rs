//! What there is: the engine's containers, images and volumes, as far as extensions are concerned. The
//! answers of the engine's API become values here, leniently where nothing depends on a field.

pub(crate) use crate::model::extension::labels::Labels;

use crate::model::engine::sharing::ForeignMount;
use crate::model::text::cause::sentence;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// How much is told of an item that makes no sense.
const SHOWN: usize = 100;

/// What the engine says a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
    /// A word of a newer engine.
    Other,
}

impl Phase {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            // The second of each is Podman's.
            "created" | "configured" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "removing" => Self::Removing,
            "exited" | "stopped" => Self::Exited,
            "dead" => Self::Dead,
            _ => Self::Other,
        }
    }

    /// The engine's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
            Self::Other => "other",
        }
    }
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mounted {
    /// The volume's name; none for a folder of the host.
    pub(crate) volume: Option<String>,
    /// The path on the host.
    pub(crate) source: String,
    /// The path in the container.
    pub(crate) destination: String,
}

/// What only the inspection of a container tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Not asked for.
    NotAsked,
    /// Apart, so that what was not asked for takes no room.
    Known(Box<Outcome>),
    /// The engine did not tell; why.
    Unreadable(String),
}

/// How a container's last run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `None` where the engine does not say.
    pub(crate) exit_code: Option<i64>,
    /// Why the engine could not create or start it; empty if it could. `None` where the engine keeps no
    /// such text, as Podman: then only the runtime's record knows.
    pub(crate) error: Option<String>,
    /// RFC 3339; Go's zero time if it never started.
    pub(crate) started: String,
    /// Its own layer and the topmost one of its image, by the names of their folders. `None` where they
    /// cannot be told.
    pub(crate) layers: Option<Vec<String>>,
    /// The restart policy, empty if there is none.
    pub(crate) restart: String,
    /// The name of the runtime that it is for; empty where the engine does not say.
    pub(crate) runtime: String,
}

impl Outcome {
    /// Why the engine says that it failed.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.error.as_deref().filter(|error| !error.is_empty())
    }
}

/// An extension's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    /// As its creator named it.
    pub(crate) image: String,
    pub(crate) image_id: Arc<str>,
    pub(crate) phase: Phase,
    /// Shared by all containers of an image.
    pub(crate) labels: Arc<Labels>,
    pub(crate) mounts: Vec<Mounted>,
    pub(crate) detail: Detail,
}

impl Container {
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| mount.volume.as_deref())
    }
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    /// Its tags and then its digests, `repository@sha256:…`.
    pub(crate) names: Vec<String>,
    pub(crate) labels: Labels,
    pub(crate) bytes: Option<u64>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) bytes: Option<u64>,
}

/// Everything that a decision may depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) containers: Vec<Container>,
    pub(crate) images: Vec<Image>,
    pub(crate) volumes: Vec<Volume>,
    /// What containers that are no extensions use; theirs is never touched.
    pub(crate) foreign: Uses,
    /// The volumes of extensions whose `deactivate` must not run, by their names, and why not.
    pub(crate) shared: BTreeMap<String, String>,
    /// The image that another one was built on, by their ids.
    pub(crate) parents: BTreeMap<String, String>,
    /// Those that were built on another one and are no extensions.
    pub(crate) foreign_children: Vec<String>,
    /// Items of the engine's lists that make no sense, and why.
    pub(crate) unreadable: Vec<String>,
}

/// Images and volumes in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses {
    pub(crate) images: BTreeSet<Arc<str>>,
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
    state: Option<String>,
    #[serde(default)]
    labels: Labels,
    mounts: Option<Vec<ListedMount>>,
}

/// A mount in a list or an inspection.
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
    /// Whether it may be of any folder of the host.
    fn is_of_unknown_source(&self) -> bool {
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        match self.kind.as_deref() {
            Some("volume") => is_empty(&self.name) && is_empty(&self.source),
            Some("bind") | None => is_empty(&self.source),
            // A tmpfs, or another filesystem of its own.
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

/// Collects lists into an inventory. An item that makes no sense stops none of the others. Equal texts are
/// kept once: ten thousand containers come from a few images.
#[derive(Default)]
pub(crate) struct Collector {
    labels: HashSet<Arc<Labels>>,
    texts: HashSet<Arc<str>>,
    inventory: Inventory,
}

impl Collector {
    /// Takes a container in: an extension whole, of any other only what it uses.
    pub(crate) fn container(&mut self, item: &RawValue) {
        let Some(listed) = self.read::<ListedContainer>("container", item) else { return };
        let image_id = self.text(listed.image_id.unwrap_or_default());
        let is_extension = listed.labels.is_extension();
        let mut mounts = listed.mounts.iter().flatten();
        if !is_extension
            && (listed.mounts.is_none() || mounts.any(ListedMount::is_of_unknown_source))
        {
            let told = format!(
                "list the containers: the engine does not name the mounts of {}",
                listed.id
            );
            self.unreadable(&told);
        }
        let mounts = listed.mounts.unwrap_or_default();
        let mounts: Vec<Mounted> = mounts.into_iter().map(ListedMount::into_mounted).collect();
        let names = listed.names.unwrap_or_default();
        let name = names.first().map(|name| name.trim_start_matches('/')).unwrap_or_default();
        if !is_extension {
            let container = if name.is_empty() { &listed.id } else { name };
            let foreign = &mut self.inventory.foreign;
            foreign.images.insert(image_id);
            for Mounted { volume, source, .. } in mounts {
                foreign.volumes.extend(volume.clone());
                let container = container.to_owned();
                foreign.mounts.push(ForeignMount { container, volume, source });
            }
            return;
        }
        let phase = Phase::parse(listed.state.as_deref().unwrap_or_default());
        let container = Container {
            id: listed.id,
            name: name.to_owned(),
            image: listed.image.unwrap_or_default(),
            image_id,
            phase,
            labels: self.shared(listed.labels),
            mounts,
            detail: Detail::NotAsked,
        };
        self.inventory.containers.push(container);
    }

    /// Takes an image in.
    pub(crate) fn image(&mut self, item: &RawValue) {
        let Some(listed) = self.read::<ListedImage>("image", item) else { return };
        let inventory = &mut self.inventory;
        let parent = listed.parent_id.clone().filter(|parent| !parent.is_empty());
        if let Some(parent) = &parent {
            inventory.parents.insert(listed.id.clone(), parent.clone());
        }
        if listed.labels.is_extension() {
            inventory.images.push(listed.into_image());
        } else if parent.is_some() {
            inventory.foreign_children.push(listed.id);
        }
    }

    /// Takes the volumes of extensions in.
    pub(crate) fn volumes(&mut self, listed: &ListedVolumes) {
        for item in listed.volumes.iter().flatten() {
            let volume = self.read::<ListedVolume>("volume", item);
            self.inventory.volumes.extend(volume.and_then(ListedVolume::into_extension));
        }
    }

    /// What is left of a build goes with the image that it led to: it has no name, and is a parent.
    pub(crate) fn inventory(mut self) -> Inventory {
        let parents: BTreeSet<&str> = self.inventory.parents.values().map(String::as_str).collect();
        self.inventory
            .images
            .retain(|image| !image.names.is_empty() || !parents.contains(image.id.as_str()));
        self.inventory
    }

    /// Notes an item that makes no sense. A list may have millions of them, and the first say it all.
    fn unreadable(&mut self, told: &str) {
        const MOST: usize = 100;
        if self.inventory.unreadable.len() < MOST {
            self.inventory.unreadable.push(sentence(told));
        }
    }

    fn read<'a, T: Deserialize<'a>>(&mut self, what: &str, item: &'a RawValue) -> Option<T> {
        match serde_json::from_str(item.get()) {
            Ok(read) => Some(read),
            Err(error) => {
                let begin: String = item.get().chars().take(SHOWN).collect();
                let told = format!(
                    "list the {what}s: an item of the engine's answer is not what its API describes: \
                     {error}: {begin}"
                );
                self.unreadable(&told);
                None
            }
        }
    }

    fn text(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.texts.get(text.as_str()) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn shared(&mut self, labels: Labels) -> Arc<Labels> {
        if let Some(known) = self.labels.get(&labels) {
            return Arc::clone(known);
        }
        let labels = Arc::new(labels);
        self.labels.insert(Arc::clone(&labels));
        labels
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
    fn into_image(self) -> Image {
        let names = [self.repo_tags, self.repo_digests].into_iter().flatten().flatten();
        Image {
            id: self.id,
            names: names.filter(|name| !name.starts_with("<none>")).collect(),
            labels: self.labels,
            bytes: self.size.and_then(|size| u64::try_from(size).ok()),
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

impl ListedVolume {
    fn into_extension(self) -> Option<Volume> {
        self.labels.is_extension().then(|| Volume {
            // -1 where the engine does not know it.
            bytes: self.usage_data.and_then(|usage| u64::try_from(usage.size?).ok()),
            name: self.name,
            labels: self.labels,
        })
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
