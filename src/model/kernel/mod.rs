//! The running kernel and OS, and the boot that chose them.

pub(crate) mod os_release;
pub(crate) mod mounts;
pub(crate) mod block;
pub(crate) mod rollback;
