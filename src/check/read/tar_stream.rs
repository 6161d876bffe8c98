//! Reads one tar archive as a stream, decompressed, to its very end, so that the checksum of the
//! compression is verified. Archives may be hostile, so every size that they can ask for is limited.

use crate::check::read::{Budget, Counted, Hashed, OverLimit, read_head, skip_to_end, zstd};
use crate::check::rules::layer::{Member, MemberKind};
use crate::check::rules::tar_header::{
    BLOCK, Header, InvalidHeader, in_utf_8, is_archive, records, text,
};
use crate::check::rules::tree::Content;
use flate2::read::MultiGzDecoder;
use sha2::Digest as _;
use std::io::{self, Read};

/// The longest extension header: names and attributes of one entry, which are held in memory. Go has
/// the same limit.
const HEADER_MAX: u64 = 1024 * 1024;

/// Why a tar archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    #[error("cannot read the input")]
    Input(#[source] io::Error),
    #[error("cannot read the tar archive (is it damaged, or cut off?)")]
    Read(#[source] io::Error),
    #[error("not a tar archive")]
    NotTar,
    #[error("invalid tar header after {before:?}")]
    Header { before: String, source: InvalidHeader },
    #[error("an empty block between two entries, after {before:?}")]
    EmptyBlock { before: String },
    #[error(
        "the archive is compressed with {0}, which check cannot read: decompress it first, or save the \
         image with docker save"
    )]
    Compressed(&'static str),
    #[error(
        "the archive is compressed in a way that check cannot read: compress it with zstd without --ultra and \
         --long, or save the image with docker save"
    )]
    Unsupported(#[source] io::Error),
    #[error(
        "{path:?} is a sparse file as tar --format=posix -S writes it, which check cannot read: make \
         the archive without -S"
    )]
    Sparse { path: String },
    #[error("the archive unpacks to more than 8 GiB")]
    TooMuch,
    #[error("more than {HEADER_MAX} bytes of names and attributes for one file")]
    Headers,
}

impl TarError {
    /// Whether engines cannot read the archive either.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Read(_) | Self::NotTar | Self::Header { .. } | Self::EmptyBlock { .. })
    }
}

/// The type of the inner error says who returned it, because [`Read`] has no error type of its own.
impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<OverLimit>()) {
            Some(OverLimit::Data) => Self::TooMuch,
            Some(OverLimit::Window { .. }) => Self::Unsupported(error),
            None if error.raw_os_error().is_some() => Self::Input(error),
            None => Self::Read(error),
        }
    }
}

/// One entry of an archive.
pub(crate) struct TarEntry<'a> {
    /// The content of a file is empty here: the caller reads it.
    pub(crate) member: Member,
    pub(crate) size: u64,
    pub(crate) content: &'a mut dyn Read,
}

/// The facts that are known at the end of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArchiveEnd {
    /// Of the bytes without compression.
    pub(crate) sha256: [u8; 32],
    pub(crate) is_empty: bool,
    /// Whether an empty block marks the end. Engines also read archives without it.
    pub(crate) is_marked: bool,
    pub(crate) compression: Compression,
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    /// Engines decompress it, `check` does not.
    Other(&'static str),
}

