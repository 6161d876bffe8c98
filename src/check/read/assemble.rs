//! Builds images from the layers and documents that were found in an archive, or in a directory that
//! holds a saved image.

use crate::check::read::archive::{ArchiveError, IMAGES_MAX, Pass, ReadLayer};
use crate::check::read::tar_stream::{ArchiveEnd, TarError};
use crate::check::rules::image_documents::{
    self, Configuration, INDEX, InvalidDocument, MANIFEST, Manifest,
};
use crate::check::rules::layer::LayerFacts;
use crate::check::rules::tree::{FileTree, TooMuch, WEIGHT_MAX, split};
use crate::check::rules::unpack::{Unpacking, from_root};
use crate::check::rules::{InputKind, Subject};
use crate::model::text::hex::hex;
use sha2::{Digest as _, Sha256};

/// The most links that are followed from the name of a layer to its bytes.
const LINKS_MAX: usize = 40;

/// Whether archives of images usually have layers of this name.
fn is_usual_for_a_layer(name: &str) -> bool {
    let file = split(name).1;
    let is_beside =
        !name.contains('/') && [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end));
    is_beside || name.starts_with("blobs/") || file == "layer.tar" && name.matches('/').count() < 2
}

/// Whether archives of images usually have a file of this name.
fn is_usual_for_an_image(name: &str) -> bool {
    let known = ["json", "VERSION", "layer.tar", "repositories", "oci-layout"];
    is_usual_for_a_layer(name) || known.contains(&split(name).1) || name.ends_with(".json")
}

impl Pass {
    /// Decides what the archive is.
    pub(super) fn finish(mut self, end: &ArchiveEnd) -> Result<Vec<Subject>, ArchiveError> {
        if let Some(manifests) = self.manifests() {
            return self.images(manifests?);
        }
        let mut layers = LayerFacts { may_be_cut_off: !end.is_marked, ..Default::default() };
        let mut tree = FileTree::default();
        tree.add_layer(layers.add(None, self.files.finish()));
        Ok(vec![Subject { input: InputKind::Export, tree, layers, ..Subject::default() }])
    }

    /// Reads the manifest. `None` if there is none and the archive does not look like an image either.
    pub(super) fn manifests(&self) -> Option<Result<Vec<Manifest>, ArchiveError>> {
        let looks_like_an_image = || {
            let is_layer = |(name, layer): (&String, &Result<ReadLayer, TarError>)| {
                is_usual_for_a_layer(name)
                    && layer.as_ref().is_ok_and(|layer| !layer.unpacked.is_unreadable())
            };
            self.layers.iter().any(is_layer) && self.files.paths().all(is_usual_for_an_image)
        };
        let has_index = self.documents.contains_key(INDEX);
        let listed = self.documents.get(MANIFEST).map(|bytes| image_documents::manifests(bytes));
        let found = match listed {
            None | Some(Err(InvalidDocument::NoManifest)) if has_index => {
                Some(image_documents::manifests_of_layout(&self.documents))
            }
            found => found,
        };
        match found {
            // A container may have files of these names.
            None | Some(Err(InvalidDocument::NoManifest)) if !looks_like_an_image() => None,
            Some(found) => Some(found.map_err(ArchiveError::from)),
            None => {
                let long = [MANIFEST, INDEX].into_iter().find(|name| self.too_long.contains(*name));
                let too_long = |name: &str| ArchiveError::DocumentTooLong { name: name.to_owned() };
                Some(Err(long.map_or(ArchiveError::NoManifest, too_long)))
            }
        }
    }

    pub(super) fn images(
        &mut self,
        manifests: Vec<Manifest>,
    ) -> Result<Vec<Subject>, ArchiveError> {
        if manifests.len() > IMAGES_MAX {
            return Err(ArchiveError::TooManyImages);
        }
        // A manifest of a few bytes can name the same large layer any number of times.
        let mut weight = 0;
        manifests.into_iter().map(|manifest| self.image(manifest, &mut weight)).collect()
    }

