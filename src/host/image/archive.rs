//! Reads an archive in one pass, from a file or from an engine: an image as `docker save` or an OCI
//! layout has it, or the files of a container as `docker export` has them. Which of them it is shows
//! at its end, where the manifest may be; so every layer is listed as it comes by.

use crate::host::image::{ENTRIES_MAX, probe, read_head};
use crate::model::check::content::HEAD_LEN;
use crate::model::check::tree::{Content, Entry, Kind, Layer, Outside, Tree, join, split};
use crate::model::image::{self, Configuration, INDEX, MANIFEST, Manifest};
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::io::{self, Read};
use tar::EntryType;

/// The longest document that is kept, and how much all of them may take.
const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;
const DOCUMENTS_MAX: u64 = 64 * 1024 * 1024;
/// The length of a tar header, and where it has its mark (tar(5), POSIX ustar).
const BLOCK: usize = 512;
const MARK: std::ops::Range<usize> = 257..262;

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
    #[error("read it as a tar archive")]
    Read(#[source] io::Error),
    #[error("it is no tar archive")]
    NotTar,
    #[error("it is compressed with {0}, which is not supported: decompress it first")]
    Compressed(&'static str),
    #[error("it has more than {ENTRIES_MAX} files")]
    TooMany,
    #[error("its documents have more than {DOCUMENTS_MAX} bytes")]
    TooLong,
    #[error("it has layers but no manifest: it is not complete")]
    NoManifest,
    #[error(transparent)]
    Outside(#[from] Outside),
    #[error(transparent)]
    Invalid(#[from] image::Invalid),
}

/// Everything that was met on the way.
#[derive(Default)]
struct Pass {
    files: Layer,
    layers: BTreeMap<String, Layer>,
    documents: BTreeMap<String, Vec<u8>>,
    /// `docker save` writes a layer that two images share once, and links to it.
    links: BTreeMap<String, String>,
    entries: usize,
    document_len: u64,
}

/// Reads an archive to its end.
///
/// # Errors
/// What is wrong with it; nothing of it is used then.
pub(crate) fn read(reader: impl Read) -> Result<Archive, Error> {
    let mut pass = Pass::default();
    let mut archive = tar::Archive::new(unpacked(reader)?);
    for entry in archive.entries().map_err(Error::Read)? {
        let mut entry = entry.map_err(Error::Read)?;
        pass.count()?;
        let path = text(&entry.path_bytes());
        let name = path.trim_start_matches("./").to_owned();
        if entry.header().entry_type() == EntryType::Symlink {
            let target = text(&entry.link_name_bytes().unwrap_or_default());
            pass.links.insert(name, target);
        } else if is_file(entry.header().entry_type()) {
            let head = read_head(&mut entry, HEAD_LEN).map_err(Error::Read)?;
            if pass.part(&name, &head, &mut entry)? == Part::Taken {
                continue;
            }
            let content = whole(&name, &head, &mut entry)?;
            pass.files.add(&path, file(&entry, content))?;
            continue;
        }
        add(&mut pass.files, &mut entry)?;
    }
    pass.finish()
}

/// Whether a file was a part of an image, so that nothing is left of it to read.
#[derive(PartialEq, Eq)]
enum Part {
    Taken,
    NotOne,
}

impl Pass {
    fn count(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX { Err(Error::TooMany) } else { Ok(()) }
    }

    /// Takes in a layer or a document.
    fn part(&mut self, name: &str, head: &[u8], rest: &mut impl Read) -> Result<Part, Error> {
        let blob = name.starts_with("blobs/");
        let document = blob && head.first() == Some(&b'{');
        if document || name.ends_with(".json") && !name.contains('/') {
            let mut bytes = Vec::new();
            let all = head.chain(rest);
            all.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
            self.document_len += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if self.document_len > DOCUMENTS_MAX {
                return Err(Error::TooLong);
            }
            self.documents.insert(name.to_owned(), bytes);
            return Ok(Part::Taken);
        }
        if !(blob || name == "layer.tar" || name.ends_with("/layer.tar")) {
            return Ok(Part::NotOne);
        }
        let layer = match unpacked(head.chain(rest)) {
            Ok(reader) => self.layer(reader)?,
            // Some other blob; if a manifest names it as a layer, it will be missed.
            Err(Error::NotTar) => return Ok(Part::Taken),
            Err(error) => return Err(error),
        };
        self.layers.insert(name.to_owned(), layer);
        Ok(Part::Taken)
    }

    fn layer(&mut self, reader: impl Read) -> Result<Layer, Error> {
        let mut layer = Layer::default();
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries().map_err(Error::Read)? {
            self.count()?;
            add(&mut layer, &mut entry.map_err(Error::Read)?)?;
        }
        Ok(layer)
    }

    fn finish(mut self) -> Result<Archive, Error> {
        let manifests = if let Some(bytes) = self.documents.get(MANIFEST) {
            image::manifests(bytes)
        } else if self.documents.contains_key(INDEX) {
            image::manifests_of_layout(&self.documents)
        } else if self.layers.is_empty() {
            return self.export();
        } else {
            return Err(Error::NoManifest);
        };
        match manifests {
            Ok(manifests) => {
                let images = manifests.into_iter().map(|manifest| self.image(manifest));
                images.collect::<Result<_, _>>().map(Archive::Images)
            }
            // A container may have a file of this name, and no layers.
            Err(_) if self.layers.is_empty() => self.export(),
            Err(error) => Err(error.into()),
        }
    }

    /// The documents are ordinary files then.
    fn export(&mut self) -> Result<Archive, Error> {
        for (name, bytes) in &self.documents {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let content = Content { size, ..Content::of_head(bytes) };
            let entry = Entry { kind: Kind::File(content), mode: 0o644, uid: 0, gid: 0 };
            self.files.add(name, entry)?;
        }
        let mut tree = Tree::default();
        tree.add_layer(std::mem::take(&mut self.files));
        Ok(Archive::Export(tree))
    }

    fn image(&self, manifest: Manifest) -> Result<Image, Error> {
        let missing = |name: &str| image::Invalid::Missing { name: name.to_owned() };
        let name = &manifest.config;
        let bytes = self.documents.get(name).ok_or_else(|| missing(name))?;
        let configuration = Configuration::parse(bytes, name)?;
        let mut tree = Tree::default();
        for name in &manifest.layers {
            let target = self.links.get(name).and_then(|target| linked(name, target));
            let layer = self.layers.get(target.as_ref().unwrap_or(name));
            tree.add_layer(layer.ok_or_else(|| missing(name))?.clone());
        }
        Ok(Image { name: manifest.name, configuration, tree })
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
#[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds are headers of headers")]
fn add<R: Read>(layer: &mut Layer, entry: &mut tar::Entry<'_, R>) -> Result<(), Error> {
    let path = text(&entry.path_bytes());
    let target = entry.link_name_bytes().map(|bytes| text(&bytes)).unwrap_or_default();
    let kind = match entry.header().entry_type() {
        EntryType::Link => return Ok(layer.add_hard_link(&path, &target)?),
        EntryType::Symlink => Kind::Link { target },
        EntryType::Directory => {
            if is_opaque(entry)? {
                layer.add_opaque(&path)?;
            }
            Kind::Folder
        }
        EntryType::Char if number(entry)? == (0, 0) => {
            return Ok(layer.add_overlay_whiteout(&path)?);
        }
        EntryType::Char | EntryType::Block => Kind::Device,
        EntryType::Fifo => Kind::Fifo,
        other if is_file(other) => {
            let content = whole(&path, &[], entry)?;
            layer.add(&path, file(entry, content))?;
            return Ok(());
        }
        _ => return Ok(()),
    };
    layer.add(&path, owned(entry, kind))?;
    Ok(())
}

fn is_file(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse)
}

fn whole<R: Read>(
    path: &str,
    head: &[u8],
    entry: &mut tar::Entry<'_, R>,
) -> Result<Content, Error> {
    let size = entry.size();
    let path = path.trim_start_matches(['.', '/']);
    probe(path, size, head.chain(entry)).map_err(Error::Read)
}

fn file<R: Read>(entry: &tar::Entry<'_, R>, content: Content) -> Entry {
    owned(entry, Kind::File(content))
}

fn owned<R: Read>(entry: &tar::Entry<'_, R>, kind: Kind) -> Entry {
    let header = entry.header();
    let id = |value: io::Result<u64>| u32::try_from(value.unwrap_or_default()).unwrap_or(u32::MAX);
    let mode = header.mode().unwrap_or_default() & 0o7777;
    Entry { kind, mode, uid: id(header.uid()), gid: id(header.gid()) }
}

fn number<R: Read>(entry: &tar::Entry<'_, R>) -> Result<(u32, u32), Error> {
    let header = entry.header();
    let major = header.device_major().map_err(Error::Read)?.unwrap_or_default();
    Ok((major, header.device_minor().map_err(Error::Read)?.unwrap_or_default()))
}

/// The attribute by which overlayfs marks a folder, in the archive's own way of writing attributes.
fn is_opaque<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<bool, Error> {
    let Some(extensions) = entry.pax_extensions().map_err(Error::Read)? else { return Ok(false) };
    for extension in extensions {
        let extension = extension.map_err(Error::Read)?;
        let key = extension.key_bytes();
        if key.starts_with(b"SCHILY.xattr.")
            && key.ends_with(b".overlay.opaque")
            && extension.value_bytes() == b"y"
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of a tar archive, decompressed if they are compressed with what Docker compresses with.
fn unpacked<'a>(mut reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, Error> {
    let head = read_head(&mut reader, BLOCK).map_err(Error::Read)?;
    for (mark, name) in
        [(&b"\x28\xb5\x2f\xfd"[..], "zstd"), (&b"\xfd7zXZ\0"[..], "xz"), (&b"BZh"[..], "bzip2")]
    {
        if head.starts_with(mark) {
            return Err(Error::Compressed(name));
        }
    }
    let packed = head.starts_with(b"\x1f\x8b");
    let whole = io::Cursor::new(head).chain(reader);
    if !packed {
        return checked(whole);
    }
    checked(MultiGzDecoder::new(whole))
}

/// Refuses what is no tar archive. An empty one is all zeros.
fn checked<'a>(mut reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, Error> {
    let head = read_head(&mut reader, BLOCK).map_err(Error::Read)?;
    let empty = head.len() == BLOCK && head.iter().all(|byte| *byte == 0);
    if empty || head.get(MARK) == Some(b"ustar") {
        Ok(Box::new(io::Cursor::new(head).chain(reader)))
    } else {
        Err(Error::NotTar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    enum Item<'a> {
        File(&'a str, u32, &'a [u8]),
        Link(&'a str, &'a str),
        Hard(&'a str, &'a str),
        Char(&'a str),
    }

    fn archive(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match item {
                Item::File(path, mode, bytes) => {
                    header.set_mode(*mode);
                    header.set_size(u64::try_from(bytes.len()).unwrap());
                    builder.append_data(&mut header, path, *bytes).unwrap();
                }
                Item::Link(path, target) => {
                    header.set_entry_type(EntryType::Symlink);
                    builder.append_link(&mut header, path, target).unwrap();
                }
                Item::Hard(path, target) => {
                    header.set_entry_type(EntryType::Link);
                    builder.append_link(&mut header, path, target).unwrap();
                }
                Item::Char(path) => {
                    header.set_entry_type(EntryType::Char);
                    header.set_device_major(0).unwrap();
                    header.set_device_minor(0).unwrap();
                    builder.append_data(&mut header, path, &b""[..]).unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn images(bytes: &[u8]) -> Vec<Image> {
        match read(bytes).unwrap() {
            Archive::Images(images) => images,
            Archive::Export(tree) => panic!("{tree:?}"),
        }
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().filter(|(_, entry)| !entry.is_folder()).map(|(path, _)| path).collect()
    }

    const CONFIG: &[u8] = br#"{"architecture":"arm64","config":{"Labels":{"a":"1"},"Cmd":["x"]}}"#;

    #[test]
    fn an_image_of_docker_is_its_layers_on_top_of_each_other() {
        let low = archive(&[
            Item::File("hooks/start", 0o755, b"#!/bin/sh\n"),
            Item::File("gone", 0o644, b""),
            Item::Hard("hooks/create", "hooks/start"),
        ]);
        let high = archive(&[
            Item::File(".wh.gone", 0o644, b""),
            Item::Char("hidden"),
            Item::Link("b", "/a"),
        ]);
        let manifest =
            br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["1/layer.tar","2/layer.tar",
            "3/layer.tar"]}]"#;
        let whole = archive(&[
            Item::File("1/layer.tar", 0o644, &low),
            Item::File("2/layer.tar", 0o644, &packed(&high)),
            // What two layers share is there once.
            Item::Link("3/layer.tar", "../2/layer.tar"),
            Item::File("c.json", 0o644, CONFIG),
            Item::File("manifest.json", 0o644, manifest),
        ]);
        for bytes in [whole.clone(), packed(&whole)] {
            let images = images(&bytes);
            assert_eq!(images[0].name.as_deref(), Some("x:1"));
            assert_eq!(images[0].configuration.architecture.as_deref(), Some("arm64"));
            assert_eq!(paths(&images[0].tree), ["b", "hooks/create", "hooks/start"]);
            assert_eq!(images[0].tree.whiteouts().len(), 2);
            let hook = images[0].tree.at("hooks/create").unwrap();
            assert_eq!(
                (hook.mode, hook.content().unwrap().head.as_slice()),
                (0o755, &b"#!/bin/sh"[..])
            );
        }
    }

    #[test]
    fn a_layout_is_read_whatever_the_order_of_its_blobs() {
        let layer = packed(&archive(&[Item::File("boot/kernel", 0o644, b"")]));
        let manifest = br#"{"config":{"digest":"sha256:c"},"layers":[{"digest":"sha256:l"}]}"#;
        let index = br#"{"manifests":[{"digest":"sha256:m"}]}"#;
        let items = [
            Item::File("blobs/sha256/l", 0o644, &layer),
            Item::File("blobs/sha256/m", 0o644, manifest),
            Item::File("index.json", 0o644, index),
            Item::File("oci-layout", 0o644, b"{}"),
            Item::File("blobs/sha256/c", 0o644, CONFIG),
        ];
        let images = images(&archive(&items));
        assert!(images[0].tree.at("boot/kernel").unwrap().content().unwrap().sha256.is_some());
    }

    #[test]
    fn the_files_of_a_container_are_an_export_whatever_their_names() {
        let bytes = archive(&[
            Item::File("./usr/bin/x", 0o4755, b"\x7fELF"),
            Item::File("manifest.json", 0o644, b"{}"),
            Item::Link("link", "usr/bin/x"),
        ]);
        let Archive::Export(tree) = read(bytes.as_slice()).unwrap() else { panic!() };
        assert_eq!(paths(&tree), ["link", "manifest.json", "usr/bin/x"]);
        assert_eq!(tree.at("usr/bin/x").unwrap().mode, 0o4755);
    }

    #[test]
    fn what_is_broken_is_named() {
        let layer = archive(&[Item::File("a", 0o644, b"")]);
        let config = Item::File("c.json", 0o644, CONFIG);
        let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
        let manifest = Item::File("manifest.json", 0o644, manifest);
        let whole = archive(&[Item::File("1/layer.tar", 0o644, &layer)]);
        let lone = archive(&[Item::File("manifest.json", 0o644, br#"[{"Config":"d.json"}]"#)]);
        let mut other = packed(&whole);
        other.truncate(other.len() / 2);
        for (bytes, expected) in [
            (b"hello".to_vec(), "it is no tar archive"),
            (Vec::new(), "it is no tar archive"),
            (b"\x28\xb5\x2f\xfd....".to_vec(), "compressed with zstd"),
            (whole.clone(), "it has layers but no manifest"),
            (whole[..700].to_vec(), "read it as a tar archive"),
            (other, "read it as a tar archive"),
            (lone, "d.json, which its manifest names, is not in it"),
            (archive(&[config, manifest]), "1/layer.tar, which its manifest names, is not in it"),
        ] {
            let error = crate::model::cause::chain(&read(bytes.as_slice()).unwrap_err());
            assert!(error.contains(expected), "{error}\n does not say {expected}");
        }
    }

    #[test]
    fn an_empty_layer_is_a_layer() {
        let manifest = br#"[{"Config":"c.json","Layers":["1/layer.tar"]}]"#;
        let bytes = archive(&[
            Item::File("1/layer.tar", 0o644, &archive(&[])),
            Item::File("c.json", 0o644, CONFIG),
            Item::File("manifest.json", 0o644, manifest),
        ]);
        assert!(images(&bytes)[0].tree.iter().next().is_none());
    }
}
