//! What an engine knows of the extensions, and the decisions of the manager about them.

pub(crate) mod api;
pub(crate) mod inspection;
#[allow(dead_code, reason = "the commands that use it follow")]
pub(crate) mod stored_claim;
pub(crate) mod containers_storage;
pub(crate) mod inventory;
pub(crate) mod sharing;
pub(crate) mod volume_claims;
pub(crate) mod cleanup;
pub(crate) mod doctor;
pub(crate) mod verdict;
