//! The entry points for the records of kernel overrides outside the boot environment block.

use super::{assert_no_prefix, assert_one_line};
use crate::host::kernel::block_redo::BlockRedo;
use crate::model::engine::stored_claim::parse_stored_claim;
use crate::model::extension::labels::{ABI, CLASS, OVERLAY};
use crate::model::kernel::abi::Abi;
use crate::model::kernel::history::{self, HistoryEntry};
use crate::model::kernel::verdict::OverrideVerdict;
use serde_json::Value;

/// A container's `config.v2.json`, read for the kernel that it claims (`model/engine/stored_claim.rs`).
pub fn stored_claim(bytes: &[u8]) {
    let claim = match parse_stored_claim(bytes) {
        Ok(claim) => claim,
        Err(error) => return assert_one_line(&error),
    };
    assert_no_prefix(bytes, |prefix| parse_stored_claim(prefix).is_ok());
    // The other reader also looks into texts and numbers that nothing uses.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let is_ending = ["Dead", "RemovalInProgress"].iter().any(|name| value["State"][name] == true);
    let label = |name: &str| value["Config"]["Labels"][name].as_str();
    let claims = label(CLASS) == Some(OVERLAY) && !is_ending;
    assert_eq!(claim, label(ABI).filter(|_| claims).and_then(Abi::parse));
}

/// The history of overrides (`model/kernel/history.rs`).
pub fn override_history(bytes: &[u8]) {
    let (entries, others) = history::parse(bytes);
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(entries.len() + others <= lines);
    // A file of the entries alone is the same history.
    let text: String = entries.iter().map(HistoryEntry::line).collect();
    assert_eq!(text.lines().count(), entries.len());
    assert_eq!(history::parse(text.as_bytes()), (entries.clone(), 0));
    // A file that is cut off has the older events, one that was shortened the newer ones.
    let older = history::parse(&bytes[..bytes.len() / 2]).0;
    assert_eq!(older, entries[..older.len()]);
    let half = history::newer_half(bytes);
    assert!(half.len() <= bytes.len().div_ceil(2));
    let newer = history::parse(half).0;
    assert_eq!(newer, entries[entries.len() - newer.len()..]);
    // An event behind a torn line is read, as are those before.
    let abi = Abi::parse(&"a".repeat(64)).expect("it is an ABI");
    let verdict = OverrideVerdict::Armed { abi };
    let entry = HistoryEntry::of_verdict("now".to_owned(), "activate", &verdict);
    let appended = history::parse(&[bytes, b"\n", entry.line().as_bytes()].concat()).0;
    assert_eq!((&appended[..entries.len()], appended.last()), (&*entries, Some(&entry)));
}

/// The record of a write of the boot environment block (`host/kernel/block_redo.rs`), and what it makes of a block that is
/// torn.
pub fn block_redo(bytes: &[u8]) {
    if let Some(BlockRedo::Write { old, new }) = BlockRedo::parse(bytes) {
        assert_eq!(BlockRedo::to_bytes(&old, &new), bytes);
    }
    let (old, new) = bytes.split_at(bytes.len() / 2);
    let new = &new[..old.len()];
    let record = BlockRedo::to_bytes(old, new);
    let redo = BlockRedo::Write { old: old.to_vec(), new: new.to_vec() };
    assert_eq!(BlockRedo::parse(&record).as_ref(), Some(&redo));
    assert_no_prefix(&[&*record, b"x"].concat(), |prefix| {
        prefix != record && BlockRedo::parse(prefix).is_some()
    });
    let at = bytes.iter().fold(7_usize, |sum, &byte| sum.wrapping_mul(31) + usize::from(byte));
    let mut changed = record.clone();
    changed[at % record.len()] ^= 1;
    assert_eq!(BlockRedo::parse(&changed), None);
    // A write that stopped is completed. Any other content is a later write of another program.
    let stopped = [&new[..at % (new.len() + 1)], &old[at % (new.len() + 1)..]].concat();
    for found in [&stopped, old, new] {
        let expected = (found != old && found != new).then_some(new);
        assert_eq!(redo.content_for(found), expected);
    }
    let longer = [new, b"#"].concat();
    assert_eq!(redo.content_for(&longer), None);
    if let Some(content) = redo.content_for(bytes) {
        assert_eq!((content, bytes.len()), (new, old.len()));
    }
}
