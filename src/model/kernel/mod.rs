//! The running kernel and OS, and the boot that chose them.

pub(crate) mod os_release;
pub(crate) mod mounts;
pub(crate) mod mount_table;
pub(crate) mod abi;
pub(crate) mod records;
pub(crate) mod block;
pub(crate) mod torn_write;
pub(crate) mod rollback;
pub(crate) mod verdict;
pub(crate) mod block_change;
pub(crate) mod transition;
pub(crate) mod initramfs;
pub(crate) mod volume;
pub(crate) mod history;
#[cfg(test)]
mod protocol_tests;
