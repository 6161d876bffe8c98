//! Reads an archive in one pass, from a file or from an engine: an image as `docker save`, its likes
//! or an OCI layout have it, or the files of a container as `docker export` has them. Which of them it
//! is shows at its end, where the manifest may be; so every layer is listed as it comes by.

use crate::host::image::stream::{self, Budget, Item, What, each_entry};
use crate::host::image::{ENTRIES_MAX, Names, probe, read_head};
use crate::model::check::content::HEAD_LEN;
use crate::model::check::tree::{
    Content, Kind, Layer, Outside, TooMuch, Tree, WEIGHT_MAX, join, normal, split,
};
use crate::model::image::{self, Configuration, INDEX, MANIFEST, Manifest};
use std::collections::BTreeMap;
use std::io::Read;

/// The longest document that is kept, and how much all of them may take.
const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;
const DOCUMENTS_MAX: u64 = 64 * 1024 * 1024;
/// How many images one archive may have. What they have together is bounded by its weight: a manifest
/// of a few bytes may name the same large layer any number of times.
const IMAGES_MAX: usize = 256;

/// What an archive holds.
#[derive(Debug)]
pub(crate) enum Archive {
    Images(Vec<Image>),
    /// The files of a container.
    Export(Tree),
}

/// One image of an archive, its layers put on top of each other.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) name: Option<String>,
    pub(crate) configuration: Configuration,
    pub(crate) tree: Tree,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Stream(#[from] stream::Error),
    #[error("its layer {name}")]
    Layer { name: String, source: stream::Error },
    #[error("it has more than {ENTRIES_MAX} files: is it an extension?")]
    TooMany,
    #[error("its document {name} is too long ({DOCUMENT_MAX} bytes is the most)")]
    DocumentTooLong { name: String },
    #[error("it has more than {IMAGES_MAX} images: check some at a time")]
    TooManyImages,
    #[error("its images have too many files together: check some at a time")]
    TooMuchTogether,
    #[error("it has layers but no manifest: it is not complete")]
    NoManifest,
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    #[error(transparent)]
    Invalid(#[from] image::Invalid),
}

/// Everything that was met on the way.
#[derive(Default)]
struct Pass {
    /// All that is in the archive, as if it were an export.
    files: Layer,
    layers: BTreeMap<String, Result<Layer, stream::Error>>,
    documents: BTreeMap<String, Vec<u8>>,
    /// Names of what may be documents, but for their length.
    too_long: Vec<String>,
    /// `docker save` writes a layer that two images share once, and links to it.
    links: BTreeMap<String, String>,
    entries: usize,
    /// Of the layers that are read.
    weight: usize,
    document_len: u64,
}

/// Reads an archive to its end.
///
/// # Errors
/// What is wrong with it; nothing of it is used then.
pub(crate) fn read(mut reader: impl Read) -> Result<Archive, Error> {
    let budget = Budget::new();
    let mut pass = Pass::default();
    each_entry(&mut reader, &budget, &mut |item| pass.take_in(item, &budget))?;
    pass.finish()
}

/// What a file of the archive is by its name: names in archives of images are few.
fn may_be_document(name: &str, head: &[u8]) -> bool {
    let here = !name.contains('/');
    let json = head.iter().find(|byte| !byte.is_ascii_whitespace());
    (here || name.starts_with("blobs/")) && matches!(json, Some(b'{' | b'['))
}

fn may_be_layer(name: &str) -> bool {
    let file = split(name).1;
    let beside =
        !name.contains('/') && [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end));
    beside || name.starts_with("blobs/") || file == "layer.tar" && name.matches('/').count() < 2
}

/// Whether an archive of images has a file of this name, beside or in place of a manifest.
fn is_of_images(name: &str) -> bool {
    let known = ["json", "VERSION", "layer.tar", "repositories", "oci-layout"];
    may_be_layer(name) || known.contains(&split(name).1) || name.ends_with(".json")
}

