//! The manager, on a recorded engine: a small server on a unix socket, which can be brought into states
//! that a real engine cannot. What a real engine can do is tested on one (`tests/engines`).

mod at_the_limit;
mod check;
mod cleanup;
mod deactivate;
mod faults;
mod host;
mod huge;
mod podman;
mod recorded;
mod same_plan;
mod store;
mod telling;
