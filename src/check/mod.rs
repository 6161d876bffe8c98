//! The linter: `read` turns an image into values, `rules` judges them.

pub(crate) mod read;
pub(crate) mod rules;
