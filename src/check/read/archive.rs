//! Reads an archive in one pass, from a file or from an engine. It may be an image as `docker save` and similar
//! commands write it, an OCI layout, or the files of a container as `docker export` writes them. That is known only
//! at the end, where the manifest may be, so everything that looks like a layer is unpacked on the way.
//! `assemble.rs` builds the images from that.

use crate::check::read::tar_stream::{
    self, ArchiveEnd, Compression, TarEntry, TarError, each_entry,
};
use crate::check::read::{
    Budget, ENTRIES_MAX, Hashed, Names, WHOLE_MAX, probe, read_head, skip_to_end,
};
use crate::check::rules::Subject;
use crate::check::rules::content::HEAD_LEN;
use crate::check::rules::image_documents;
use crate::check::rules::layer::{FaultKind, Member, MemberKind, Unpacked};
use crate::check::rules::tree::{Content, TooMuch, WEIGHT_MAX, join, split};
use crate::check::rules::unpack::{Unpacking, from_root};
use crate::model::text::cause::chain;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// The longest JSON document, and the most bytes that all documents may have.
pub(super) const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;
const DOCUMENTS_MAX: u64 = 64 * 1024 * 1024;
pub(super) const IMAGES_MAX: usize = 256;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error(transparent)]
    Stream(#[from] TarError),
    #[error("cannot read the layer {name}")]
    Layer { name: String, source: TarError },
    #[error("more than {ENTRIES_MAX} files: is it an extension?")]
    TooMany,
    #[error("the document {name} is longer than {DOCUMENT_MAX} bytes")]
    DocumentTooLong { name: String },
    #[error("more than {IMAGES_MAX} images: save fewer at a time")]
    TooManyImages,
    #[error("the archive has layers but no manifest: it is incomplete")]
    NoManifest,
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    #[error(transparent)]
    Invalid(#[from] image_documents::InvalidDocument),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self::Stream(error.into())
    }
}

/// A layer, before it is known which image it belongs to.
#[derive(Clone, Debug)]
pub(super) struct ReadLayer {
    pub(super) unpacked: Unpacked,
    /// The hash of its bytes without compression.
    pub(super) diff_id: [u8; 32],
    /// The hash of its bytes as they are in the archive.
    pub(super) digest: [u8; 32],
    pub(super) is_zstd: bool,
}

impl ReadLayer {
    /// A layer of no bytes.
    pub(super) fn empty() -> Self {
        let hash: [u8; 32] = Sha256::digest([]).into();
        Self { unpacked: Unpacked::default(), diff_id: hash, digest: hash, is_zstd: false }
    }
}

/// Everything that was found in an archive, by its path without a leading slash.
#[derive(Default)]
pub(super) struct Pass {
    /// All entries, unpacked as if the archive were an export.
    pub(super) files: Unpacking,
    pub(super) layers: BTreeMap<String, Result<ReadLayer, TarError>>,
    pub(super) documents: BTreeMap<String, Vec<u8>>,
    /// Files of no bytes, which may be layers as well.
    pub(super) empty: BTreeSet<String>,
    /// Files that may be documents, but are too long.
    pub(super) too_long: BTreeSet<String>,
    /// `docker save` writes a layer that two images share once, and a link to it.
    pub(super) links: BTreeMap<String, String>,
    budget: Budget,
    entries: usize,
    /// The memory of the unpacked layers, about.
    weight: usize,
    document_len: u64,
}

/// Reads an archive to its end: the images in it, or the one export that it is.
pub(crate) fn read(mut reader: impl Read) -> Result<Vec<Subject>, ArchiveError> {
    let mut pass = Pass::default();
    let budget = pass.budget.clone();
    let end = each_entry(&mut reader, &budget, &mut |entry| pass.take_in(entry))?;
    if end.is_empty {
        return Err(TarError::NotTar.into());
    }
    pass.finish(&end)
}

fn may_be_document(head: &[u8]) -> bool {
    matches!(head.trim_ascii_start(), [b'{' | b'[', ..])
}

impl Pass {
    fn take_in(&mut self, entry: TarEntry<'_>) -> Result<(), ArchiveError> {
        self.count(self.files.weight())?;
        let TarEntry { mut member, size, content } = entry;
        let name = from_root(&member.name);
        if let MemberKind::File(found) = &mut member.kind {
            *found = self.read_file(&name, size, content)?;
        } else if let MemberKind::Link { target } = &member.kind {
            self.add_link(&name, target);
        } else if let MemberKind::HardLink { target } = &member.kind {
            self.links.insert(name, from_root(target));
        }
        self.files.add(member);
        Ok(())
    }

