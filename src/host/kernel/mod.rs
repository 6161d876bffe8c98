//! The running kernel and OS, the boot environment, and the lock on changes of them.

pub(crate) mod release;
pub(crate) mod boot_mounts;
pub(crate) mod operation_lock;
