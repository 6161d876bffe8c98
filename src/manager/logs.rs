//! `logs ID`: prints the runtime's record of the last deploy, with the output of the hooks. The engine, or its
//! store, is only asked for names.

use super::gather;
use super::records::Records;
use super::{Failure, ManagerExit, Session, print, resolve};
use crate::cli::manager::LogsArguments;
use crate::host::container::deploy_record;
use crate::model::container::deploy_record::DeployRecord;
use crate::model::text::cause::{chain, on_one_line};
use std::fmt::Write as _;

pub(super) fn logs(session: &Session, request: &LogsArguments) -> Result<ManagerExit, Failure> {
    let records = Records::find(&session.host);
    let directory = records.directory().map_err(|why| Failure::Records { why })?;
    let recorded = match directory {
        Some(directory) => deploy_record::ids(directory)?,
        None => Vec::new(),
    };
    let id = if recorded.contains(&request.id) {
        request.id.clone()
    } else {
        let all = candidates(session, recorded)?;
        resolve(&all, &request.id, |(id, name)| (id, name))?.0.clone()
    };
    let record = records.of(&id).map_err(|why| Failure::Records { why })?;
    let record = record.ok_or_else(|| Failure::NoRecord { name: request.id.clone() })?;
    print(&text(&record))?;
    Ok(ManagerExit::Done)
}

/// The ids and names of the engine's containers, and the ids of those of which only a record is left.
fn candidates(session: &Session, recorded: Vec<String>) -> Result<Vec<(String, String)>, Failure> {
    let containers = match gather::extensions(session) {
        Ok(containers) => containers,
        Err(error @ (Failure::Stopped | Failure::Host(_))) => return Err(error),
        // Records can still be found by their ids.
        Err(error) => {
            session.log.warn(&format!("{}; names cannot be looked up", chain(&error)));
            Vec::new()
        }
    };
    let mut all: Vec<_> = containers.into_iter().map(|one| (one.id, one.name)).collect();
    for id in recorded {
        if !all.iter().any(|(known, _)| *known == id) {
            all.push((id, String::new()));
        }
    }
    Ok(all)
}

fn text(record: &DeployRecord) -> String {
    let mut text = String::new();
    for step in &record.steps {
        let result = match (&step.error, &step.refused) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "refused the extension",
            (None, None) => "succeeded",
        };
        // A formatter into a String cannot fail.
        let _ = writeln!(text, "{} {} {result}", step.time, step.verb);
        for heard in &step.hooks {
            if heard.output.is_empty() {
                let _ = writeln!(text, "  {} printed nothing", heard.hook);
                continue;
            }
            let _ = writeln!(text, "  {} printed:", heard.hook);
            for line in heard.output.lines() {
                let _ = writeln!(text, "    {}", plain(line));
            }
        }
        for warning in &step.warnings {
            let _ = writeln!(text, "  warning: {}", plain(warning));
        }
        if let Some(error) = &step.error {
            let _ = writeln!(text, "  error: {}", plain(error));
        }
    }
    text
}

/// The output of an image must not control the reader's terminal.
fn plain(line: &str) -> String {
    let parts: Vec<String> = line.split('\t').map(on_one_line).collect();
    parts.join("\t")
}
