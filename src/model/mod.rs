//! Values and decisions: bytes in, values out. No file, process, socket, environment or clock is
//! touched here; the module of the same name in `host` does that.

pub(crate) mod cause;
pub(crate) mod cgroup;
pub(crate) mod check;
pub(crate) mod container_id;
pub(crate) mod engine;
pub(crate) mod extension;
pub(crate) mod hook;
pub(crate) mod hook_failure;
pub(crate) mod image;
pub(crate) mod lifecycle;
pub(crate) mod log;
pub(crate) mod operator;
pub(crate) mod proxy;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod store;