/// Calls `each` for every entry of the archive in `reader`, which may be compressed.
pub(crate) fn each_entry<E: From<TarError>>(
    reader: &mut dyn Read,
    budget: &Budget,
    each: &mut dyn FnMut(TarEntry<'_>) -> Result<(), E>,
) -> Result<ArchiveEnd, E> {
    let (inner, compression) = decompress(Box::new(reader))?;
    // Headers are short, and decompressing so little at a time is slow.
    let reader = io::BufReader::new(Hashed::new(budget.counted(inner)));
    let is_plain = compression == Compression::None;
    let (last, extension) = (String::new(), Extension::default());
    let mut archive =
        TarReader { reader, last, extension, is_plain, is_first: true, is_marked: false };
    while let Some(header) = archive.next()? {
        match header.flag {
            b'x' | b'L' | b'K' => archive.read_extension(&header)?,
            b'g' => {
                let member = archive.read_global(header)?;
                each(TarEntry { member, size: 0, content: &mut io::empty() })?;
            }
            _ => archive.read_entry(header, each)?,
        }
    }
    skip_to_end(&mut archive.reader).map_err(TarError::from)?;
    let is_marked = archive.is_marked;
    let Hashed { hash, is_empty, .. } = archive.reader.into_inner();
    Ok(ArchiveEnd { sha256: hash.finalize().into(), is_empty, is_marked, compression })
}

/// Headers about the entry that follows them.
#[derive(Default)]
struct Extension {
    records: Vec<u8>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

struct TarReader<'a> {
    reader: io::BufReader<Hashed<Counted<Box<dyn Read + 'a>>>>,
    /// The name of the last entry, for errors.
    last: String,
    extension: Extension,
    is_plain: bool,
    is_first: bool,
    is_marked: bool,
}

impl TarReader<'_> {
    /// The next header. `None` at the end mark, or at the end of the input.
    fn next(&mut self) -> Result<Option<Header>, TarError> {
        let block = match next_block(&mut self.reader) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(None),
            Err(error) => {
                let is_short = error.kind() == io::ErrorKind::UnexpectedEof;
                let is_other_file = is_short && self.is_first && self.is_plain;
                return Err(if is_other_file { TarError::NotTar } else { error.into() });
            }
        };
        if is_zero(&block) {
            if next_block(&mut self.reader)?.is_some_and(|second| !is_zero(&second)) {
                return Err(TarError::EmptyBlock { before: self.last.clone() });
            }
            self.is_marked = true;
            return Ok(None);
        }
        let header = match Header::parse(&block) {
            Err(_) if self.is_first => return Err(TarError::NotTar),
            parsed => parsed.map_err(|source| self.invalid(source))?,
        };
        self.is_first = false;
        Ok(Some(header))
    }

    fn read_extension(&mut self, header: &Header) -> Result<(), TarError> {
        let bytes = self.read_bytes(header.size)?;
        match header.flag {
            b'L' => self.extension.name = Some(text(&bytes).to_vec()),
            b'K' => self.extension.link = Some(text(&bytes).to_vec()),
            _ => {
                records(&bytes).map_err(|source| self.invalid(source))?;
                self.extension.records = bytes;
            }
        }
        Ok(())
    }

    /// A header about the whole archive. Engines create no file for it, but check its name.
    fn read_global(&mut self, mut header: Header) -> Result<Member, TarError> {
        let bytes = self.read_bytes(header.size)?;
        self.extension = Extension::default();
        let extended = records(&bytes).and_then(|records| header.extend(&records));
        extended.map_err(|source| self.invalid(source))?;
        Ok(member(&header, Vec::new(), MemberKind::Global))
    }

    fn read_entry<E: From<TarError>>(
        &mut self,
        mut header: Header,
        each: &mut dyn FnMut(TarEntry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let extension = std::mem::take(&mut self.extension);
        let extended = records(&extension.records).and_then(|records| header.extend(&records));
        let extended = extended.map_err(|source| self.invalid(source))?;
        header.name = extension.name.unwrap_or(header.name);
        header.link = extension.link.unwrap_or(header.link);
        if let Some(name) = extended.sparse {
            let name = if name.is_empty() { &header.name } else { &name };
            return Err(TarError::Sparse { path: in_utf_8(name) }.into());
        }
        if header.flag == b'S' {
            skip_map(&header, &mut self.reader).map_err(TarError::from)?;
        }
        self.last = in_utf_8(&header.name);
        let size = header.len_of_data();
        let member = member(&header, extended.attributes, kind(&header));
        let mut body = Body { reader: &mut self.reader, left: size };
        each(TarEntry { member, size, content: &mut body })?;
        let rest = skip_to_end(&mut body).and_then(|()| skip_padding(size, &mut self.reader));
        Ok(rest.map_err(TarError::from)?)
    }

    fn read_bytes(&mut self, len: u64) -> Result<Vec<u8>, TarError> {
        if len > HEADER_MAX {
            return Err(TarError::Headers);
        }
        let mut bytes = Vec::new();
        Body { reader: &mut self.reader, left: len }.read_to_end(&mut bytes)?;
        skip_padding(len, &mut self.reader)?;
        Ok(bytes)
    }

    fn invalid(&self, source: InvalidHeader) -> TarError {
        TarError::Header { before: self.last.clone(), source }
    }
}

/// The bytes of one entry. The end of the archive inside them is an error.
struct Body<'a> {
    reader: &'a mut dyn Read,
    left: u64,
}

impl Read for Body<'_> {
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

