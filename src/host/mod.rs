//! The edge: files, processes, sockets. Nothing is decided here; the module of the same name in
//! `model` does that.

pub(crate) mod atomic_file;
pub(crate) mod bundle;
pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod console;
pub(crate) mod container_log;
pub(crate) mod container_store;
pub(crate) mod deploy;
pub(crate) mod descriptor;
pub(crate) mod disk;
pub(crate) mod engine;
pub(crate) mod grubenv;
pub(crate) mod guard;
pub(crate) mod hook;
pub(crate) mod host_root;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod listing;
pub(crate) mod log;
pub(crate) mod net_namespace;
pub(crate) mod operation_lock;
pub(crate) mod operator;
pub(crate) mod os_release;
pub(crate) mod output;
pub(crate) mod privilege;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod reaper;
pub(crate) mod rootfs;
pub(crate) mod sandbox;
pub(crate) mod spawn;
pub(crate) mod state_dir;
pub(crate) mod stop;
pub(crate) mod store;
pub(crate) mod unit;
