//! The headers of tar archives (tar(5), POSIX pax), read as Go's `archive/tar` reads them, which decides whether
//! an engine can unpack a layer. `check/read/tar_stream.rs` reads the blocks.

/// The length of a header in bytes. Everything is padded to a multiple of it.
pub(crate) const BLOCK: usize = 512;

/// Why a header is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHeader {
    #[error("wrong checksum")]
    Checksum,
    #[error("the field {field} is not a number")]
    Number { field: &'static str },
    #[error("an extended header has a record other than LENGTH KEY=VALUE")]
    Record,
}

/// One header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The type: `0` is a file, `5` a directory.
    pub(crate) flag: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) size: u64,
    /// The permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The major and the minor number of a device.
    pub(crate) device: (i64, i64),
    /// Whether blocks with the map of a sparse file (GNU's old format) follow.
    pub(crate) more_map: bool,
}

/// The types that have no content, whatever their size field says.
const HEADER_ONLY: &[u8] = b"123456";

impl Header {
    /// Reads one block as engines do.
    pub(crate) fn parse(block: &[u8; BLOCK]) -> Result<Self, InvalidHeader> {
        let field = |from: usize, to: usize| block.get(from..to).unwrap_or_default();
        let number =
            |name, from, to| number(field(from, to)).ok_or(InvalidHeader::Number { field: name });
        // The checksum itself counts as blanks. Some old programs sum signed characters.
        let sum = number("checksum", 148, 156)?;
        let summed = [field(0, 148), &[b' '; 8], field(156, BLOCK)].concat();
        let unsigned: i64 = summed.iter().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = summed.iter().map(|byte| i64::from(i8::from_ne_bytes([*byte]))).sum();
        if sum != unsigned && sum != signed {
            return Err(InvalidHeader::Checksum);
        }
        let mut header = Self {
            flag: block.get(156).copied().unwrap_or_default(),
            name: text(field(0, 100)).to_vec(),
            link: text(field(157, 257)).to_vec(),
            size: size(number("size", 124, 136)?)?,
            mode: low_bits(number("mode", 100, 108)?) & 0o7777,
            uid: low_bits(number("uid", 108, 116)?),
            gid: low_bits(number("gid", 116, 124)?),
            ..Self::default()
        };
        number("mtime", 136, 148)?;
        let (posix, gnu) = (field(257, 263) == b"ustar\0", field(257, 265) == b"ustar  \0");
        if posix || gnu {
            header.device = (number("major", 329, 337)?, number("minor", 337, 345)?);
        }
        if posix {
            let prefix_end = if field(508, 512) == b"tar\0" { 476 } else { 500 };
            let prefix = text(field(345, prefix_end));
            if !prefix.is_empty() {
                header.name = [prefix, b"/", &header.name].concat();
            }
        }
        if gnu && header.flag == b'S' {
            header.more_map = block.get(482).is_some_and(|byte| *byte != 0);
        }
        Ok(header)
    }

    /// The length of the content in the archive, without the padding.
    pub(crate) fn len_of_data(&self) -> u64 {
        if HEADER_ONLY.contains(&self.flag) { 0 } else { self.size }
    }
}

/// The fields of an extended header, which is about the entry that follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extended {
    /// Extended attributes, with their names in the filesystem.
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
    /// The name of a sparse file, as GNU tar writes it in POSIX archives. Empty if the entry itself has the
    /// name.
    pub(crate) sparse: Option<Vec<u8>>,
}

impl Header {
    /// Applies the records of an extended header. An empty value changes nothing.
    pub(crate) fn extend(&mut self, records: &[PaxRecord<'_>]) -> Result<Extended, InvalidHeader> {
        let mut extended = Extended::default();
        for (key, value) in records {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                let name = in_utf_8(name);
                extended.attributes.retain(|(other, _)| *other != name);
                extended.attributes.push((name, value.to_vec()));
            } else if *key == b"GNU.sparse.name" {
                extended.sparse = Some(value.to_vec());
            } else if key.starts_with(b"GNU.sparse.") {
                extended.sparse.get_or_insert_default();
            } else if !value.is_empty() {
                self.set(key, value)?;
            }
        }
        Ok(extended)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), InvalidHeader> {
        let integer = |field| {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|text| text.parse::<i64>().ok()).ok_or(InvalidHeader::Number { field })
        };
        match key {
            b"path" => self.name = value.to_vec(),
            b"linkpath" => self.link = value.to_vec(),
            b"uid" => self.uid = low_bits(integer("uid")?),
            b"gid" => self.gid = low_bits(integer("gid")?),
            b"size" => self.size = size(integer("size")?)?,
            b"mtime" | b"atime" | b"ctime" if !is_time(value) => {
                return Err(InvalidHeader::Number { field: "time" });
            }
            _ => {}
        }
        Ok(())
    }
}

fn size(number: i64) -> Result<u64, InvalidHeader> {
    u64::try_from(number).map_err(|_| InvalidHeader::Number { field: "size" })
}

/// Seconds, with or without a fraction.
fn is_time(value: &[u8]) -> bool {
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let fraction = parts.next().unwrap_or_default();
    seconds.is_some_and(|text| text.parse::<i64>().is_ok())
        && fraction.iter().all(u8::is_ascii_digit)
}

/// Escapes bytes that are not UTF-8, so that different names remain different.
pub(crate) fn in_utf_8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    text
}

/// Whether a file that begins with `head` may be an uncompressed tar archive.
pub(crate) fn is_archive(head: &[u8]) -> bool {
    let first = head.get(..BLOCK).and_then(|block| <&[u8; BLOCK]>::try_from(block).ok());
    first.is_some_and(|block| block.iter().all(|byte| *byte == 0) || Header::parse(block).is_ok())
}

/// The bytes before the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in base 256 if its first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement. The first bit marks the encoding.
        let inverted = if first & 0x40 != 0 { 0xff } else { 0 };
        let start = i64::from((first ^ inverted) & 0x7f);
        let value = rest.iter().try_fold(start, |sum, byte| {
            sum.checked_mul(256)?.checked_add(i64::from(byte ^ inverted))
        })?;
        return Some(if inverted == 0 { value } else { !value });
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = field.get(start..)?;
    let end = digits.iter().rposition(|byte| !blank(byte)).map_or(0, |last| last + 1);
    // Everything after a NUL is ignored.
    let digits = text(digits.get(..end)?);
    digits.iter().try_fold(0_i64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

/// The lower half of a number, which is all that engines pass to system calls.
pub(crate) fn low_bits(value: i64) -> u32 {
    u32::try_from(value.rem_euclid(1 << 32)).unwrap_or(u32::MAX)
}

/// A key and its value.
pub(crate) type PaxRecord<'a> = (&'a [u8], &'a [u8]);

/// The records of an extended header. Values may contain any bytes.
pub(crate) fn records(mut rest: &[u8]) -> Result<Vec<PaxRecord<'_>>, InvalidHeader> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (key, value, next) = record(rest).ok_or(InvalidHeader::Record)?;
        found.push((key, value));
        rest = next;
    }
    Ok(found)
}

/// The key and the value of the first record, and the bytes after it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(bytes.get(..space)?).ok()?;
    let len: usize = digits.parse().ok().filter(|len| *len >= 5 && *len > space + 1)?;
    let line = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (line.get(..equals)?, line.get(equals + 1..)?);
    let text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    let has_nul = if text { value.contains(&0) } else { key.contains(&0) };
    (!key.is_empty() && !has_nul).then_some((key, value, bytes.get(len..)?))
}

#[cfg(test)]
#[path = "tar_header_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidHeader {
        Checksum, Number { field }, Record,
    }
}