impl Pass {
    fn take_in(&mut self, mut item: Item<'_>, budget: &Budget) -> Result<(), Error> {
        self.count(self.files.weight())?;
        let name = item.path.trim_start_matches("./").to_owned();
        match &item.what {
            What::Entry(Kind::File(_)) => {}
            What::Entry(Kind::Link { target }) => {
                self.links.insert(name, target.clone());
                return add(&mut self.files, item);
            }
            What::Entry(_) | What::OpaqueFolder | What::HardLink { .. } | What::Whiteout => {
                return add(&mut self.files, item);
            }
        }
        let head = read_head(&mut item.content, HEAD_LEN).map_err(stream::Error::Read)?;
        if may_be_document(&name, &head) {
            let bytes = self.document(name, &head, &mut item)?;
            return add_file(&mut self.files, item, &bytes);
        }
        if may_be_layer(&name) {
            self.layer(name, &head, &mut item, budget)?;
            // Its bytes have gone by: it is known by the first of them alone.
            let content = Content { size: item.size, ..Content::of_head(&head) };
            self.files.add(&item.path, item.entry(Kind::File(content)))?;
            return Ok(());
        }
        add_file(&mut self.files, item, &head)
    }

    /// `weight` is that of the layer that is being read.
    fn count(&mut self, weight: usize) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(Error::TooMany);
        }
        if self.weight + weight > WEIGHT_MAX { Err(TooMuch.into()) } else { Ok(()) }
    }

    /// Keeps a document. Returns as much of it as was read.
    fn document(
        &mut self,
        name: String,
        head: &[u8],
        item: &mut Item<'_>,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut most = head.chain(&mut *item.content).take(DOCUMENT_MAX);
        most.read_to_end(&mut bytes).map_err(stream::Error::Read)?;
        let all = self.document_len + item.size;
        if item.size > DOCUMENT_MAX || all > DOCUMENTS_MAX {
            self.too_long.push(name);
            return Ok(bytes);
        }
        self.document_len = all;
        self.documents.insert(name, bytes.clone());
        Ok(bytes)
    }

    /// Reads a layer. If it is none, that matters only if a manifest names it.
    fn layer(
        &mut self,
        name: String,
        head: &[u8],
        item: &mut Item<'_>,
        budget: &Budget,
    ) -> Result<(), Error> {
        let mut layer = Layer::default();
        let mut reader = head.chain(&mut *item.content);
        let read = each_entry(&mut reader, budget, &mut |item| {
            self.count(layer.weight())?;
            add(&mut layer, item)
        });
        let layer = match read {
            Ok(()) => Ok(layer),
            Err(Error::Stream(error)) => Err(error),
            Err(error) => return Err(error),
        };
        self.weight += layer.as_ref().map(Layer::weight).unwrap_or_default();
        self.layers.insert(name, layer);
        Ok(())
    }

    fn finish(mut self) -> Result<Archive, Error> {
        let has_layers = self.layers.values().any(Result::is_ok);
        let manifests = if let Some(bytes) = self.documents.get(MANIFEST) {
            image::manifests(bytes)
        } else if self.documents.contains_key(INDEX) {
            image::manifests_of_layout(&self.documents)
        } else if has_layers && self.files.paths().all(is_of_images) {
            return Err(
                match self.too_long.iter().find(|name| *name == MANIFEST || *name == INDEX) {
                    Some(name) => Error::DocumentTooLong { name: name.clone() },
                    None => Error::NoManifest,
                },
            );
        } else {
            return self.export();
        };
        match manifests {
            Ok(manifests) => self.images(manifests).map(Archive::Images),
            // A container may have a file of this name, and no layers.
            Err(_) if !has_layers => self.export(),
            Err(error) => Err(error.into()),
        }
    }

    fn export(self) -> Result<Archive, Error> {
        let mut tree = Tree::default();
        tree.add_layer(self.files)?;
        Ok(Archive::Export(tree))
    }

    fn images(&mut self, manifests: Vec<Manifest>) -> Result<Vec<Image>, Error> {
        if manifests.len() > IMAGES_MAX {
            return Err(Error::TooManyImages);
        }
        self.files = Layer::default();
        let mut uses: BTreeMap<String, usize> = BTreeMap::new();
        for name in manifests.iter().flat_map(|manifest| &manifest.layers) {
            *uses.entry(self.real_name(name)).or_default() += 1;
        }
        let mut images = Vec::new();
        let mut weight = 0;
        for manifest in manifests {
            let image = self.image(manifest, &mut uses)?;
            weight += image.tree.weight();
            if weight > WEIGHT_MAX {
                return Err(Error::TooMuchTogether);
            }
            images.push(image);
        }
        Ok(images)
    }

    /// The name under which a layer was read.
    fn real_name(&self, name: &str) -> String {
        let target = self.links.get(name).and_then(|target| linked(name, target));
        target.unwrap_or_else(|| name.to_owned())
    }

    fn image(
        &mut self,
        manifest: Manifest,
        uses: &mut BTreeMap<String, usize>,
    ) -> Result<Image, Error> {
        let name = &manifest.config;
        let bytes = self.documents.get(name).ok_or_else(|| self.missing(name))?;
        let configuration = Configuration::parse(bytes, name)?;
        let mut tree = Tree::default();
        for name in &manifest.layers {
            let real = self.real_name(name);
            let last = uses.get_mut(&real).is_none_or(|left| {
                *left = left.saturating_sub(1);
                *left == 0
            });
            // A layer that is not used again need not be there twice.
            let layer = match self.layers.remove(&real) {
                Some(Ok(layer)) => layer,
                Some(Err(source)) => return Err(Error::Layer { name: name.clone(), source }),
                None => return Err(self.missing(name)),
            };
            if !last {
                self.layers.insert(real, Ok(layer.clone()));
            }
            tree.add_layer(layer)?;
        }
        Ok(Image { name: manifest.name, configuration, tree })
    }

    /// Why a part of an image cannot be had.
    fn missing(&self, name: &str) -> Error {
        let name = name.to_owned();
        if self.too_long.contains(&name) {
            Error::DocumentTooLong { name }
        } else {
            image::Invalid::Missing { name }.into()
        }
    }
}

