//! One tar archive as a stream: decompressed, and read to its very end, so that its checksum is looked
//! at. Archives come from anywhere; whatever one could ask for without a limit has its limit here.

use crate::check::read::zstd;
use crate::check::read::{READ_MAX, pieces, read_head};
use crate::check::rules::layer::{Member, What};
use crate::check::rules::tar_header::{
    BLOCK, Header, Invalid, in_utf_8, is_archive, records, text,
};
use crate::check::rules::tree::Content;
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::io::{self, Read};

/// How many bytes one header about an entry may have: names and attributes, which are held in memory.
/// Go reads no more either.
const HEADER_MAX: u64 = 1024 * 1024;

/// Why a tar archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("read it as a tar archive (is it damaged, or cut off?)")]
    Read(#[source] io::Error),
    #[error("it is no tar archive")]
    NotTar,
    #[error("a header in it is not valid, after {before:?}")]
    Header { before: String, source: Invalid },
    #[error("an empty block stands between its entries, after {before:?}")]
    EmptyBlock { before: String },
    #[error(
        "it is compressed with {0}, which is not supported: decompress it first, or save the image with docker save"
    )]
    Compressed(&'static str),
    #[error(
        "{path:?} in it is a sparse file as tar --format=posix -S writes it, which is not supported: \
         leave out -S"
    )]
    Sparse { path: String },
    #[error("it unpacks to more than {READ_MAX} bytes")]
    TooMuch,
    #[error("there are more than {HEADER_MAX} bytes of headers before one file")]
    Headers,
}

impl Error {
    /// Whether an engine would not read it either.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Read(_) | Self::NotTar | Self::Header { .. } | Self::EmptyBlock { .. } => true,
            Self::Compressed(_) | Self::Sparse { .. } | Self::TooMuch | Self::Headers => false,
        }
    }
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

    /// The bytes of `reader`, which count as if they were unpacked.
    pub(crate) fn counted<'a>(&'a self, reader: &'a mut dyn Read) -> impl Read + 'a {
        Metered { inner: Box::new(reader), budget: &self.0, hash: Sha256::new(), len: 0 }
    }

    /// What went wrong, which may be that nothing is left.
    fn error(&self, error: io::Error) -> Error {
        if self.0.get() == 0 { Error::TooMuch } else { Error::Read(error) }
    }
}

/// An entry of an archive.
pub(crate) struct Item<'a> {
    /// A file's content is still to be looked at.
    pub(crate) member: Member,
    pub(crate) size: u64,
    /// The bytes of a file.
    pub(crate) content: &'a mut dyn Read,
}

/// What is known of an archive at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Of the bytes as they are without compression.
    pub(crate) sha256: [u8; 32],
    pub(crate) len: u64,
    /// Whether an empty block marks the end. Engines read archives without one.
    pub(crate) is_marked: bool,
    pub(crate) compression: Compression,
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Counts and hashes what is read.
struct Metered<'a> {
    inner: Box<dyn Read + 'a>,
    budget: &'a Cell<u64>,
    hash: Sha256,
    len: u64,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        let count = u64::try_from(len).unwrap_or(u64::MAX);
        // What is used up stays so, whoever reads on.
        let left = self.budget.get().checked_sub(count);
        self.budget.set(left.unwrap_or_default());
        if left.is_none() {
            return Err(io::Error::other("more than may be unpacked"));
        }
        self.hash.update(buffer.get(..len).unwrap_or_default());
        self.len += count;
        Ok(len)
    }
}

/// The bytes of one entry.
struct Body<'a, 'r> {
    reader: &'a mut io::BufReader<Metered<'r>>,
    left: u64,
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let len = self.reader.read(buffer.get_mut(..most).unwrap_or_default())?;
        if len == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX));
        Ok(len)
    }
}

