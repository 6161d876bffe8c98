//! Values and decisions: bytes in, values out. No file, process, socket, environment or clock is
//! touched here; the file of the same wing in `host` does that.

pub(crate) mod text;
pub(crate) mod extension;
pub(crate) mod container;
pub(crate) mod engine;
pub(crate) mod kernel;