/// Where a link beside the layers leads.
fn linked(name: &str, target: &str) -> Option<String> {
    let mut path = split(name).0.to_owned();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if path.is_empty() => return None,
            ".." => path = split(&path).0.to_owned(),
            part => path = join(&path, part),
        }
    }
    Some(path)
}

/// Adds an entry of an archive to a layer.
fn add(layer: &mut Layer, mut item: Item<'_>) -> Result<(), Error> {
    match std::mem::replace(&mut item.what, What::OpaqueFolder) {
        What::Entry(Kind::File(_)) => return add_file(layer, item, &[]),
        What::Entry(kind) => layer.add(&item.path, item.entry(kind))?,
        What::OpaqueFolder => {
            layer.add_opaque(&item.path)?;
            layer.add(&item.path, item.entry(Kind::Folder))?;
        }
        What::HardLink { target } => layer.add_hard_link(&item.path, &target)?,
        What::Whiteout => layer.add_overlay_whiteout(&item.path)?,
    }
    Ok(())
}

/// Adds a file, of which `head` was read already.
fn add_file(layer: &mut Layer, mut item: Item<'_>, head: &[u8]) -> Result<(), Error> {
    let path = normal(&item.path)?;
    let content = probe(&path, item.size, Names::Any, &mut head.chain(&mut item.content));
    let content = content.map_err(stream::Error::Read)?;
    layer.add(&item.path, item.entry(Kind::File(content)))?;
    Ok(())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