/// What stood before an entry, about it.
#[derive(Default)]
struct Before {
    records: Vec<u8>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// Calls `each` for every entry of the archive in `reader`, compressed as it may be.
///
/// # Errors
/// The first that `each` returns, or what is wrong with the archive.
pub(crate) fn each_entry<E: From<Error>>(
    reader: &mut dyn Read,
    budget: &Budget,
    each: &mut dyn FnMut(Item<'_>) -> Result<(), E>,
) -> Result<Ended, E> {
    let (inner, compression) = unpacked(Box::new(reader), budget)?;
    let metered = Metered { inner, budget: &budget.0, hash: Sha256::new(), len: 0 };
    // Headers are short, and decompressing so little at a time is slow.
    let mut reader = io::BufReader::new(metered);
    let mut before = Before::default();
    let mut last = String::new();
    let mut is_first = true;
    let is_marked = loop {
        let failed = |error| budget.error(error);
        let is_short = is_first && compression == Compression::None;
        let block = next_block(&mut reader).map_err(|error| {
            let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
            if is_cut && is_short { Error::NotTar } else { budget.error(error) }
        });
        let Some(block) = block? else { break false };
        if block.iter().all(|byte| *byte == 0) {
            match next_block(&mut reader).map_err(failed)? {
                Some(block) if block.iter().any(|byte| *byte != 0) => {
                    return Err(Error::EmptyBlock { before: last }.into());
                }
                Some(_) | None => break true,
            }
        }
        let invalid = |source| Error::Header { before: last.clone(), source };
        let mut header = Header::parse(&block).map_err(|source| match is_first {
            true => Error::NotTar,
            false => invalid(source),
        })?;
        is_first = false;
        if matches!(header.flag, b'x' | b'g' | b'L' | b'K') {
            let bytes = about_the_next(&header, &mut reader, budget)?;
            match header.flag {
                b'L' => before.name = Some(text(&bytes).to_vec()),
                b'K' => before.link = Some(text(&bytes).to_vec()),
                b'x' => before.records = bytes,
                _ => {
                    records(&bytes).and_then(|records| header.extend(&records)).map_err(invalid)?;
                    let member = member(&header, Vec::new(), What::Global);
                    each(Item { member, size: 0, content: &mut io::empty() })?;
                    before = Before::default();
                    continue;
                }
            }
            let bytes = std::mem::take(&mut before.records);
            records(&bytes).map_err(invalid)?;
            before.records = bytes;
            continue;
        }
        let about = std::mem::take(&mut before);
        let extended =
            records(&about.records).and_then(|records| header.extend(&records)).map_err(invalid)?;
        header.name = about.name.unwrap_or(header.name);
        header.link = about.link.unwrap_or(header.link);
        if let Some(name) = extended.sparse {
            let name = if name.is_empty() { &header.name } else { &name };
            return Err(Error::Sparse { path: in_utf_8(name) }.into());
        }
        if header.flag == b'S' {
            skip_map(&header, &mut reader).map_err(failed)?;
        }
        last = in_utf_8(&header.name);
        let (len, what) = (header.len_of_data(), what(&header));
        let member = member(&header, extended.attributes, what);
        let mut body = Body { reader: &mut reader, left: len };
        each(Item { member, size: len, content: &mut body })?;
        pieces(&mut body, &mut |_| ()).map_err(failed)?;
        skip_padding(len, &mut reader).map_err(failed)?;
    };
    pieces(&mut reader, &mut |_| ()).map_err(|error| budget.error(error))?;
    let Metered { hash, len, .. } = reader.into_inner();
    Ok(Ended { sha256: hash.finalize().into(), len, is_marked, compression })
}

/// The next block; `None` at the end, which is between two blocks.
fn next_block(reader: &mut dyn Read) -> io::Result<Option<[u8; BLOCK]>> {
    let bytes = read_head(reader, BLOCK)?;
    match <[u8; BLOCK]>::try_from(bytes) {
        Ok(block) => Ok(Some(block)),
        Err(bytes) if bytes.is_empty() => Ok(None),
        Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The bytes of a header that is about the next entry.
fn about_the_next(
    header: &Header,
    reader: &mut io::BufReader<Metered<'_>>,
    budget: &Budget,
) -> Result<Vec<u8>, Error> {
    if header.size > HEADER_MAX {
        return Err(Error::Headers);
    }
    let mut bytes = Vec::new();
    let mut body = Body { reader, left: header.size };
    body.read_to_end(&mut bytes).map_err(|error| budget.error(error))?;
    skip_padding(header.size, reader).map_err(|error| budget.error(error))?;
    Ok(bytes)
}

/// At the very end of an archive the padding may be missing.
fn skip_padding(len: u64, reader: &mut dyn Read) -> io::Result<()> {
    let padding = len.next_multiple_of(512) - len;
    io::copy(&mut reader.take(padding), &mut io::sink())?;
    Ok(())
}

/// The blocks that hold the map of a sparse file in GNU's old format.
fn skip_map(header: &Header, reader: &mut dyn Read) -> io::Result<()> {
    let mut more = header.more_map;
    while more {
        let block = next_block(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        more = block.get(504).is_some_and(|byte| *byte != 0);
    }
    Ok(())
}

fn member(header: &Header, attributes: Vec<(String, Vec<u8>)>, what: What) -> Member {
    Member {
        name: in_utf_8(&header.name),
        what,
        mode: header.mode,
        uid: header.uid,
        gid: header.gid,
        attributes,
    }
}

fn what(header: &Header) -> What {
    let target = || in_utf_8(&header.link);
    match header.flag {
        // As archives were before POSIX.
        0 if header.name.ends_with(b"/") => What::Folder,
        0 | b'0' => What::File(Content::default()),
        b'1' => What::HardLink { target: target() },
        b'2' => What::Link { target: target() },
        b'3' => What::Device { whiteout: header.device == (0, 0) },
        b'4' => What::Device { whiteout: false },
        b'5' => What::Folder,
        b'6' => What::Fifo,
        flag => What::Unknown { flag },
    }
}

/// Whether a file that begins with `head` may be a tar archive, compressed as it may be.
pub(crate) fn may_be_archive(head: &[u8]) -> bool {
    let packed = [&GZIP[..], &ZSTD, &XZ, &BZIP2];
    packed.iter().any(|mark| head.starts_with(mark)) || is_archive(head)
}

const GZIP: [u8; 2] = *b"\x1f\x8b";
const ZSTD: [u8; 4] = *b"\x28\xb5\x2f\xfd";
const XZ: [u8; 6] = *b"\xfd7zXZ\0";
const BZIP2: [u8; 3] = *b"BZh";

/// The bytes of a tar archive, decompressed if they are compressed with what engines compress with.
fn unpacked<'a>(
    mut reader: Box<dyn Read + 'a>,
    budget: &Budget,
) -> Result<(Box<dyn Read + 'a>, Compression), Error> {
    let head = read_head(&mut reader, BLOCK).map_err(|error| budget.error(error))?;
    let whole = |head: Vec<u8>| io::Cursor::new(head).chain(reader);
    if head.starts_with(&XZ) {
        return Err(Error::Compressed("xz"));
    }
    if head.starts_with(&BZIP2) {
        return Err(Error::Compressed("bzip2"));
    }
    Ok(if head.starts_with(&GZIP) {
        (Box::new(MultiGzDecoder::new(whole(head))), Compression::Gzip)
    } else if head.starts_with(&ZSTD) {
        (Box::new(zstd::Decoder::new(whole(head))), Compression::Zstd)
    } else {
        (Box::new(whole(head)), Compression::None)
    })
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Read(_), NotTar, Header { before, source }, EmptyBlock { before }, Compressed(_),
        Sparse { path }, TooMuch, Headers,
    }
}
