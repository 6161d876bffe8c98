//! The manager, on a recorded engine: a small server on a unix socket, which can be brought into states
//! that a real engine cannot. What a real engine can do is tested on one (`tests/engines`).

mod aborted_deactivate;
mod check;
mod cleanup;
mod deactivate;
mod dry_run;
mod faulty_engine;
pub(crate) mod host;
mod oversized_answers;
mod podman;
mod recorded_engine;
pub(crate) mod recorded_store;
mod reports;
