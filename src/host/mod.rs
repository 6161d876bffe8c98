//! The edge: files, processes, sockets. Nothing is decided here; the file of the same wing in
//! `model` does that.

pub(crate) mod os;
pub(crate) mod container;
pub(crate) mod engine;
pub(crate) mod kernel;
