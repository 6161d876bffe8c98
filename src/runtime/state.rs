//! `state ID`: the OCI state. The status is that of the live proxy, not just the recorded one.

use super::container::Container;
use super::error::Error;
use super::journal::Outcome;
use super::print_json;
use crate::host::container::state_dir::StateRoot;
use crate::model::container::id::ContainerId;

pub(super) fn state(root: &StateRoot, id: &ContainerId) -> Result<Outcome, Error> {
    let container = Container::open(root, id)?;
    print_json(&container.state.view(container.status))
}