    /// The name under which a part was read.
    fn real_name(&self, name: &str) -> String {
        let mut real = from_root(name);
        for _ in 0..LINKS_MAX {
            match self.links.get(&real) {
                Some(target) => real.clone_from(target),
                None => break,
            }
        }
        real
    }

    fn image(&mut self, manifest: Manifest, weight: &mut usize) -> Result<Subject, ArchiveError> {
        let name = self.real_name(&manifest.config);
        let bytes = self.documents.get(&name).ok_or_else(|| self.missing(&manifest.config))?;
        let mut configuration = Configuration::parse(bytes, &manifest.config)?;
        let mut facts = LayerFacts::default();
        if manifest.is_by_digest && !is_named_by(&name, &Sha256::digest(bytes).into()) {
            let why = format!("the configuration {name} does not have the hash that names it");
            facts.refuse(None, None, why);
        }
        if let Some(why) = configuration.refusal(manifest.layers.len()) {
            facts.refuse(None, None, why);
        }
        let mut tree = FileTree::default();
        for (index, name) in manifest.layers.iter().enumerate() {
            let real = self.real_name(name);
            let read = self.take(&real, name)?;
            *weight = weight.saturating_add(read.unpacked.layer.weight);
            if *weight > WEIGHT_MAX {
                return Err(TooMuch.into());
            }
            if read.is_zstd {
                facts.zstd.push(name.clone());
            }
            let is_whole = !read.unpacked.is_unreadable();
            let diff_id = format!("sha256:{}", hex(&read.diff_id));
            let expected = configuration.diff_ids.get(index);
            if let Some(expected) = expected.filter(|expected| is_whole && **expected != diff_id) {
                let why = format!("it is {diff_id}, but the configuration names {expected} there");
                facts.refuse(Some(name), None, why);
            }
            if manifest.is_by_digest && is_whole && !is_named_by(&real, &read.digest) {
                let why = "it does not have the hash that names it".to_owned();
                facts.refuse(Some(name), None, why);
            }
            tree.add_layer(facts.add(Some(name), read.unpacked));
        }
        Ok(Subject {
            name: manifest.name.unwrap_or_default(),
            input: InputKind::Image,
            tree,
            layers: facts,
            labels: Some(std::mem::take(&mut configuration.labels)),
            image: Some(configuration),
            ..Subject::default()
        })
    }

    /// The layer `name`, which was read as `real`.
    fn take(&mut self, real: &str, name: &str) -> Result<ReadLayer, ArchiveError> {
        let layer = match self.layers.remove(real) {
            Some(Ok(layer)) => layer,
            Some(Err(source)) => return Err(ArchiveError::Layer { name: name.to_owned(), source }),
            None if self.empty.contains(real) => ReadLayer::empty(),
            None if self.files.has_file(real) => ReadLayer {
                unpacked: Unpacking::unreadable(TarError::NotTar.to_string()),
                ..ReadLayer::empty()
            },
            None => return Err(self.missing(name)),
        };
        // Another image may have it too.
        self.layers.insert(real.to_owned(), Ok(layer.clone()));
        Ok(layer)
    }

    /// Why the part `name` of an image is not available.
    fn missing(&self, name: &str) -> ArchiveError {
        let real = self.real_name(name);
        let name = name.to_owned();
        if self.too_long.contains(&real) {
            ArchiveError::DocumentTooLong { name }
        } else if self.files.has_file(&real) {
            InvalidDocument::NotJson { name }.into()
        } else {
            InvalidDocument::Missing { name }.into()
        }
    }
}

/// Whether the name of a blob is its hash. Hashes other than sha256 are not compared.
fn is_named_by(name: &str, hash: &[u8; 32]) -> bool {
    let (directory, file) = split(name);
    directory.ends_with("sha512") || file == hex(hash)
}
