//! `list`: ids and names, for scripts. One request, and no verdicts.

use super::gather;
use super::{Failure, ManagerExit, Session, print, print_json};
use crate::cli::manager::ListArguments;
use crate::cli::values::OutputFormat;
use serde::Serialize;

#[derive(Serialize)]
struct ListDocument<'a> {
    schema: u32,
    command: &'static str,
    extensions: Vec<ListedExtension<'a>>,
}

#[derive(Serialize)]
struct ListedExtension<'a> {
    id: &'a str,
    name: &'a str,
}

pub(super) fn list(session: &Session, request: &ListArguments) -> Result<ManagerExit, Failure> {
    let containers = gather::extensions(session)?;
    let rows = containers.iter().map(|one| ListedExtension { id: &one.id, name: &one.name });
    match request.format {
        OutputFormat::Json => {
            print_json(&ListDocument { schema: 1, command: "list", extensions: rows.collect() })?;
        }
        OutputFormat::Table => {
            let line = |ListedExtension { id, name }| match request.quiet {
                true => format!("{id}\n"),
                false => format!("{id}\t{name}\n"),
            };
            print(&rows.map(line).collect::<String>())?;
        }
    }
    Ok(ManagerExit::Done)
}
