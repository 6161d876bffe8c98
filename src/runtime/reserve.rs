//! Reserving the id of a new container: its directory, locked, with nothing in it that counts.

use super::container::Container;
use super::error::Error;
use crate::host::container::state_dir::{Loaded, LockedContainer, StateRoot};
use crate::model::container::id::ContainerId;
use crate::model::container::state::ProxyIs;

/// A container's directory that a `create` may use.
pub(super) struct Reserved {
    pub(super) locked: LockedContainer,
    /// What a dead `create`, or an interrupted `delete`, left.
    pub(super) leftover: Option<Container>,
}

/// Makes and locks the directory of a new container, or takes over that of a container whose create or delete did not
/// finish. Of several callers one wins. After an error nothing has changed.
pub(super) fn reserve(root: &StateRoot, id: &ContainerId) -> Result<Reserved, Error> {
    let locked = root.lock_or_make(id)?;
    match locked.load_for_create()? {
        Loaded::Unknown if locked.is_empty()? => Ok(Reserved { locked, leftover: None }),
        Loaded::Ours(state) if state.may_be_taken_over(ProxyIs::Gone) => {
            let container = Container::observe(*state)?;
            if !container.may_be_taken_over() {
                return Err(locked.taken().into());
            }
            Ok(Reserved { locked, leftover: Some(container) })
        }
        Loaded::Unknown | Loaded::Ours(_) | Loaded::Damaged { .. } => Err(locked.taken().into()),
    }
}

#[cfg(test)]
#[path = "reserve_tests.rs"]
mod tests;
