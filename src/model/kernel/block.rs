//! The boot environment block (grub's `grubenv`): `# GRUB Environment Block`, then `key=value` lines,
//! then `#` padding up to a size that never changes.

use std::collections::BTreeMap;

/// The first line of every block.
const SIGNATURE: &str = "# GRUB Environment Block\n";
/// The largest block.
pub(crate) const MAX_LEN: usize = 64 * 1024;
/// The OS update sets this key to 1 while it can still roll back.
pub(crate) const UPGRADE_AVAILABLE: &str = "upgrade_available";
/// The key that names the kernel to boot next.
pub(crate) const ARM: &str = "kernel_override_abi";

/// A block as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    values: BTreeMap<String, String>,
    /// The padding in bytes: the room for further values.
    pub(crate) free: usize,
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
    #[error("the block has no padding left, so grub can no longer write it")]
    Full,
}

impl Block {
    /// Parses a block. No value of an invalid block is used.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, InvalidBlock> {
        if bytes.len() > MAX_LEN {
            return Err(InvalidBlock::TooLong { len: bytes.len() });
        }
        let rest = bytes.strip_prefix(SIGNATURE.as_bytes()).ok_or(InvalidBlock::NoSignature)?;
        let mut values = BTreeMap::new();
        let padding = rest.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        if !padding.starts_with(b"#") {
            return Err(InvalidBlock::Full);
        }
        let mut lines = rest.split(|&byte| byte == b'\n').zip(2..).peekable();
        while let Some((line, number)) = lines.next() {
            // Comments, and the padding, which has no line end.
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let mut line = line.to_owned();
            // A value continues after a quoted line end.
            while let (true, Some((more, _))) = (is_continued(&line), lines.peek()) {
                line.push(b'\n');
                line.extend(*more);
                lines.next();
            }
            // Only the padding has no line end, so this line has consumed it.
            if lines.peek().is_none() {
                return Err(InvalidBlock::Full);
            }
            let equals = line.iter().position(|&byte| byte == b'=');
            let equals = equals.ok_or(InvalidBlock::Line { line: number })?;
            let (key, value) = line.split_at(equals);
            let value = unquoted(value.get(1..).unwrap_or_default());
            // Values of other programs may be any bytes; ours are plain.
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            values.insert(text(key), text(&value));
        }
        Ok(Self { values, free: padding.len() })
    }

    /// The value of `key`. An empty value counts as absent.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the OS update can still roll back.
    pub(crate) fn can_roll_back(&self) -> bool {
        self.value(UPGRADE_AVAILABLE) == Some("1")
    }
}

/// Whether the value's last byte is a `\` that quotes the line end. In a key it quotes nothing.
fn is_continued(line: &[u8]) -> bool {
    let value = line.iter().position(|&byte| byte == b'=').and_then(|equals| line.get(equals..));
    let quotes = value.unwrap_or_default().iter().rev().take_while(|&&byte| byte == b'\\');
    quotes.count() % 2 == 1
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(lines: &str) -> Vec<u8> {
        let mut bytes = format!("{SIGNATURE}{lines}").into_bytes();
        bytes.resize(1024, b'#');
        bytes
    }

    #[test]
    fn values_and_free_bytes_are_read() {
        let bytes = block("a=1\nupgrade_available=1\nb=x=y\nempty=\n");
        let read = Block::parse(&bytes).unwrap();
        assert_eq!(read.value("a"), Some("1"));
        assert_eq!(read.value("b"), Some("x=y"));
        assert_eq!(read.value("empty"), None);
        assert_eq!(read.value("missing"), None);
        assert_eq!(
            read.free,
            1024 - SIGNATURE.len() - "a=1\nupgrade_available=1\nb=x=y\nempty=\n".len()
        );
        assert!(read.can_roll_back());
    }

    #[test]
    fn a_value_continues_after_a_quoted_line_end() {
        let read = Block::parse(&block("a=1\\\nupgrade_available=1\nb=x\\\\\nc=2\n")).unwrap();
        assert_eq!(read.value("a"), Some("1\nupgrade_available=1"));
        assert!(!read.can_roll_back());
        assert_eq!((read.value("b"), read.value("c")), (Some("x\\"), Some("2")));
        assert_eq!(Block::parse(&block("a\\\nb=1\n")), Err(InvalidBlock::Line { line: 2 }));
        // The quoted line end consumes the padding.
        assert_eq!(Block::parse(&block("a=1\\\n")), Err(InvalidBlock::Full));
    }

    #[test]
    fn only_the_value_one_means_that_an_update_can_roll_back() {
        for (lines, expected) in [
            ("", false),
            ("upgrade_available=0\n", false),
            ("upgrade_available=\n", false),
            ("upgrade_available=11\n", false),
            ("x_upgrade_available=1\n", false),
            ("upgrade_available=1\n", true),
        ] {
            assert_eq!(Block::parse(&block(lines)).unwrap().can_roll_back(), expected, "{lines}");
        }
    }

    #[test]
    fn a_torn_block_is_refused() {
        assert_eq!(Block::parse(b""), Err(InvalidBlock::NoSignature));
        assert_eq!(Block::parse(&vec![0; 1024]), Err(InvalidBlock::NoSignature));
        assert_eq!(Block::parse(&block("a=1\ngarbage\n")), Err(InvalidBlock::Line { line: 3 }));
        assert_eq!(Block::parse(format!("{SIGNATURE}a=1\n").as_bytes()), Err(InvalidBlock::Full));
        assert_eq!(Block::parse(SIGNATURE.as_bytes()), Err(InvalidBlock::Full));
        let len = MAX_LEN + 1;
        assert_eq!(Block::parse(&vec![b'#'; len]), Err(InvalidBlock::TooLong { len }));
        let mut zeroed = block("a=1\n");
        zeroed[SIGNATURE.len()..].fill(0);
        assert!(Block::parse(&zeroed).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_in_the_format_is_read_back(values in proptest::collection::btree_map("[a-z_]{1,8}", "[a-z0-9=#.]{1,8}", 0..8)) {
            let lines: String = values.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            let read = Block::parse(&block(&lines)).unwrap();
            prop_assert_eq!(read.values, values);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut block = SIGNATURE.as_bytes().to_vec();
            block.extend(bytes);
            let _ = Block::parse(&block);
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum InvalidBlock {
        TooLong { len }, NoSignature, Line { line }, Full,
    }
}