    pub(super) fn add_link(&mut self, name: &str, target: &str) {
        let target = match target.starts_with('/') {
            true => from_root(target),
            false => from_root(&join(split(name).0, target)),
        };
        self.links.insert(name.to_owned(), target);
    }

    /// Reads a file of a directory that holds a saved image.
    pub(super) fn add_file(
        &mut self,
        name: &str,
        size: u64,
        file: impl Read,
    ) -> Result<(), ArchiveError> {
        let content = self.read_file(name, size, &mut self.budget.counted(file))?;
        let (name, kind) = (name.to_owned(), MemberKind::File(content));
        self.files.add(Member { name, kind, mode: 0o644, uid: 0, gid: 0, attributes: Vec::new() });
        Ok(())
    }

    /// Reads a file. Its name need not say whether it is a layer or a document.
    fn read_file(
        &mut self,
        name: &str,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<Content, ArchiveError> {
        let head = read_head(content, HEAD_LEN)?;
        if size == 0 {
            self.empty.insert(name.to_owned());
        }
        let read = if may_be_document(&head) {
            self.read_document(name, size, &head, content)?
        } else if tar_stream::may_be_archive(&head) {
            return self.read_layer(name, size, &head, content);
        } else {
            head.as_slice().into()
        };
        let mut whole = read.chain(content);
        Ok(probe(name, size, Names::Any, &mut whole)?)
    }

    /// Counts an entry. `weight` is that of the layer that is being unpacked.
    pub(super) fn count(&mut self, weight: usize) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(ArchiveError::TooMany);
        }
        if self.weight.saturating_add(weight) > WEIGHT_MAX { Err(TooMuch.into()) } else { Ok(()) }
    }

    /// Keeps a document. Returns the bytes that were read.
    fn read_document<'a>(
        &mut self,
        name: &str,
        size: u64,
        head: &'a [u8],
        content: &mut dyn Read,
    ) -> Result<Cow<'a, [u8]>, ArchiveError> {
        let all = self.document_len + size;
        if size > DOCUMENT_MAX || all > DOCUMENTS_MAX {
            self.too_long.insert(name.to_owned());
            return Ok(head.into());
        }
        let mut bytes = head.to_vec();
        content.take(DOCUMENT_MAX).read_to_end(&mut bytes)?;
        self.document_len = all;
        self.documents.insert(name.to_owned(), bytes.clone());
        Ok(bytes.into())
    }

    /// Unpacks a file that may be a layer. A failure matters only if a manifest names the file.
    fn read_layer(
        &mut self,
        name: &str,
        size: u64,
        head: &[u8],
        content: &mut dyn Read,
    ) -> Result<Content, ArchiveError> {
        let budget = self.budget.clone();
        let mut unpacking = Unpacking::default();
        let mut reader = Hashed::new(head.chain(content));
        let read = each_entry(&mut reader, &budget, &mut |mut entry| {
            self.count(unpacking.weight())?;
            if let MemberKind::File(found) = &mut entry.member.kind {
                let path = from_root(&entry.member.name);
                *found = probe(&path, entry.size, Names::Any, &mut entry.content)?;
            }
            unpacking.add(entry.member);
            Ok(())
        });
        skip_to_end(&mut reader)?;
        let digest = reader.hash.finalize().into();
        self.weight += unpacking.weight();
        let read = match read {
            Ok(ArchiveEnd { sha256, compression, .. }) => Ok((sha256, compression)),
            Err(ArchiveError::Stream(error)) if error.is_damage() => {
                unpacking.add_fault("", FaultKind::Unreadable(chain(&error)));
                Ok(([0; 32], Compression::None))
            }
            Err(ArchiveError::Stream(error)) => Err(error),
            Err(error) => return Err(error),
        };
        let layer = read.map(|(diff_id, compression)| ReadLayer {
            unpacked: unpacking.finish(),
            diff_id,
            digest,
            is_zstd: compression == Compression::Zstd,
        });
        self.layers.insert(name.to_owned(), layer);
        // In an export, the same file is an ordinary one.
        let sha256 = (size <= WHOLE_MAX).then_some(digest);
        Ok(Content { size, sha256, ..Content::of_head(head) })
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    enum ArchiveError {
        Stream(..), Layer { name, source }, TooMany, DocumentTooLong { name }, TooManyImages,
        NoManifest, TooMuch(..), Invalid(..),
    }
}
