//! An engine: its HTTP API, and its data on disk.

pub(crate) mod socket;
pub(crate) mod error;
mod transport;
pub(crate) mod client;
pub(crate) mod label_sources;
pub(crate) mod layer_links;
pub(crate) mod stored_containers;
pub(crate) mod layer_store;
pub(crate) mod stored_image;
pub(crate) mod os_layers;
pub(crate) mod hidden_files;
pub(crate) mod merged_layers;
pub(crate) mod claims;
pub(crate) mod process;
pub(crate) mod cleanup_record;
