//! The boot environment block (grub's `grubenv`): `# GRUB Environment Block`, then `key=value` lines,
//! then `#` padding up to a size that never changes.
//!
//! Lines are kept as they are: whatever belongs to others survives a change byte for byte.
//! `host/kernel/block.rs` has the file.

/// The first line of every block.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
/// The largest block.
pub(crate) const MAX_LEN: usize = 64 * 1024;
/// The OS update sets this key to 1 while it can still roll back.
pub(crate) const UPGRADE_AVAILABLE: &str = "upgrade_available";
/// The key that names the kernel to boot next.
pub(crate) const ARM: &str = "kernel_override_abi";

/// A block as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    lines: Vec<Line>,
    /// The padding in bytes: the room for further values. grub cannot write a block that has none.
    pub(crate) free: usize,
}

/// A line with its end, and with those that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    raw: Vec<u8>,
    /// The length of the key. A comment and an empty line have none.
    key: Option<usize>,
}

/// Why bytes are not a block.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidBlock {
    #[error("the file has {len} bytes, at most {MAX_LEN} are allowed")]
    TooLong { len: usize },
    #[error("the file does not begin with \"# GRUB Environment Block\"")]
    NoSignature,
    #[error("line {line} is neither a value nor padding")]
    Line { line: usize },
    #[error("the file ends in the middle of a line")]
    Cut,
}

impl Block {
    /// Parses a block. No value of an invalid block is used.
    ///
    /// A line without `=` makes a block invalid because grub contradicts itself about it: for one who reads, it is
    /// part of the next key; for one who writes, it is not.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, InvalidBlock> {
        if bytes.len() > MAX_LEN {
            return Err(InvalidBlock::TooLong { len: bytes.len() });
        }
        let rest = bytes.strip_prefix(SIGNATURE).ok_or(InvalidBlock::NoSignature)?;
        let end = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let (body, padding) = rest.split_at(end);
        if padding.iter().any(|&byte| byte != b'#') {
            return Err(InvalidBlock::Cut);
        }
        let mut lines = Vec::new();
        let mut left = body.split_inclusive(|&byte| byte == b'\n').zip(2..);
        while let Some((line, number)) = left.next() {
            let mut raw = line.to_vec();
            while is_continued(&raw) {
                // The last line end would consume the padding.
                let (more, _) = left.next().ok_or(InvalidBlock::Cut)?;
                raw.extend(more);
            }
            lines.push(Line::parse(raw).ok_or(InvalidBlock::Line { line: number })?);
        }
        Ok(Self { lines, free: padding.len() })
    }

    /// The last value of `key`, without quoting. An empty value counts as absent.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        // Values of other programs may be any bytes; ours are plain.
        let text = |value| String::from_utf8_lossy(&unquoted(value)).into_owned();
        self.values_of(key).last().map(text).filter(|value| !value.is_empty())
    }

    /// Whether the OS update can still roll back. Of two lines GRUB takes the last, but `grub-editenv` sets the first:
    /// any 1 counts.
    pub(crate) fn can_roll_back(&self) -> bool {
        self.values_of(UPGRADE_AVAILABLE).any(|value| unquoted(value) == b"1")
    }

    /// The values of all lines with this key, as they are written.
    fn values_of(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |line| line.is_of(key)).map(Line::value)
    }
}

impl Line {
    /// `None` if it is neither a comment nor empty and has no `=`.
    fn parse(raw: Vec<u8>) -> Option<Self> {
        let key = match raw.as_slice() {
            [b'\n' | b'#', ..] => None,
            line => Some(line.iter().position(|&byte| byte == b'=')?),
        };
        Some(Self { raw, key })
    }

    fn is_of(&self, key: &str) -> bool {
        self.key.and_then(|len| self.raw.get(..len)) == Some(key.as_bytes())
    }

    fn value(&self) -> &[u8] {
        let value = self.key.and_then(|len| self.raw.get(len + 1..)).unwrap_or_default();
        value.strip_suffix(b"\n").unwrap_or(value)
    }
}

/// Whether a `\` quotes the line end. In a key it quotes nothing. grub also reads comments like this.
fn is_continued(line: &[u8]) -> bool {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let quoting = match text.first() {
        Some(b'#') => Some(text),
        _ => text.iter().position(|&byte| byte == b'=').and_then(|equals| text.get(equals..)),
    };
    quoting.unwrap_or_default().iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// Removes the `\` that grub writes before a `\` and before a line end (`grub_envblk_set`).
fn unquoted(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&found) = bytes.next() {
        text.extend(if found == b'\\' { bytes.next().copied() } else { Some(found) });
    }
    text
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidBlock {
        TooLong { len }, NoSignature, Line { line }, Cut,
    }
}
