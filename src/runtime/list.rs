//! `list`: the containers under the state root. What is not this runtime's is passed over.

use super::{Context, Error, Outcome, observe, print, print_json};
use crate::cli::runtime::ListFormat;
use crate::host::state_dir::Loaded;
use crate::model::lifecycle::Status;
use crate::model::state::State;
use std::fmt::Write as _;

pub(super) fn list(context: &Context<'_>, format: ListFormat) -> Outcome {
    let containers = gather(context)?;
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

/// One damaged state must not hide the others: it is told in the log.
fn gather(context: &Context<'_>) -> Result<Vec<(Box<State>, Status)>, Error> {
    let mut containers = Vec::new();
    for id in context.root.ids()? {
        match context.root.load(&id) {
            Ok(Loaded::Ours(state)) => {
                let (_, status) = observe(&state)?;
                containers.push((state, status));
            }
            Ok(Loaded::Unknown) => {}
            Ok(Loaded::Damaged { path, why }) => {
                context
                    .log
                    .warn(&format!("the state of container {id} is damaged ({path:?}: {why})"));
            }
            Err(error) => context.log.warn(&crate::model::cause::chain(&error)),
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
