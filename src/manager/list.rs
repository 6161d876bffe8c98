//! `list`: ids and names, for scripts. One request, and no verdicts.

use super::gather;
use super::{Context, Exit, Failure, print_by, print_json};
use crate::cli::manager::{Format, List};
use serde::Serialize;

/// The version of the JSON.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    command: &'static str,
    extensions: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
}

pub(super) fn list(context: &Context, request: &List) -> Result<Exit, Failure> {
    let (containers, _) = gather::extensions(context)?;
    let rows = containers.iter().map(|one| Row { id: &one.id, name: &one.name });
    match request.format {
        Format::Json => {
            print_json(&Document { schema: SCHEMA, command: "list", extensions: rows.collect() })?;
        }
        Format::Table => print_by(|stdout| {
            for Row { id, name } in rows {
                match request.quiet {
                    true => writeln!(stdout, "{id}")?,
                    false => writeln!(stdout, "{id}\t{name}")?,
                }
            }
            Ok(())
        })?,
    }
    Ok(Exit::Done)
}
