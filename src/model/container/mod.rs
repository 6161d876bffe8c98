//! A container of this runtime: its spec, its state and the decisions of each OCI verb.

pub(crate) mod id;
pub(crate) mod spec;
pub(crate) mod environment;
pub(crate) mod state;
pub(crate) mod salvage;
pub(crate) mod lifecycle;
pub(crate) mod refusal;
pub(crate) mod proxy;
pub(crate) mod exit;
pub(crate) mod signal;
pub(crate) mod cgroup;
pub(crate) mod mount_namespace;
pub(crate) mod ownership;
pub(crate) mod lock_holder;
pub(crate) mod deploy_record;
