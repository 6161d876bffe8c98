//! The operating system, without knowledge of extensions: files, processes, signals, streams.

#[cfg(target_env = "musl")]
pub(crate) mod allocator;
pub(crate) mod descriptor;
pub(crate) mod clock;
pub(crate) mod unblocked;
pub(crate) mod stdio;
pub(crate) mod log;
pub(crate) mod read;
pub(crate) mod directory;
pub(crate) mod system_call;
pub(crate) mod trusted;
pub(crate) mod host_root;
pub(crate) mod atomic_file;
pub(crate) mod flock;
pub(crate) mod sparse_copy;
pub(crate) mod disk;
pub(crate) mod process;
pub(crate) mod privilege;
pub(crate) mod signals;
pub(crate) mod reaper;
pub(crate) mod spawn;
pub(crate) mod systemd;
pub(crate) mod root_view;
pub(crate) mod view_process;
