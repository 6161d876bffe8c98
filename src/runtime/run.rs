//! `run ID`: create, start and delete in one process, for people at a terminal. Ctrl-C and its like leave nothing
//! behind; SIGKILL leaves a container, as it does of the three commands.

use super::container::Container;
use super::create::create;
use super::delete::delete;
use super::error::Error;
use super::journal::{Journal, Outcome};
use super::record::recorded;
use super::start::start;
use crate::cli::runtime::{Afterwards, Create};
use crate::host::container::state_dir::StateRoot;
use crate::host::os::process::Process;
use crate::host::os::reaper;
use crate::host::os::signals::Stop;
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::{Duty, Insistence};
use std::path::Path;

pub(super) fn run(
    journal: &mut Journal,
    root: &StateRoot,
    docker_root: Option<&Path>,
    request: &Create,
    afterwards: Afterwards,
) -> Result<Outcome, Error> {
    let id = &request.id;
    let stop = Stop::listen().map_err(|source| Error::Watch { source })?;
    if stop.is_wished() {
        return Err(Error::Interrupted);
    }
    journal.stop = Some(stop);
    // A create that fails leaves nothing.
    let created = create(journal, root, docker_root, request);
    recorded(journal, "create", id, created)?;
    let ran = start_and_wait(journal, root, id);
    // From here on signals are ignored: an interrupted run cleans up.
    journal.stop = None;
    if ran.is_ok() && afterwards == Afterwards::Keep {
        return Ok(Outcome::Did("ran; kept".to_owned()));
    }
    let mut delete = |insistence| {
        let deleted = delete(journal, root, id, insistence);
        recorded(journal, "delete", id, deleted)
    };
    let result = match ran {
        Ok(()) => {
            let deleted = delete(Insistence::Plain).or_else(|_| delete(Insistence::Force));
            deleted.map(|_| Outcome::Did("ran".to_owned()))
        }
        Err(first) => {
            let then = delete(Insistence::Force).err();
            Err(first.and("cleaning up", then.into_iter().collect()))
        }
    };
    // The proxy was a child of this process.
    reaper::reap_ended();
    result
}

/// Starts the container, and waits until the proxy of a sandbox has ended.
fn start_and_wait(journal: &mut Journal, root: &StateRoot, id: &ContainerId) -> Result<(), Error> {
    check_interrupt(journal)?;
    let started = start(journal, root, id);
    if let Outcome::Refused(refusal) = recorded(journal, "start", id, started)? {
        return Err(Error::RefusedInRun { refusal });
    }
    let Container { state, proxy, .. } = Container::open(root, id)?;
    match proxy {
        Some(proxy) if state.duty() == Duty::Stay => wait(journal, &proxy),
        Some(_) | None => check_interrupt(journal),
    }
}

fn check_interrupt(journal: &Journal) -> Result<(), Error> {
    match &journal.stop {
        Some(stop) if stop.is_wished() => Err(Error::Interrupted),
        Some(_) | None => Ok(()),
    }
}

/// Waits until the proxy has ended, however long that takes.
fn wait(journal: &Journal, proxy: &Process) -> Result<(), Error> {
    match &journal.stop {
        Some(stop) => match stop.or_end_of(proxy).map_err(|source| Error::Watch { source })? {
            true => Ok(()),
            false => Err(Error::Interrupted),
        },
        None => Ok(()),
    }
}
