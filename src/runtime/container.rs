//! A container as it is at this moment: what is recorded, and whether its proxy is alive. Every verb asks here what
//! it may do; the answers are decided in `model/container/lifecycle.rs`.

use super::error::Error;
use crate::host::container::state_dir::{Loaded, LockedContainer, Locking, StateRoot};
use crate::host::os::process::{self, Process};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{
    Audience, Delivery, Insistence, Refused, Status, can_delete, can_kill, can_start,
};
use crate::model::container::state::{ProxyIs, State};
use std::time::Duration;

pub(super) struct Container {
    pub(super) state: State,
    /// The recorded proxy, if it is alive.
    pub(super) proxy: Option<Process>,
    pub(super) status: Status,
}

impl Container {
    /// Reads the state and looks for the proxy, without the lock.
    pub(super) fn open(root: &StateRoot, id: &ContainerId) -> Result<Self, Error> {
        Self::of(id, root.load(id)?)
    }

    /// The same from a state that was `loaded` already.
    pub(super) fn of(id: &ContainerId, loaded: Loaded) -> Result<Self, Error> {
        match loaded {
            Loaded::Ours(state) => Self::observe(*state),
            Loaded::Unknown => Err(Error::Unknown { id: id.to_string() }),
            Loaded::Damaged { path, why, .. } => {
                Err(Error::Damaged { id: id.to_string(), path, why })
            }
        }
    }

    /// Looks for the proxy that `state` records.
    pub(super) fn observe(state: State) -> Result<Self, Error> {
        let proxy = match state.proxy() {
            Some(identity) => process::find_proxy(&state.id, identity)
                .map_err(|source| Error::FindProxy { id: state.id.clone(), source })?,
            None => None,
        };
        let status = state.true_status(is_alive(proxy.as_ref()));
        Ok(Self { state, proxy, status })
    }

    pub(super) fn may_start(&self) -> Result<(), Refused> {
        can_start(&self.state.id, self.status, self.state.phase)
    }

    pub(super) fn may_kill(&self, audience: Audience) -> Result<Delivery, Refused> {
        can_kill(&self.state.id, self.status, audience)
    }

    pub(super) fn may_delete(&self, insistence: Insistence) -> Result<(), Refused> {
        can_delete(&self.state.id, self.status, self.state.duty(), insistence)
    }

    /// Whether a new container of the same id may take its place, if no command works on it.
    pub(super) fn may_be_taken_over(&self) -> bool {
        self.state.may_be_taken_over(is_alive(self.proxy.as_ref()))
    }

    /// For the log.
    pub(super) fn describe(&self) -> String {
        let status = self.status;
        match &self.proxy {
            Some(proxy) => format!("the container is {status}, its proxy is {}", proxy.pid()),
            None => format!("the container is {status}; its proxy has ended"),
        }
    }
}

/// Locks a container, waiting for at most `patience`.
pub(super) fn lock(
    root: &StateRoot,
    id: &ContainerId,
    patience: Duration,
) -> Result<LockedContainer, Error> {
    match root.lock(id, patience)? {
        Locking::Locked(locked) => Ok(locked),
        Locking::Busy => Err(Error::Busy { id: id.to_string() }),
        Locking::Unknown => Err(Error::Unknown { id: id.to_string() }),
    }
}

fn is_alive(proxy: Option<&Process>) -> ProxyIs {
    if proxy.is_some() { ProxyIs::Alive } else { ProxyIs::Gone }
}
