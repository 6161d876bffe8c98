//! The command lines, from the words typed to a typed request. No I/O here.

pub(crate) mod check;
mod commands;
#[cfg(test)]
#[path = "../../dist/documents.rs"]
mod documents;
pub(crate) mod help;
pub(crate) mod log_options;
pub(crate) mod manager;
pub(crate) mod runtime;
mod unsupported;
