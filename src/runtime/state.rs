//! `state ID`: the OCI state, as it truly is.

use super::{Context, Error, Outcome, observe, print_json};
use crate::host::container::state_dir::Loaded;
use crate::model::container::id::ContainerId;
use crate::model::container::state::State;

pub(super) fn state(context: &Context<'_>, id: &ContainerId) -> Outcome {
    let state = load(context, id)?;
    let (_, status) = observe(&state)?;
    Ok(print_json(&state.view(status))?)
}

/// The state of a container that must be known.
pub(super) fn load(context: &Context<'_>, id: &ContainerId) -> Result<Box<State>, Error> {
    known(id, context.root.load(id)?)
}

/// The state, or the error that says why there is none.
pub(super) fn known(id: &ContainerId, loaded: Loaded) -> Result<Box<State>, Error> {
    let id = id.to_string();
    match loaded {
        Loaded::Ours(state) => Ok(state),
        Loaded::Unknown => Err(Error::Unknown { id }),
        Loaded::Damaged { path, why, .. } => Err(Error::Damaged { id, path, why }),
    }
}
