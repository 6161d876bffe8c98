//! The files and processes of a container, in the order in which `create` meets them.

pub(crate) mod bundle;
pub(crate) mod rootfs;
pub(crate) mod state_dir;
pub(crate) mod lock_holder;
pub(crate) mod console;
pub(crate) mod mount_namespace;
pub(crate) mod attached;
pub(crate) mod image_hook;
pub(crate) mod manager_call;
pub(crate) mod hook;
pub(crate) mod guard;
pub(crate) mod log;
pub(crate) mod outlived;
pub(crate) mod net_namespace;
pub(crate) mod system_call_filter;
pub(crate) mod sandbox;
pub(crate) mod proxy;
pub(crate) mod cgroup;
pub(crate) mod deploy_record;
