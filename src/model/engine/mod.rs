//! What an engine knows of the extensions, and the decisions of the manager about them.

pub(crate) mod api;
pub(crate) mod inspection;
pub(crate) mod stored_claim;
pub(crate) mod containers_storage;
pub(crate) mod image_store;
pub(crate) mod inventory;
pub(crate) mod sharing;
pub(crate) mod volume_claims;
pub(crate) mod cleanup;
pub(crate) mod doctor;
pub(crate) mod verdict;
pub(crate) mod space;
pub(crate) mod cleanup_record;
pub(crate) mod metrics;
pub(crate) mod boot_selection;
pub(crate) mod boot_overlay;
pub(crate) mod boot_plan;
pub(crate) mod tried_extension;
