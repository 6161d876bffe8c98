//! The linter: `read` turns an input into values, `rules` decides about them.

pub(crate) mod read;
pub(crate) mod rules;
