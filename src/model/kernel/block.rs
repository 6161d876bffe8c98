//! The boot environment block (grub's `grubenv`): `# GRUB Environment Block`, then `key=value` lines,
//! then `#` padding up to a size that never changes.
//!
//! Lines are kept as they are: whatever belongs to others survives a change byte for byte.
//! `host/kernel/block.rs` has the file.

use crate::model::kernel::abi;
use crate::model::kernel::records::{BlockValues, Committed, Field, TRIAL_LIMIT};

/// The first line of every block.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
/// The largest block.
pub(crate) const MAX_LEN: usize = 64 * 1024;
/// The OS update sets this key to 1 while it can still roll back.
pub(crate) const UPGRADE_AVAILABLE: &str = "upgrade_available";
/// The key that names the kernel to boot next.
const ARM: &str = "kernel_override_abi";
const COMMITTED_A: &str = "kernel_override_abi_committed_A";
const COMMITTED_B: &str = "kernel_override_abi_committed_B";
const TRIAL: &str = "kernel_override_trial";
const RELAY: &str = "kernel_override_abi_rejected";

/// A block as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    lines: Vec<BlockLine>,
    /// The padding in bytes: the room for further values. grub cannot write a block that has none.
    pub(crate) free: usize,
}

/// A line with its end, and with those that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BlockLine {
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

/// Why a change does not fit. One byte of padding must remain, or grub could never write the block again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the block has {len} bytes, and the change needs {missing} more")]
pub(crate) struct NoRoom {
    len: usize,
    missing: usize,
}

impl Block {
    /// A block without values, in `len` bytes.
    pub(crate) fn empty(len: usize) -> Self {
        Self { lines: Vec::new(), free: len.saturating_sub(SIGNATURE.len()) }
    }

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
            lines.push(BlockLine::parse(raw).ok_or(InvalidBlock::Line { line: number })?);
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

    /// The values that kernel overrides are about.
    pub(crate) fn values(&self) -> BlockValues {
        BlockValues {
            arm: self.field(ARM),
            committed: Committed { a: self.field(COMMITTED_A), b: self.field(COMMITTED_B) },
            trial: self.trial(),
            relay: self.field(RELAY),
            update_window: self.can_roll_back(),
        }
    }

    /// The block's bytes with these values in place of its own, in the same size. A line whose value does not change
    /// remains as it is, and so does a malformed one, because only an absence or an ABI can be written. Several lines
    /// of one of our keys become one.
    pub(crate) fn with(&self, wanted: &BlockValues) -> Result<Vec<u8>, NoRoom> {
        let values = self.values();
        if *wanted == values {
            return Ok(self.to_bytes());
        }
        let mut changed = self.clone();
        for (key, now, field) in [
            (ARM, &values.arm, &wanted.arm),
            (COMMITTED_A, &values.committed.a, &wanted.committed.a),
            (COMMITTED_B, &values.committed.b, &wanted.committed.b),
            (RELAY, &values.relay, &wanted.relay),
        ] {
            match field {
                Field::Abi(abi) => changed.set(key, abi.as_str()),
                Field::Empty if now != field => changed.drop(key),
                Field::Empty | Field::Malformed => {}
            }
        }
        match wanted.trial {
            None => changed.drop(TRIAL),
            Some(boots) if wanted.trial != values.trial || self.values_of(TRIAL).count() > 1 => {
                changed.set(TRIAL, &boots.to_string());
            }
            Some(_) => {}
        }
        changed.padded_to(self.len()).map(|block| block.to_bytes())
    }

    /// The block with this value of a key that belongs to another program. Only `simulate` plays others.
    pub(crate) fn with_value(&self, key: &str, value: &str) -> Result<Self, NoRoom> {
        let mut changed = self.clone();
        changed.set(key, value);
        changed.padded_to(self.len())
    }

    fn padded_to(mut self, len: usize) -> Result<Self, NoRoom> {
        let used = self.used();
        // One byte for grub.
        self.free = match len.checked_sub(used) {
            Some(free) if free > 0 => free,
            _ => return Err(NoRoom { len, missing: used + 1 - len }),
        };
        Ok(self)
    }

    /// How many bytes more the block needs so that all values of kernel overrides fit at once; 0 if they do.
    pub(crate) fn missing_room(&self) -> usize {
        let longest = || Field::parse(&"0".repeat(abi::LEN));
        let all = BlockValues {
            arm: longest(),
            committed: Committed { a: longest(), b: longest() },
            trial: Some(TRIAL_LIMIT),
            relay: longest(),
            ..self.values()
        };
        self.with(&all).err().map_or(0, |NoRoom { missing, .. }| missing)
    }

    /// The bytes that were parsed.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let lines = self.lines.iter().flat_map(|line| line.raw.iter().copied());
        let padding = std::iter::repeat_n(b'#', self.free);
        SIGNATURE.iter().copied().chain(lines).chain(padding).collect()
    }

    fn len(&self) -> usize {
        self.used() + self.free
    }

    fn used(&self) -> usize {
        SIGNATURE.len() + self.lines.iter().map(|line| line.raw.len()).sum::<usize>()
    }

    fn set(&mut self, key: &str, value: &str) {
        let line = BlockLine { raw: format!("{key}={value}\n").into_bytes(), key: Some(key.len()) };
        match self.lines.iter().position(|line| line.is_of(key)) {
            Some(first) => {
                self.drop(key);
                self.lines.insert(first, line);
            }
            None => self.lines.push(line),
        }
    }

    fn drop(&mut self, key: &str) {
        self.lines.retain(|line| !line.is_of(key));
    }

    fn field(&self, key: &str) -> Field {
        match self.agreed(key) {
            None => Field::Empty,
            Some(Agreed::On(value)) => {
                std::str::from_utf8(value).map_or(Field::Malformed, Field::parse)
            }
            Some(Agreed::OnNothing) => Field::Malformed,
        }
    }

    fn trial(&self) -> Option<u32> {
        Some(match self.agreed(TRIAL)? {
            Agreed::On(value) => boots(value),
            Agreed::OnNothing => 0,
        })
    }

    /// What the lines of one of our keys say; `None` if there are none.
    fn agreed(&self, key: &str) -> Option<Agreed<'_>> {
        let mut values = self.values_of(key);
        let first = values.next()?;
        Some(if values.all(|value| value == first) { Agreed::On(first) } else { Agreed::OnNothing })
    }

    /// The values of all lines with this key, as they are written.
    fn values_of(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |line| line.is_of(key)).map(BlockLine::value)
    }
}

/// What all lines of a key say. GRUB takes the last, `grub-editenv` changes the first, and the initramfs reads both as
/// one value, so that of two different ones neither counts.
enum Agreed<'a> {
    On(&'a [u8]),
    OnNothing,
}

/// The number of boots; 0 if it is not a number.
fn boots(value: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(value);
    let digits = text.trim();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    // A number that is too large is above the limit.
    digits.parse().unwrap_or(u32::MAX)
}

impl BlockLine {
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
    struct NoRoom { len, missing };
}
