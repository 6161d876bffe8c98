//! The running kernel and OS, the boot environment, and the lock on changes of them.

pub(crate) mod release;
mod boot_file;
pub(crate) mod boot_mounts;
pub(crate) mod block_redo;
pub(crate) mod block;
pub(crate) mod operation_lock;
pub(crate) mod override_store;
pub(crate) mod slot;
pub(crate) mod history;
pub(crate) mod kernel_image;
pub(crate) mod brought_kernel;
pub(crate) mod simulated_device;
pub(crate) mod volume;
pub(crate) mod volume_folder;
