//! Values and decisions: bytes in, values out. No file, process, socket, environment or clock is
//! touched here; the module of the same name in `host` does that.

pub(crate) mod bytes;
pub(crate) mod cause;
pub(crate) mod cgroup;
pub(crate) mod check;
pub(crate) mod claim;
pub(crate) mod cleanup;
pub(crate) mod container_id;
pub(crate) mod containers_storage;
pub(crate) mod cut;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod engine;
pub(crate) mod extension;
pub(crate) mod glob;
pub(crate) mod grubenv;
pub(crate) mod hook;
pub(crate) mod hook_failure;
pub(crate) mod image;
pub(crate) mod inventory;
pub(crate) mod labels;
pub(crate) mod lifecycle;
pub(crate) mod log;
pub(crate) mod mounts;
pub(crate) mod object;
pub(crate) mod operator;
pub(crate) mod os_release;
pub(crate) mod phrase;
pub(crate) mod proxy;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod stored;
pub(crate) mod verdict;
