//! The command lines, from the words typed to a typed request. No I/O here.

pub(crate) mod activation;
pub(crate) mod check;
pub(crate) mod commands;
#[cfg(test)]
#[path = "../../dist/documents.rs"]
mod documents;
pub(crate) mod kernel;
pub(crate) mod log_options;
pub(crate) mod manager;
pub(crate) mod plan;
pub(crate) mod runtime;
pub(crate) mod simulate;
pub(crate) mod try_extension;
pub(crate) mod values;
