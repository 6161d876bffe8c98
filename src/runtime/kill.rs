//! `kill ID SIGNAL`: a signal to the proxy, through a pidfd. It takes no lock, so a hook that hangs
//! does not hold it up.

use super::{Context, Error, Outcome, observe, state};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Audience, Delivery, can_kill};
use crate::model::container::signal::Signal;

pub(super) fn kill(
    context: &Context<'_>,
    id: &ContainerId,
    signal: Signal,
    audience: Audience,
) -> Outcome {
    let state = state::load(context, id)?;
    let (proxy, status) = observe(&state)?;
    context.log.debug(|| match &proxy {
        Some(proxy) => format!("the container is {status}, its proxy is {}", proxy.pid()),
        None => format!("the container is {status}, its proxy has ended"),
    });
    let number = signal.number();
    let told = match (can_kill(id.as_str(), status, audience)?, proxy) {
        (Delivery::Signal, Some(proxy)) => {
            let failed = |source| Error::Proxy { id: id.to_string(), source };
            proxy.signal(signal).map_err(failed)?;
            format!("sent signal {number} to the proxy {}", proxy.pid())
        }
        (Delivery::Signal | Delivery::Nothing, _) => {
            format!("signal {number} had nobody left to go to: the container is {status}")
        }
    };
    Ok(Some(told))
}
