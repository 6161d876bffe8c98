//! What makes an image an extension: its labels, what they ask for, and its hooks.

pub(crate) mod labels;
pub(crate) mod label_sources;
pub(crate) mod role;
pub(crate) mod glob;
pub(crate) mod claim;
pub(crate) mod hook;
