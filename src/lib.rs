//! balena-extension-runtime: an OCI runtime for hostapp extensions, and the manager that cleans up
//! after them. The modules stand in the order a call flows through them; ARCHITECTURE.md maps them.
//!
//! Only the two mains are public, so that the compiler sees what no longer has a user (and, for the fuzz
//! targets alone, `fuzzing`).

mod cli;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host;
mod manager;
mod model;
mod runtime;
mod version;

pub use manager::main as manager_main;
pub use runtime::main as runtime_main;
