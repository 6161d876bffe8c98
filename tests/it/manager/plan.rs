//! `plan`: what the next boot, or the next OS, will make of the extensions.

pub(crate) mod device;
mod generated;
mod kernel;
mod machine;
mod overlay_root;
mod page;
mod reference;
mod shown_files;
pub(crate) mod stores;
mod unknown;
