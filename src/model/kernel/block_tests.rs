//! Tests of the block: what is read of one, and what a change leaves as it was.

use super::*;
use proptest::prelude::*;

const OPENING: &str = "# GRUB Environment Block\n";

fn block(lines: &str) -> Vec<u8> {
    let mut bytes = format!("{OPENING}{lines}").into_bytes();
    bytes.resize(1024, b'#');
    bytes
}

fn parsed(lines: &str) -> Block {
    Block::parse(&block(lines)).unwrap()
}

#[test]
fn values_and_free_bytes_are_read() {
    let lines = "a=1\nupgrade_available=1\nb=x=y\nempty=\n=nameless\n";
    let read = parsed(lines);
    assert_eq!(read.value("a").as_deref(), Some("1"));
    assert_eq!(read.value("b").as_deref(), Some("x=y"));
    assert_eq!(read.value("empty"), None);
    assert_eq!(read.value("missing"), None);
    assert_eq!(read.free, 1024 - OPENING.len() - lines.len());
    assert!(read.can_roll_back());
}

#[test]
fn a_value_continues_after_a_quoted_line_end() {
    let read = parsed("a=1\\\nupgrade_available=1\nb=x\\\\\nc=2\n");
    assert_eq!(read.value("a").as_deref(), Some("1\nupgrade_available=1"));
    assert!(!read.can_roll_back());
    assert_eq!(read.value("b").as_deref(), Some("x\\"));
    assert_eq!(read.value("c").as_deref(), Some("2"));
    assert_eq!(Block::parse(&block("a\\\nb=1\n")), Err(InvalidBlock::Line { line: 2 }));
    // The quoted line end consumes the padding.
    assert_eq!(Block::parse(&block("a=1\\\n")), Err(InvalidBlock::Cut));
}

#[test]
fn only_the_value_one_means_that_an_update_can_roll_back() {
    for (lines, expected) in [
        ("", false),
        ("upgrade_available=0\n", false),
        ("upgrade_available=\n", false),
        ("upgrade_available=11\n", false),
        ("x_upgrade_available=1\n", false),
        ("# upgrade_available=1\n", false),
        ("# \\\nupgrade_available=1\n", false),
        ("# \\\\\nupgrade_available=1\n", true),
        ("\nupgrade_available=1\n\n", true),
        ("upgrade_available=1\n", true),
        ("upgrade_available=1\nupgrade_available=0\n", true),
        ("upgrade_available=0\nupgrade_available=1\n", true),
    ] {
        assert_eq!(parsed(lines).can_roll_back(), expected, "{lines}");
    }
}

/// Each bad input, and one byte less or more, where the size is what is bad.
#[test]
fn bytes_that_are_not_a_block_are_refused_and_no_others() {
    let of_len = |len: usize| {
        let mut bytes = format!("{OPENING}a=1\n").into_bytes();
        bytes.resize(len, b'#');
        bytes
    };
    let mut zeroed = block("a=1\n");
    zeroed[OPENING.len()..].fill(0);
    let text = |text: &str| text.as_bytes().to_vec();
    for (bytes, expected) in [
        (vec![], Err(InvalidBlock::NoSignature)),
        (OPENING.as_bytes()[..24].to_vec(), Err(InvalidBlock::NoSignature)),
        (text(OPENING), Ok(0)),
        (text(&format!("{OPENING}#")), Ok(1)),
        (of_len(1024), Ok(995)),
        (of_len(1025), Ok(996)),
        (of_len(65_536), Ok(65_507)),
        (of_len(65_537), Err(InvalidBlock::TooLong { len: 65_537 })),
        (vec![0; 1024], Err(InvalidBlock::NoSignature)),
        (block("a=1\n")[1..].to_vec(), Err(InvalidBlock::NoSignature)),
        (text("# GRUB Environment Block\r\na=1\r\n##"), Err(InvalidBlock::NoSignature)),
        (zeroed, Err(InvalidBlock::Cut)),
        (block("a=1\r\nb=2\r\n"), Ok(989)),
        (block("\r\n"), Err(InvalidBlock::Line { line: 2 })),
        (text(&format!("{OPENING}a=1\n")), Ok(0)),
        (text(&format!("{OPENING}a=1")), Err(InvalidBlock::Cut)),
        (text(&format!("{OPENING}a=1\n###x")), Err(InvalidBlock::Cut)),
        (text(&format!("{OPENING}a=1\n###\n")), Ok(0)),
        (text(&format!("{OPENING}# \\\n##")), Err(InvalidBlock::Cut)),
        (block("a=1\ngarbage\n"), Err(InvalidBlock::Line { line: 3 })),
        (block("a=1\\\n\\\n2\ngarbage\nb=2\n"), Err(InvalidBlock::Line { line: 5 })),
    ] {
        let read = Block::parse(&bytes).map(|block| block.free);
        assert_eq!(read, expected, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
    }
}

proptest! {
    #[test]
    fn what_is_written_in_the_format_is_read_back(values in proptest::collection::btree_map("[a-z_]{1,8}", "[a-z0-9=#.]{1,8}", 0..8)) {
        let lines: String = values.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let read = parsed(&lines);
        for (key, value) in values {
            prop_assert_eq!(read.value(&key), Some(value));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut block = OPENING.as_bytes().to_vec();
        block.extend(bytes);
        let _ = Block::parse(&block);
    }
}
