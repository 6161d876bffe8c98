//! One tar archive as a stream: decompressed, and read to its very end, so that the checksum there is
//! looked at. Archives come from anywhere; whatever one could ask for without a limit has its limit
//! here.

use crate::host::image::{READ_MAX, read_head};
use crate::model::check::tree::{Entry, Kind};
use flate2::read::MultiGzDecoder;
use std::cell::Cell;
use std::io::{self, Read};
use tar::EntryType;

/// How many bytes may stand before one entry: names and attributes, which are held in memory.
const HEADERS_MAX: u64 = 1024 * 1024;
/// The longest path, and the longest target of a link (`PATH_MAX`, path_resolution(7)).
const PATH_MAX: usize = 4096;
/// The length of a tar header, and where it has its mark (tar(5), POSIX ustar).
const BLOCK: usize = 512;
const MARK: std::ops::Range<usize> = 257..262;

/// Why a tar archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read it as a tar archive (is it damaged, or cut off?)")]
    Read(#[source] io::Error),
    #[error("it is no tar archive")]
    NotTar,
    #[error(
        "it is compressed with {0}, which is not supported: decompress it first, or save the image with docker save"
    )]
    Compressed(&'static str),
    #[error("it is cut off: the block is missing that ends a tar archive")]
    CutOff,
    #[error(
        "{path:?} in it is a sparse file as tar --format=posix -S writes it, which is not supported: \
         leave out -S, or make the archive with --format=gnu"
    )]
    Sparse { path: String },
    #[error("a path in it is longer than {PATH_MAX} bytes: {start:?}…")]
    PathTooLong { start: String },
}

/// What is read no further.
#[derive(Debug, thiserror::Error)]
enum TooLong {
    #[error("it unpacks to more than {READ_MAX} bytes")]
    Unpacked,
    #[error("there are more than {HEADERS_MAX} bytes of headers before one file")]
    Headers,
}

/// How much may still be unpacked, over an archive and all that are in it.
pub(crate) struct Budget(Cell<u64>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self::of(READ_MAX)
    }

    pub(crate) fn of(bytes: u64) -> Self {
        Self(Cell::new(bytes))
    }
}

/// What an entry of an archive is.
pub(crate) enum What {
    /// A file, folder, link or device. A file's content is still to be looked at.
    Entry(Kind),
    OpaqueFolder,
    HardLink {
        target: String,
    },
    /// The whiteout of overlayfs.
    Whiteout,
}

/// An entry of an archive.
pub(crate) struct Item<'a> {
    pub(crate) path: String,
    pub(crate) what: What,
    pub(crate) size: u64,
    /// The bytes of a file.
    pub(crate) content: &'a mut dyn Read,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Item<'_> {
    /// What is known of it but its content.
    pub(crate) fn entry(&self, kind: Kind) -> Entry {
        Entry { kind, mode: self.mode, uid: self.uid, gid: self.gid }
    }
}

/// Counts what is read.
struct Metered<'a> {
    inner: Box<dyn Read + 'a>,
    budget: &'a Cell<u64>,
    /// What may be read until the next entry is there.
    headers: &'a Cell<u64>,
    ended: &'a Cell<bool>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        let count = u64::try_from(len).unwrap_or(u64::MAX);
        // What is used up stays so, whoever reads on.
        let enough = |cell: &Cell<u64>| {
            let left = cell.get().checked_sub(count);
            cell.set(left.unwrap_or_default());
            left.is_some()
        };
        if !enough(self.budget) {
            return Err(io::Error::other(TooLong::Unpacked));
        }
        if !enough(self.headers) {
            return Err(io::Error::other(TooLong::Headers));
        }
        self.ended.set(self.ended.get() || len == 0 && !buffer.is_empty());
        Ok(len)
    }
}

