//! `list`: the containers of this runtime under the state roots.

use super::container::Container;
use super::error::Error;
use super::journal::{Journal, Outcome};
use super::{print, print_json};
use crate::cli::runtime::AnswerFormat;
use crate::host::container::state_dir::{Loaded, StateRoot};
use crate::model::text::cause::chain;
use std::fmt::Write as _;

/// `second` is another root whose containers are shown too. Without a format, only ids are shown.
pub(super) fn list(
    journal: &mut Journal,
    root: &StateRoot,
    second: Option<&StateRoot>,
    format: Option<AnswerFormat>,
) -> Result<Outcome, Error> {
    let mut containers = load_all(journal, root)?;
    if let Some(second) = second {
        match load_all(journal, second) {
            Ok(more) => containers.extend(more),
            Err(error) => journal.warn(&chain(&error)),
        }
        containers.sort_by(|a, b| a.state.id.cmp(&b.state.id));
    }
    match format {
        None => {
            let ids: String = containers.iter().map(|it| format!("{}\n", it.state.id)).collect();
            print(&ids)
        }
        Some(AnswerFormat::Json) => {
            let views: Vec<_> = containers.iter().map(|it| it.state.view(it.status)).collect();
            print_json(&views)
        }
        Some(AnswerFormat::Table) => print(&table(&containers)),
    }
}

/// A state that is damaged, or not trusted, must not hide the others: the log has a warning of it.
fn load_all(journal: &mut Journal, root: &StateRoot) -> Result<Vec<Container>, Error> {
    let mut containers = Vec::new();
    for id in root.ids()? {
        match root.load(&id) {
            Ok(Loaded::Ours(state)) => containers.push(Container::observe(*state)?),
            Ok(Loaded::Unknown) => {}
            Ok(Loaded::Damaged { path, why, .. }) => {
                journal.warn(&format!("the state of container {id} is damaged ({path:?}: {why})"));
            }
            Err(error) => journal.warn(&chain(&error)),
        }
    }
    Ok(containers)
}

fn table(containers: &[Container]) -> String {
    let width = |longest: Option<usize>, least: usize| longest.unwrap_or_default().max(least);
    let id_width = width(containers.iter().map(|it| it.state.id.len()).max(), 2);
    let bundle_width = width(containers.iter().map(|it| it.state.bundle.len()).max(), 6);
    let mut text = String::new();
    let mut row = |id: &str, pid: &str, status: &str, bundle: &str, created: &str| {
        // A formatter into a String cannot fail.
        let _ = writeln!(
            text,
            "{id:<id_width$}  {pid:<7}  {status:<8}  {bundle:<bundle_width$}  {created}"
        );
    };
    row("ID", "PID", "STATUS", "BUNDLE", "CREATED");
    for Container { state, status, .. } in containers {
        let view = state.view(*status);
        let (pid, status) = (view.pid.to_string(), view.status.to_string());
        row(view.id, &pid, &status, view.bundle, view.created);
    }
    text
}
