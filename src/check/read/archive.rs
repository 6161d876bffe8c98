//! Reads an archive in one pass, from a file or from an engine: an image as `docker save`, its likes
//! or an OCI layout have it, or the files of a container as `docker export` has them. Which of them it
//! is, and what of it is a layer, shows at its end, where the manifest may be; so whatever looks like a
//! layer is unpacked as it comes by. `assemble.rs` makes images of that.

use crate::check::read::tar_stream::{self, Budget, Compression, Ended, Item, each_entry};
use crate::check::read::{ENTRIES_MAX, Names, WHOLE_MAX, pieces, probe, read_head};
use crate::check::rules::content::HEAD_LEN;
use crate::check::rules::image_documents::{self, Configuration};
use crate::check::rules::layer::{LayerFacts, Member, Unpacked, What, Why};
use crate::check::rules::tree::{Content, TooMuch, Tree, WEIGHT_MAX, join, split};
use crate::check::rules::unpack::{Unpacking, from_root};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// The longest document that is kept, and how much all of them may take.
pub(super) const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;
const DOCUMENTS_MAX: u64 = 64 * 1024 * 1024;
/// How many images one archive may have. What they have together is bounded by its weight: a manifest
/// of a few bytes may name the same large layer any number of times.
pub(super) const IMAGES_MAX: usize = 256;

/// What an archive holds.
#[derive(Debug)]
pub(crate) enum Archive {
    Images(Vec<Image>),
    /// The files of a container.
    Export(Tree, LayerFacts),
}

/// One image of an archive, its layers put on top of each other.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) name: Option<String>,
    pub(crate) configuration: Configuration,
    pub(crate) tree: Tree,
    pub(crate) layers: LayerFacts,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Stream(#[from] tar_stream::Error),
    #[error("its layer {name}")]
    Layer { name: String, source: tar_stream::Error },
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
    TooMuch(#[from] TooMuch),
    #[error(transparent)]
    Invalid(#[from] image_documents::Invalid),
}

/// A layer that was met on the way.
#[derive(Clone, Debug)]
pub(super) struct ReadLayer {
    pub(super) unpacked: Unpacked,
    /// Of its bytes as they are without compression.
    pub(super) diff_id: [u8; 32],
    /// Of its bytes as they are in the archive.
    pub(super) digest: [u8; 32],
    pub(super) is_zstd: bool,
}

impl ReadLayer {
    /// One of no bytes at all.
    pub(super) fn empty() -> Self {
        let hash: [u8; 32] = Sha256::digest([]).into();
        Self { unpacked: Unpacked::default(), diff_id: hash, digest: hash, is_zstd: false }
    }
}

/// Everything that was met on the way, by its path without a leading slash.
#[derive(Default)]
pub(super) struct Pass {
    /// All that is in the archive, as if it were an export.
    pub(super) files: Unpacking,
    pub(super) layers: BTreeMap<String, Result<ReadLayer, tar_stream::Error>>,
    pub(super) documents: BTreeMap<String, Vec<u8>>,
    /// Files of no bytes, which may be layers as well.
    pub(super) empty: BTreeSet<String>,
    /// Names of what may be documents, but for their length.
    pub(super) too_long: BTreeSet<String>,
    /// `docker save` writes a layer that two images share once, and links to it.
    pub(super) links: BTreeMap<String, String>,
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
    let ended = each_entry(&mut reader, &budget, &mut |item| pass.take_in(item, &budget))?;
    if ended.len == 0 {
        return Err(tar_stream::Error::NotTar.into());
    }
    pass.finish(&ended)
}

/// Hashes what is read.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..len).unwrap_or_default());
        Ok(len)
    }
}

fn may_be_document(head: &[u8]) -> bool {
    let json = head.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(json, Some(b'{' | b'['))
}

impl Pass {
    fn take_in(&mut self, item: Item<'_>, budget: &Budget) -> Result<(), Error> {
        self.count(self.files.weight())?;
        let Item { mut member, size, content } = item;
        let name = from_root(&member.name);
        match &mut member.what {
            What::File(found) => *found = self.file(&name, size, content, budget)?,
            What::Link { target } => self.link(&name, target),
            What::HardLink { target } => {
                self.links.insert(name, from_root(target));
            }
            What::Folder
            | What::Device { .. }
            | What::Fifo
            | What::Global
            | What::Unknown { .. } => {}
        }
        self.files.add(member);
        Ok(())
    }

    /// Keeps a link beside the layers.
    pub(super) fn link(&mut self, name: &str, target: &str) {
        let target = match target.starts_with('/') {
            true => from_root(target),
            false => from_root(&join(split(name).0, target)),
        };
        self.links.insert(name.to_owned(), target);
    }

