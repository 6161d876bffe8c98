//! The harness that all test suites share: bundles, processes, results of calls, and what they leave behind.
#![allow(dead_code, reason = "each suite uses only some of it")]

pub(crate) mod bundle;
pub(crate) mod capture;
pub(crate) mod finished;
pub(crate) mod host;
pub(crate) mod leftovers;
pub(crate) mod numbers;
pub(crate) mod override_device;
pub(crate) mod overlay_store;
pub(crate) mod proc_fs;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod recorded_engine;
pub(crate) mod recorded_store;