/// Reads a block. `None` at the end of the archive, if it is between two blocks.
fn next_block(reader: &mut dyn Read) -> io::Result<Option<[u8; BLOCK]>> {
    let bytes = read_head(reader, BLOCK)?;
    match <[u8; BLOCK]>::try_from(bytes) {
        Ok(block) => Ok(Some(block)),
        Err(bytes) if bytes.is_empty() => Ok(None),
        Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// At the very end of an archive the padding may be missing.
fn skip_padding(len: u64, reader: &mut dyn Read) -> io::Result<()> {
    let padding = len.next_multiple_of(512) - len;
    io::copy(&mut reader.take(padding), &mut io::sink())?;
    Ok(())
}

/// Skips the blocks that hold the map of a sparse file in GNU's old format.
fn skip_map(header: &Header, reader: &mut dyn Read) -> io::Result<()> {
    let mut more = header.more_map;
    while more {
        let block = next_block(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        more = block.get(504).is_some_and(|byte| *byte != 0);
    }
    Ok(())
}

fn member(header: &Header, attributes: Vec<(String, Vec<u8>)>, kind: MemberKind) -> Member {
    let Header { mode, uid, gid, .. } = *header;
    Member { name: in_utf_8(&header.name), kind, mode, uid, gid, attributes }
}

fn kind(header: &Header) -> MemberKind {
    let target = || in_utf_8(&header.link);
    match header.flag {
        // The format before POSIX.
        0 if header.name.ends_with(b"/") => MemberKind::Directory,
        0 | b'0' => MemberKind::File(Content::default()),
        b'1' => MemberKind::HardLink { target: target() },
        b'2' => MemberKind::Link { target: target() },
        b'3' => MemberKind::Device { whiteout: header.device == (0, 0) },
        b'4' => MemberKind::Device { whiteout: false },
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        flag => MemberKind::Unknown { flag },
    }
}

/// The first bytes of compressed files.
const MARKS: [(&[u8], Compression); 4] = [
    (b"\x1f\x8b", Compression::Gzip),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"\xfd7zXZ\0", Compression::Other("xz")),
    (b"BZh", Compression::Other("bzip2")),
];

fn compression(head: &[u8]) -> Compression {
    let mark = MARKS.iter().find(|(mark, _)| head.starts_with(mark));
    mark.map_or(Compression::None, |(_, compression)| *compression)
}

/// Whether a file that begins with `head` may be a tar archive, compressed or not.
pub(crate) fn may_be_archive(head: &[u8]) -> bool {
    compression(head) != Compression::None || is_archive(head)
}

fn decompress<'a>(
    mut reader: Box<dyn Read + 'a>,
) -> Result<(Box<dyn Read + 'a>, Compression), TarError> {
    let head = read_head(&mut reader, BLOCK)?;
    let compression = compression(&head);
    let whole = io::Cursor::new(head).chain(reader);
    let bytes: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::Decoder::new(whole)),
        Compression::Other(name) => return Err(TarError::Compressed(name)),
    };
    Ok((bytes, compression))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::cause::chain;
    use rustix::io::Errno;

    struct Failing(Errno);

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
    }

    fn failure(mut input: impl Read) -> TarError {
        let budget = Budget::of(100_000);
        each_entry::<TarError>(&mut input, &budget, &mut |_| Ok(())).unwrap_err()
    }

    /// Reading a file can be unsupported, too (EOPNOTSUPP).
    #[test]
    fn a_file_that_cannot_be_read_is_not_called_damaged_or_badly_compressed() {
        for errno in [Errno::OPNOTSUPP, Errno::IO] {
            for start in [&b""[..], &[0; 100], b"\x1f\x8b", &[0; 512]] {
                let error = failure(start.chain(Failing(errno)));
                assert!(!error.is_damage(), "{error}");
                let text = chain(&error);
                assert!(text.starts_with("cannot read the input: "), "{text}");
            }
        }
        let wide = failure(&b"\x28\xb5\x2f\xfd\x00\xa0"[..]);
        assert!(matches!(wide, TarError::Unsupported(_)), "{wide}");
        assert!(matches!(failure(io::repeat(0)), TarError::TooMuch));
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum TarError {
        Input(_), Read(_), NotTar, Header { before, source }, EmptyBlock { before }, Compressed(_), Unsupported(_),
        Sparse { path }, TooMuch, Headers,
    }
}
