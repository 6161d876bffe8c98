//! `cleanup`: gather → plan → apply → report. `model/engine/cleanup.rs` decides which objects are removed, and why.

use super::apply::{Done, apply};
use super::cleanup_report::CleanupReport;
use super::deactivate;
use super::gather::{self, Breadth};
use super::records::Records;
use super::sharing::shared_volumes;
use super::{Failure, ManagerExit, Session};
use crate::cli::manager::CleanupArguments;
use crate::host::engine::cleanup_record;
use crate::host::engine::client::Client;
use crate::host::kernel::boot_mounts;
use crate::host::kernel::operation_lock::OperationLock;
use crate::host::kernel::release;
use crate::host::os::privilege;
use crate::model::engine::cleanup::{Plan, Window, plan};
use crate::model::engine::inspection::Errors;
use crate::model::engine::inventory::{Detail, EngineContainer, EngineState, Inventory};
use crate::model::kernel::rollback::Rollback;
use crate::model::text::cause::chain;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause between two attempts to reach an engine that is starting up.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn cleanup(
    session: &Session,
    request: &CleanupArguments,
) -> Result<ManagerExit, Failure> {
    if !request.dry_run {
        privilege::check()?;
    }
    refuse_before_commit(session, request)?;
    let client = Arc::new(connect(session, request)?);
    let lock = match request.dry_run {
        true => None,
        false => Some(OperationLock::acquire(
            &session.host,
            session.limit.deadline,
            &session.limit.stop,
        )?),
    };
    // An update may have begun in the meantime.
    if !request.force {
        refuse_before_commit(session, request)?;
    }
    let running = request.stale_os.then(|| release::running(&session.host));
    let window = running.as_ref().map_or(Window::RollbackPossible, Window::Committed);
    let (inventory, mut plan) = decide(session, &client, window, &[])?;
    if plan.removes_volumes() {
        match gather::volume_sizes(&client) {
            Ok(sizes) => plan.measure(&sizes),
            Err(error) if error.is_stop() => return Err(Failure::Stopped),
            // No decision depends on sizes.
            Err(error) => session.log.warn(&format!("{}; sizes are left out", chain(&error))),
        }
    }
    let plan = Arc::new(plan);
    let (results, completed) = match lock {
        Some(lock) => apply(session, &client, &plan, inventory.containers, lock),
        None => {
            let preview =
                |one| Done { result: None, deactivated: deactivate::preview(&session.host, one) };
            (plan.0.iter().map(preview).collect(), Ok(()))
        }
    };
    session.log_requests(&client);
    let report = CleanupReport::new(request, &plan, &inventory.unreadable, &results);
    if completed.is_ok() && !request.dry_run {
        // The cleanup is done, so this is no failure of it.
        if let Err(error) = cleanup_record::save(&session.host, report.failures()) {
            session.log.warn(&chain(&error));
        }
    }
    report.print(request.format)?;
    report.log_failures(&session.log);
    completed?;
    if report.failures() == 0 {
        return Ok(ManagerExit::Done);
    }
    // Objects that failed may have failed because the end came.
    session.limit.check()?;
    Ok(ManagerExit::Failed)
}

/// Fails if claims are to be judged while an update can still roll back.
fn refuse_before_commit(session: &Session, request: &CleanupArguments) -> Result<(), Failure> {
    if !request.stale_os {
        return Ok(());
    }
    match boot_mounts::rollback(&session.host) {
        Rollback::Possible { path } if !request.force => Err(Failure::RollbackPossible { path }),
        Rollback::Possible { .. } | Rollback::Impossible => Ok(()),
        Rollback::Unknown { why } if request.force => {
            session.log.warn(&format!("{why}; continuing (--force)"));
            Ok(())
        }
        Rollback::Unknown { why } => Err(Failure::WindowUnknown { why }),
    }
}

/// Connects, and waits for an engine that is starting up if the user asks for that.
fn connect(session: &Session, request: &CleanupArguments) -> Result<Client, Failure> {
    let deadline = Instant::now() + request.wait;
    loop {
        match session.connect() {
            Err(Failure::Engine(error)) if error.may_pass() && Instant::now() < deadline => {
                if session.limit.stop.pause(PAUSE) {
                    return Err(Failure::Stopped);
                }
            }
            result => return result,
        }
    }
}

/// Gathers the facts, and makes the plan, without the sizes of volumes. The containers that are `inspected` already are
/// not inspected again.
pub(super) fn decide(
    session: &Session,
    client: &Arc<Client>,
    window: Window<'_>,
    inspected: &[EngineContainer],
) -> Result<(Inventory, Plan), Failure> {
    let mut inventory = match window {
        Window::RollbackPossible => {
            let listed = gather::fabricated_volumes(client);
            let fabricated = match listed {
                Err(error) if error.is_stop() => return Err(Failure::Stopped),
                // The containers are cleaned up all the same.
                Err(error) => Inventory { unreadable: vec![chain(&error)], ..Inventory::default() },
                Ok(fabricated) => fabricated,
            };
            let mut inventory = gather::containers(client, Breadth::Extensions)?;
            inventory.volumes = fabricated.volumes;
            inventory.unreadable.splice(0..0, fabricated.unreadable);
            inventory
        }
        Window::Committed(_) => {
            let leftovers = gather::leftovers(client)?;
            // After images and volumes: a container that is made in the meantime counts as a user of them.
            let Inventory { containers, foreign, unreadable, .. } =
                gather::containers(client, Breadth::Everything)?;
            let unreadable = leftovers.unreadable.into_iter().chain(unreadable).collect();
            Inventory { containers, foreign, unreadable, ..leftovers }
        }
    };
    let listed = std::mem::take(&mut inventory.containers);
    let ids: BTreeSet<String> = listed.iter().map(|container| container.id.clone()).collect();
    let known: BTreeSet<&str> = inspected.iter().map(|container| container.id.as_str()).collect();
    let is_new = |one: &EngineContainer| !known.contains(one.id.as_str());
    let mut new: Vec<_> = listed.into_iter().filter(is_new).collect();
    gather::inspect(session, client, &mut new)?;
    // One that has disappeared since uses nothing any more.
    let old = inspected.iter().filter(|container| ids.contains(&container.id)).cloned();
    inventory.containers = old.chain(new).collect();
    if client.errors() == Errors::NotKept {
        let records = Records::find(&session.host);
        inventory.containers.iter_mut().for_each(|container| add_failure(container, &records));
    }
    if matches!(window, Window::Committed(_)) {
        inventory.shared = shared_volumes(&session.host, &inventory);
    }
    let plan = plan(&inventory, window);
    Ok((inventory, plan))
}

/// Adds the failure that the runtime has recorded, if the engine does not keep errors.
fn add_failure(container: &mut EngineContainer, records: &Records) {
    let Detail::Known(last_run) = &mut container.detail else { return };
    let has_ended = matches!(container.state, EngineState::Created | EngineState::Exited);
    if !has_ended || last_run.error.is_some() {
        return;
    }
    match records.failure(&container.id) {
        Ok(failure) => last_run.error = failure,
        Err(why) => container.detail = Detail::Unreadable(why),
    }
}
