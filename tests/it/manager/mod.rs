//! The manager on a recorded engine: a small server on a unix socket, which can have states that a real engine
//! cannot. The scenarios that a real engine can have are tested on one (`tests/engines`).

mod aborted_deactivate;
mod activate;
mod check;
mod cleanup;
mod deactivate;
mod dry_run;
mod fabricated_volumes;
pub(crate) mod fabricate;
mod faulty_engine;
pub(crate) mod host;
pub(crate) mod override_device;
mod overrides;
mod override_crashes;
mod override_reports;
mod oversized_answers;
mod podman;
pub(crate) mod recorded_engine;
pub(crate) mod recorded_store;
mod reports;