    /// Looks at one file of a folder that is not an archive, so that nobody counts what is read of it.
    pub(super) fn file_beside(
        &mut self,
        name: &str,
        size: u64,
        file: &mut dyn Read,
        budget: &Budget,
    ) -> Result<(), Error> {
        let mut counted = budget.counted(file);
        let content = self.file(name, size, &mut counted, budget)?;
        let name = name.to_owned();
        let what = What::File(content);
        self.files.add(Member { name, what, mode: 0o644, uid: 0, gid: 0, attributes: Vec::new() });
        Ok(())
    }

    /// Looks at one file of the archive, whose name need not say what it is.
    fn file(
        &mut self,
        name: &str,
        size: u64,
        content: &mut dyn Read,
        budget: &Budget,
    ) -> Result<Content, Error> {
        let head = read_head(content, HEAD_LEN).map_err(tar_stream::Error::Read)?;
        if size == 0 {
            self.empty.insert(name.to_owned());
        }
        if may_be_document(&head) {
            let bytes = self.document(name, size, &head, content)?;
            let mut whole = bytes.chain(content);
            return Ok(probe(name, size, Names::Any, &mut whole).map_err(tar_stream::Error::Read)?);
        }
        if tar_stream::may_be_archive(&head) {
            return self.layer(name, size, &head, content, budget);
        }
        let mut whole = head.chain(content);
        Ok(probe(name, size, Names::Any, &mut whole).map_err(tar_stream::Error::Read)?)
    }

    /// `weight` is that of the layer that is being read.
    pub(super) fn count(&mut self, weight: usize) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(Error::TooMany);
        }
        if self.weight.saturating_add(weight) > WEIGHT_MAX { Err(TooMuch.into()) } else { Ok(()) }
    }

    /// Keeps a document. Returns as much of it as was read.
    fn document<'a>(
        &mut self,
        name: &str,
        size: u64,
        head: &'a [u8],
        content: &mut dyn Read,
    ) -> Result<std::borrow::Cow<'a, [u8]>, Error> {
        let all = self.document_len + size;
        if size > DOCUMENT_MAX || all > DOCUMENTS_MAX {
            self.too_long.insert(name.to_owned());
            return Ok(head.into());
        }
        let mut bytes = head.to_vec();
        let mut rest = content.take(DOCUMENT_MAX);
        rest.read_to_end(&mut bytes).map_err(tar_stream::Error::Read)?;
        self.document_len = all;
        self.documents.insert(name.to_owned(), bytes.clone());
        Ok(bytes.into())
    }

    /// Unpacks what may be a layer. If it is none, that matters only if a manifest names it.
    fn layer(
        &mut self,
        name: &str,
        size: u64,
        head: &[u8],
        content: &mut dyn Read,
        budget: &Budget,
    ) -> Result<Content, Error> {
        let mut unpacking = Unpacking::default();
        let mut reader = Hashed { inner: head.chain(content), hash: Sha256::new() };
        let read = each_entry(&mut reader, budget, &mut |mut item| {
            self.count(unpacking.weight())?;
            if let What::File(found) = &mut item.member.what {
                let path = from_root(&item.member.name);
                *found = probe(&path, item.size, Names::Any, &mut item.content)
                    .map_err(tar_stream::Error::Read)?;
            }
            unpacking.add(item.member);
            Ok(())
        });
        pieces(&mut reader, &mut |_| ()).map_err(tar_stream::Error::Read)?;
        let digest = reader.hash.finalize().into();
        self.weight += unpacking.weight();
        let read = match read {
            Ok(Ended { sha256, compression, .. }) => Ok((sha256, compression)),
            // It is known of it that no engine unpacks it.
            Err(Error::Stream(error)) if error.is_damage() => {
                let why = crate::model::text::cause::chain(&error);
                unpacking.fault("", Why::Unreadable(why));
                Ok(([0; 32], Compression::None))
            }
            Err(Error::Stream(error)) => Err(error),
            Err(error) => return Err(error),
        };
        let layer = read.map(|(diff_id, compression)| ReadLayer {
            unpacked: unpacking.finish(),
            diff_id,
            digest,
            is_zstd: compression == Compression::Zstd,
        });
        self.layers.insert(name.to_owned(), layer);
        // As what it is in an export, it is known by its first bytes and its hash.
        let sha256 = (size <= WHOLE_MAX).then_some(digest);
        Ok(Content { size, sha256, ..Content::of_head(head) })
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Stream(..), Layer { name, source }, TooMany, DocumentTooLong { name }, TooManyImages,
        TooMuchTogether, NoManifest, TooMuch(..), Invalid(..),
    }
}
