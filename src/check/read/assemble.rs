//! Makes images of what one pass over an archive, or over a folder that holds a saved image, has found.

use crate::check::read::archive::{Archive, Error, IMAGES_MAX, Image, Pass, ReadLayer};
use crate::check::read::tar_stream::{self, Ended};
use crate::check::rules::image_documents::{
    self, Configuration, INDEX, Invalid, MANIFEST, Manifest,
};
use crate::check::rules::layer::{LayerFacts, Why};
use crate::check::rules::tree::{Tree, WEIGHT_MAX, split};
use crate::check::rules::unpack::{Unpacking, from_root};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many links are followed from the name of a layer to its bytes.
const LINKS_MAX: usize = 40;

/// Whether archives of images have layers of this name, whoever writes them.
fn is_usual_for_a_layer(name: &str) -> bool {
    let file = split(name).1;
    let beside =
        !name.contains('/') && [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end));
    beside || name.starts_with("blobs/") || file == "layer.tar" && name.matches('/').count() < 2
}

/// Whether an archive of images has a file of this name, beside or in place of a manifest.
fn is_of_images(name: &str) -> bool {
    let known = ["json", "VERSION", "layer.tar", "repositories", "oci-layout"];
    is_usual_for_a_layer(name) || known.contains(&split(name).1) || name.ends_with(".json")
}

impl Pass {
    /// Decides what it is.
    pub(super) fn finish(mut self, ended: &Ended) -> Result<Archive, Error> {
        match self.manifests() {
            Some(Ok(manifests)) => self.images(manifests).map(Archive::Images),
            Some(Err(error)) => Err(error),
            None => {
                let mut facts =
                    LayerFacts { may_be_cut_off: !ended.is_marked, ..Default::default() };
                let layer = facts.add(None, self.files.finish());
                let mut tree = Tree::default();
                tree.add_layer(layer)?;
                Ok(Archive::Export(tree, facts))
            }
        }
    }

    /// What the manifest lists; `None` if there is none, and nothing looks as if there should be one.
    pub(super) fn manifests(&self) -> Option<Result<Vec<Manifest>, Error>> {
        let looks_so = || {
            let is_layer = |name: &String| is_usual_for_a_layer(name);
            self.layers.iter().any(|(name, layer)| is_layer(name) && is_unpacked(layer))
                && self.files.paths().all(is_of_images)
        };
        let found =
            match self.documents.get(MANIFEST).map(|bytes| image_documents::manifests(bytes)) {
                None | Some(Err(Invalid::NoManifest)) if self.documents.contains_key(INDEX) => {
                    Some(image_documents::manifests_of_layout(&self.documents))
                }
                found => found,
            };
        match found {
            Some(Ok(manifests)) => Some(Ok(manifests)),
            // A container may have files of these names.
            Some(Err(Invalid::NoManifest)) if !looks_so() => None,
            Some(Err(error)) => Some(Err(error.into())),
            None if looks_so() => Some(Err(
                match [MANIFEST, INDEX].iter().find(|name| self.too_long.contains(**name)) {
                    Some(name) => Error::DocumentTooLong { name: (*name).to_owned() },
                    None => Error::NoManifest,
                },
            )),
            None => None,
        }
    }

    pub(super) fn images(&mut self, manifests: Vec<Manifest>) -> Result<Vec<Image>, Error> {
        if manifests.len() > IMAGES_MAX {
            return Err(Error::TooManyImages);
        }
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

    fn image(
        &mut self,
        manifest: Manifest,
        uses: &mut BTreeMap<String, usize>,
    ) -> Result<Image, Error> {
        let name = self.real_name(&manifest.config);
        let bytes = self.documents.get(&name).ok_or_else(|| self.missing(&manifest.config))?;
        let configuration = Configuration::parse(bytes, &manifest.config)?;
        let mut facts = LayerFacts::default();
        if manifest.is_by_digest && !is_named_by(&name, &Sha256::digest(bytes).into()) {
            let why = format!("the configuration {name} is not the one of its digest");
            facts.refuse(None, None, why);
        }
        if let Some(why) = configuration.refusal(manifest.layers.len()) {
            facts.refuse(None, None, why);
        }
        let mut tree = Tree::default();
        for (index, name) in manifest.layers.iter().enumerate() {
            let real = self.real_name(name);
            let read = self.take(&real, name, uses)?;
            if read.is_zstd {
                facts.zstd.push(name.clone());
            }
            let is_whole =
                !read.unpacked.faults.iter().any(|it| matches!(it.why, Why::Unreadable(_)));
            let diff_id = format!("sha256:{}", hex(&read.diff_id));
            let expected = configuration.diff_ids.get(index);
            if let Some(expected) = expected.filter(|expected| is_whole && **expected != diff_id) {
                let why = format!("it is {diff_id}, and the configuration names {expected} there");
                facts.refuse(Some(name), None, why);
            }
            if manifest.is_by_digest && is_whole && !is_named_by(&real, &read.digest) {
                facts.refuse(Some(name), None, "its bytes are not those of its digest".to_owned());
            }
            tree.add_layer(facts.add(Some(name), read.unpacked))?;
        }
        Ok(Image { name: manifest.name, configuration, tree, layers: facts })
    }

    /// The layer that was read as `real`. One that is not used again need not be there twice.
    fn take(
        &mut self,
        real: &str,
        name: &str,
        uses: &mut BTreeMap<String, usize>,
    ) -> Result<ReadLayer, Error> {
        let is_last = uses.get_mut(real).is_none_or(|left| {
            *left = left.saturating_sub(1);
            *left == 0
        });
        let layer = match self.layers.remove(real) {
            Some(Ok(layer)) => layer,
            Some(Err(source)) => return Err(Error::Layer { name: name.to_owned(), source }),
            None if self.empty.contains(real) => ReadLayer::empty(),
            None if self.files.has_file(real) => ReadLayer {
                unpacked: Unpacking::unreadable(tar_stream::Error::NotTar.to_string()),
                ..ReadLayer::empty()
            },
            None => return Err(self.missing(name)),
        };
        if !is_last {
            self.layers.insert(real.to_owned(), Ok(layer.clone()));
        }
        Ok(layer)
    }

    /// Why a part of an image cannot be had.
    fn missing(&self, name: &str) -> Error {
        let real = self.real_name(name);
        let name = name.to_owned();
        if self.files.has_file(&real) && !self.too_long.contains(&real) {
            Invalid::NotJson { name }.into()
        } else if self.too_long.contains(&real) {
            Error::DocumentTooLong { name }
        } else {
            Invalid::Missing { name }.into()
        }
    }
}

fn is_unpacked(layer: &Result<ReadLayer, tar_stream::Error>) -> bool {
    let unreadable = |layer: &ReadLayer| {
        layer.unpacked.faults.iter().any(|fault| matches!(fault.why, Why::Unreadable(_)))
    };
    layer.as_ref().is_ok_and(|layer| !unreadable(layer))
}

/// Whether a blob has the name that its hash gives it. Other hashes than sha256 are not compared.
fn is_named_by(name: &str, hash: &[u8; 32]) -> bool {
    let (folder, file) = split(name);
    folder.ends_with("sha512") || file == hex(hash)
}

fn hex(hash: &[u8; 32]) -> String {
    let mut text = String::new();
    for byte in hash {
        // A formatter into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
