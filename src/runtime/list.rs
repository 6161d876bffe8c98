//! `list`: the containers under the state roots. What is not this runtime's is passed over.

use super::{Context, Error, Outcome, observe, print, print_json};
use crate::cli::runtime::ListFormat;
use crate::host::container::state_dir::{Loaded, StateRoot};
use crate::model::container::lifecycle::Status;
use crate::model::container::state::State;
use crate::model::text::cause::chain;
use std::fmt::Write as _;

/// `second` is another root whose containers are shown too.
pub(super) fn list(
    context: &Context<'_>,
    second: Option<&StateRoot>,
    format: ListFormat,
) -> Outcome {
    let mut containers = gather(context, &context.root)?;
    if let Some(second) = second {
        match gather(context, second) {
            Ok(more) => containers.extend(more),
            Err(error) => context.log.warn(&chain(&error)),
        }
        containers.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
    }
    match format {
        ListFormat::Ids => {
            let ids: String =
                containers.iter().map(|(state, _)| format!("{}\n", state.id)).collect();
            Ok(print(&ids)?)
        }
        ListFormat::Json => {
            let views: Vec<_> =
                containers.iter().map(|(state, status)| state.view(*status)).collect();
            Ok(print_json(&views)?)
        }
        ListFormat::Table => Ok(print(&table(&containers))?),
    }
}

/// A state that is damaged, or not believed, must not hide the others: the log has a warning of it.
fn gather(context: &Context<'_>, root: &StateRoot) -> Result<Vec<(Box<State>, Status)>, Error> {
    let mut containers = Vec::new();
    for id in root.ids()? {
        match root.load(&id) {
            Ok(Loaded::Ours(state)) => {
                let (_, status) = observe(&state)?;
                containers.push((state, status));
            }
            Ok(Loaded::Unknown) => {}
            Ok(Loaded::Damaged { path, why, .. }) => {
                context
                    .log
                    .warn(&format!("the state of container {id} is damaged ({path:?}: {why})"));
            }
            Err(error) => context.log.warn(&chain(&error)),
        }
    }
    Ok(containers)
}

fn table(containers: &[(Box<State>, Status)]) -> String {
    let width = |longest: Option<usize>, least: usize| longest.unwrap_or_default().max(least);
    let id_width = width(containers.iter().map(|(state, _)| state.id.len()).max(), 2);
    let bundle_width = width(containers.iter().map(|(state, _)| state.bundle.len()).max(), 6);
    let mut text = String::new();
    let mut row = |id: &str, pid: &str, status: &str, bundle: &str, created: &str| {
        // A formatter into a String cannot fail.
        let _ = writeln!(
            text,
            "{id:<id_width$}  {pid:<7}  {status:<8}  {bundle:<bundle_width$}  {created}"
        );
    };
    row("ID", "PID", "STATUS", "BUNDLE", "CREATED");
    for (state, status) in containers {
        let view = state.view(*status);
        let (pid, status) = (view.pid.to_string(), view.status.to_string());
        row(view.id, &pid, &status, view.bundle, view.created);
    }
    text
}
