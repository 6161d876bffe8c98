//! The entry point for the boot environment block.

use super::assert_one_line;
use crate::model::extension::claim::abi_of;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::block::{Block, MAX_LEN};
use crate::model::kernel::records::{BlockValues, Committed, Field};

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
const OURS: [&[u8]; 5] = [
    b"kernel_override_abi",
    b"kernel_override_abi_committed_A",
    b"kernel_override_abi_committed_B",
    b"kernel_override_trial",
    b"kernel_override_abi_rejected",
];

/// The boot environment block (`model/kernel/block.rs`), and the kernel's command line.
pub fn boot_environment(bytes: &[u8]) {
    if let Some(abi) = abi_of(&String::from_utf8_lossy(bytes)) {
        assert!(!abi.is_empty() && !abi.contains(|found: char| found.is_ascii_whitespace()));
    }
    // Both as it is, and as the body of a block.
    let padding = [b'#'; 1024];
    let body = [SIGNATURE, bytes, b"\n", &padding].concat();
    let narrow = [SIGNATURE, bytes, b"\n########"].concat();
    for bytes in [bytes, &body, &narrow] {
        match Block::parse(bytes) {
            Ok(block) => {
                check_block(bytes, &block);
                check_change(bytes, &block);
            }
            Err(error) => assert_one_line(&error),
        }
    }
}

fn check_block(bytes: &[u8], block: &Block) {
    assert!(bytes.len() <= MAX_LEN);
    assert!(bytes.starts_with(SIGNATURE));
    let used = bytes.len() - block.free;
    assert!(bytes[used..].iter().all(|&byte| byte == b'#') && bytes[used - 1] == b'\n');
    assert_eq!(block.to_bytes(), bytes);
    let lines = lines_of_grub(bytes);
    for line in &lines {
        let Some(key) = &line.key else { continue };
        let last = lines.iter().rfind(|line| line.key.as_ref() == Some(key)).unwrap();
        let value = Some(last.text()).filter(|value| !value.is_empty());
        if let Ok(key) = std::str::from_utf8(key) {
            assert_eq!(block.value(key), value, "{key:?}");
        }
    }
    let says = |line: &GrubLine| line.is_of(b"upgrade_available") && line.text() == "1";
    assert_eq!(block.can_roll_back(), lines.iter().any(says));
    // Whatever is written behind the last value does not touch those before.
    if block.free > 0 {
        let shorter = Block::parse(&bytes[..bytes.len() - 1]).expect("padding may have any length");
        assert_eq!((shorter.free, shorter.values()), (block.free - 1, block.values()));
    }
    let values = block.values();
    for (key, field) in OURS.into_iter().zip([
        Some(&values.arm),
        Some(&values.committed.a),
        Some(&values.committed.b),
        None,
        Some(&values.relay),
    ]) {
        let all: Vec<&GrubLine> = lines.iter().filter(|line| line.is_of(key)).collect();
        match field {
            Some(Field::Empty) => assert!(all.iter().all(|line| line.value.is_empty())),
            Some(Field::Abi(abi)) => {
                assert!(!all.is_empty());
                assert!(all.iter().all(|line| line.value == abi.as_str().as_bytes()));
            }
            Some(Field::Malformed) => assert!(!all.is_empty()),
            None => assert_eq!(values.trial.is_some(), !all.is_empty()),
        }
    }
}

/// One of many changes, chosen by the bytes.
fn check_change(bytes: &[u8], block: &Block) {
    let mut choice = bytes.iter().fold(7_u64, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte));
    let mut next = |most: u64| {
        choice = choice.rotate_left(9).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (choice >> 32) % most
    };
    let values = block.values();
    let mut field = |now: &Field| match next(4) {
        0 => now.clone(),
        1 => Field::Empty,
        digit => Field::Abi(Abi::parse(&digit.to_string().repeat(64)).expect("it is an ABI")),
    };
    let (arm, relay) = (field(&values.arm), field(&values.relay));
    let committed = Committed { a: field(&values.committed.a), b: field(&values.committed.b) };
    let trial = [None, values.trial, Some(0), Some(3)][usize::try_from(next(4)).unwrap()];
    let wanted = BlockValues { arm, relay, committed, trial, update_window: values.update_window };
    match block.with(&wanted) {
        Ok(new) => {
            assert_eq!(new.len(), bytes.len());
            let written = Block::parse(&new).expect("what was written is read");
            assert_eq!(written.values(), wanted);
            assert_eq!(foreign(&new), foreign(bytes));
            assert!(new == bytes || new.ends_with(b"#"));
            assert!(new == bytes || wanted != values);
            if wanted != values {
                let lines = lines_of_grub(&new);
                let of = |key: &[u8]| lines.iter().filter(|line| line.is_of(key)).count();
                assert!(of(OURS[3]) <= 1);
                let malformed = [&wanted.arm, &wanted.committed.a, &wanted.committed.b];
                for (key, field) in OURS.into_iter().zip(malformed) {
                    assert!(matches!(field, Field::Malformed | Field::Empty) || of(key) == 1);
                }
            }
        }
        Err(error) => {
            assert_one_line(&error);
            let roomy = [bytes, &[b'#'; 1024]].concat();
            let roomy = Block::parse(&roomy).ok().map(|block| block.with(&wanted).is_ok());
            assert!(roomy.unwrap_or(bytes.len() + 1024 > MAX_LEN));
        }
    }
}

/// The lines of others, with what quotes a line end.
fn foreign(bytes: &[u8]) -> Vec<Vec<u8>> {
    let lines = lines_of_grub(bytes).into_iter();
    lines.filter(|line| !OURS.iter().any(|key| line.is_of(key))).map(|line| line.raw).collect()
}

struct GrubLine {
    raw: Vec<u8>,
    key: Option<Vec<u8>>,
    /// As it is written.
    value: Vec<u8>,
}

impl GrubLine {
    fn is_of(&self, key: &[u8]) -> bool {
        self.key.as_deref() == Some(key)
    }

    /// Without quoting.
    fn text(&self) -> String {
        let mut text = Vec::new();
        let mut rest = self.value.iter().copied();
        while let Some(byte) = rest.next() {
            text.extend(if byte == b'\\' { rest.next() } else { Some(byte) });
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// As grub itself goes through a block (`grub_envblk_iterate`, `find_next_line`): in a value and in a comment, a `\`
/// quotes whatever follows, also the end of a line.
fn lines_of_grub(bytes: &[u8]) -> Vec<GrubLine> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = Vec::new();
    let mut rest = bytes[..end].iter().copied();
    while let Some(first) = rest.next() {
        let mut line = GrubLine { raw: vec![first], key: None, value: Vec::new() };
        if first == b'=' {
            line.key = Some(Vec::new());
        }
        let mut last = first;
        while last != b'\n' {
            last = rest.next().expect("an accepted block ends in a line end");
            line.raw.push(last);
            match (&line.key, last) {
                (_, b'\n') => {}
                (None, b'=') if first != b'#' => {
                    line.key = Some(line.raw[..line.raw.len() - 1].to_vec());
                }
                (key, b'\\') if key.is_some() || first == b'#' => {
                    let quoted = rest.next().expect("an accepted block quotes no end of its own");
                    line.raw.push(quoted);
                    line.value.extend([last, quoted]);
                }
                (Some(_), byte) => line.value.push(byte),
                (None, _) => {}
            }
        }
        assert!(line.key.is_some() || matches!(first, b'#' | b'\n'), "a line without a value");
        lines.push(line);
    }
    lines
}