/// Calls `each` for every entry of the archive in `reader`, compressed as it may be.
///
/// # Errors
/// The first that `each` returns, or what is wrong with the archive.
pub(crate) fn each_entry<E: From<Error>>(
    reader: &mut dyn Read,
    budget: &Budget,
    each: &mut dyn FnMut(Item<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (headers, ended) = (Cell::new(u64::MAX), Cell::new(false));
    let mut meter =
        Metered { inner: Box::new(reader), budget: &budget.0, headers: &headers, ended: &ended };
    meter.inner = unpacked(meter.inner)?;
    let mut archive = tar::Archive::new(meter);
    let mut entries = archive.entries().map_err(Error::Read)?;
    // The rest of the entry before is skipped on the way to the next.
    let mut before = 0;
    loop {
        headers.set(HEADERS_MAX.saturating_add(before));
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(Error::Read)?;
        headers.set(u64::MAX);
        let sparse = entry.header().entry_type() == EntryType::GNUSparse;
        // A sparse entry's own size counts the holes, which are not in the archive.
        let in_archive = if sparse { entry.header().entry_size() } else { Ok(entry.size()) };
        before = in_archive.map_err(Error::Read)?;
        if let Some(item) = item(&mut entry)? {
            each(item)?;
        }
    }
    if ended.get() {
        return Err(Error::CutOff.into());
    }
    headers.set(u64::MAX);
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(Error::Read)?;
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other kinds are headers of headers")]
fn item<'a>(entry: &'a mut tar::Entry<'_, Metered<'_>>) -> Result<Option<Item<'a>>, Error> {
    let path = text(&entry.path_bytes())?;
    let target = text(&entry.link_name_bytes().unwrap_or_default())?;
    let attributes = Attributes::of(entry, &path)?;
    if let Some(path) = attributes.sparse {
        return Err(Error::Sparse { path });
    }
    let what = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            What::Entry(Kind::File(Default::default()))
        }
        EntryType::Link => What::HardLink { target },
        EntryType::Symlink => What::Entry(Kind::Link { target }),
        EntryType::Directory if attributes.opaque => What::OpaqueFolder,
        EntryType::Directory => What::Entry(Kind::Folder),
        EntryType::Char if is_zero(entry.header()) => What::Whiteout,
        EntryType::Char | EntryType::Block => What::Entry(Kind::Device),
        EntryType::Fifo => What::Entry(Kind::Fifo),
        _ => return Ok(None),
    };
    let header = entry.header();
    let id = |value: io::Result<u64>| u32::try_from(value.unwrap_or_default()).unwrap_or(u32::MAX);
    let mode = header.mode().unwrap_or_default() & 0o7777;
    let (uid, gid, size) = (id(header.uid()), id(header.gid()), entry.size());
    Ok(Some(Item { path, what, size, content: entry, mode, uid, gid }))
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    let text = String::from_utf8_lossy(bytes);
    if bytes.len() > PATH_MAX {
        return Err(Error::PathTooLong { start: text.chars().take(80).collect() });
    }
    Ok(text.into_owned())
}

fn is_zero(header: &tar::Header) -> bool {
    [header.device_major(), header.device_minor()].iter().all(|it| matches!(it, Ok(Some(0))))
}

/// What the extended header of an entry says beside its name.
#[derive(Default)]
struct Attributes {
    /// Overlayfs has marked the folder, in the archive's own way of writing attributes.
    opaque: bool,
    /// The path of a file whose holes are left out, as GNU tar writes it in POSIX archives (GNU tar
    /// manual, "PAX 1"). Its entry has another name, and a map of the holes before or in the file.
    sparse: Option<String>,
}

impl Attributes {
    /// `path` is the name that the entry itself has.
    fn of(entry: &mut tar::Entry<'_, Metered<'_>>, path: &str) -> Result<Self, Error> {
        let mut found = Self::default();
        let Some(extensions) = entry.pax_extensions().map_err(Error::Read)? else {
            return Ok(found);
        };
        // The library parts records at every new line, also inside of the value of an attribute. What is
        // left of such a value is no record.
        for extension in extensions.flatten() {
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if key.starts_with(b"SCHILY.xattr.") && key.ends_with(b".overlay.opaque") {
                found.opaque |= value == b"y";
            } else if key == b"GNU.sparse.name" {
                found.sparse = Some(text(value)?);
            } else if key.starts_with(b"GNU.sparse.") && found.sparse.is_none() {
                found.sparse = Some(path.to_owned());
            }
        }
        Ok(found)
    }
}

/// The bytes of a tar archive, decompressed if they are compressed with what Docker compresses with.
fn unpacked<'a>(mut reader: Box<dyn Read + 'a>) -> Result<Box<dyn Read + 'a>, Error> {
    let head = read_head(&mut reader, BLOCK).map_err(Error::Read)?;
    for (mark, name) in
        [(&b"\x28\xb5\x2f\xfd"[..], "zstd"), (&b"\xfd7zXZ\0"[..], "xz"), (&b"BZh"[..], "bzip2")]
    {
        if head.starts_with(mark) {
            return Err(Error::Compressed(name));
        }
    }
    let packed = head.starts_with(b"\x1f\x8b");
    let whole: Box<dyn Read> = Box::new(io::Cursor::new(head).chain(reader));
    if !packed {
        return checked(whole);
    }
    checked(Box::new(MultiGzDecoder::new(whole)))
}

/// Refuses what is no tar archive. An empty one is all zeros.
fn checked<'a>(mut reader: Box<dyn Read + 'a>) -> Result<Box<dyn Read + 'a>, Error> {
    let head = read_head(&mut reader, BLOCK).map_err(Error::Read)?;
    let empty = head.len() == BLOCK && head.iter().all(|byte| *byte == 0);
    if empty || head.get(MARK) == Some(b"ustar") {
        // Headers are short, and decompressing so little at a time is slow.
        Ok(Box::new(io::BufReader::new(io::Cursor::new(head).chain(reader))))
    } else {
        Err(Error::NotTar)
    }
}
