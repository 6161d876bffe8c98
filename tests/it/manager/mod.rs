//! The manager on a recorded engine: a small server on a unix socket, which can have states that a real engine
//! cannot. The scenarios that a real engine can have are tested on one (`tests/engines`).

pub(crate) use crate::support::{
    host, overlay_store, override_device, recorded_engine, recorded_store,
};

mod aborted_deactivate;
mod activate;
mod check;
mod cleanup;
mod deactivate;
mod dry_run;
mod fabricated_volumes;
mod fabricate;
mod faulty_engine;
mod host_root;
mod overrides;
mod override_bad_input;
mod override_crashes;
mod override_reports;
mod oversized_answers;
pub(crate) mod plan;
mod podman;
mod reports;
mod silent_engine;
mod metrics;
mod space;
mod try_extension;
mod simulate;
