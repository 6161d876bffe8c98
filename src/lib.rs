//! balena-extension-runtime: an OCI runtime for hostapp extensions, and the manager that cleans up
//! after them. The modules stand in the order a call flows through them; ARCHITECTURE.md maps them.
//!
//! Only the two mains and an allocator are public, so that the compiler sees what no longer has a user (and, for
//! the fuzz targets alone, `fuzzing`).

mod cli;
mod runtime;
mod manager;
mod check;
mod model;
mod host;
mod version;
#[cfg(test)]
mod golden_tests;

#[cfg(fuzzing)]
#[path = "../fuzz/properties/mod.rs"]
pub mod fuzzing;

#[cfg(target_env = "musl")]
pub use host::os::allocator::SingleThreaded;
pub use manager::main as manager_main;
pub use runtime::main as runtime_main;
