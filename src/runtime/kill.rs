//! `kill ID SIGNAL`: a signal to the proxy, through a pidfd. It takes no lock, so a hook that hangs
//! does not delay it.

use super::container::Container;
use super::error::Error;
use super::journal::{Journal, Outcome};
use crate::host::container::state_dir::StateRoot;
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Audience, Delivery};
use crate::model::container::signal::Signal;

pub(super) fn kill(
    journal: &Journal,
    root: &StateRoot,
    id: &ContainerId,
    signal: Signal,
    audience: Audience,
) -> Result<Outcome, Error> {
    let container = Container::open(root, id)?;
    journal.debug(|| container.describe());
    let number = signal.number();
    let did = match (container.may_kill(audience)?, &container.proxy) {
        (Delivery::Signal, Some(proxy)) => {
            let pid = proxy.pid();
            proxy.signal(signal).map_err(|source| Error::SignalProxy { pid, source })?;
            format!("sent signal {number} to the proxy {pid}")
        }
        (Delivery::Signal | Delivery::Nothing, _) => {
            format!("signal {number} was not sent: the container is {}", container.status)
        }
    };
    Ok(Outcome::Did(did))
}
