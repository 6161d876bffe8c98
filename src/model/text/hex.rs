//! Hashes in hex digits.

/// A hash as sha256sum(1) prints it.
pub(crate) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
