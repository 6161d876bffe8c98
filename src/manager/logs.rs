//! `logs ID`: what the runtime and its hooks said at the last deploy, from the runtime's own record. The
//! engine, or its store, is only asked what a name means.

use super::gather;
use super::records::Records;
use super::{Context, Exit, Failure, print, resolve};
use crate::cli::manager::Logs;
use crate::host::container::deploy_record;
use crate::model::container::deploy_record::Record;
use crate::model::text::cause::{chain, on_one_line};
use std::collections::BTreeSet;
use std::fmt::Write as _;

pub(super) fn logs(context: &Context, request: &Logs) -> Result<Exit, Failure> {
    let records = Records::find(&context.host);
    let folder = records.folder().map_err(|why| Failure::Records { why })?;
    let recorded = match folder {
        Some(folder) => deploy_record::ids(folder)?,
        None => Vec::new(),
    };
    let id = if recorded.contains(&request.id) {
        request.id.clone()
    } else {
        let known = known(context, recorded)?;
        resolve(&known, &request.id, |one| (one.id.as_str(), one.name.as_str()))?.id.clone()
    };
    let record = records.of(&id).map_err(|why| Failure::Records { why })?;
    let record = record.ok_or_else(|| Failure::NoRecord { name: request.id.clone() })?;
    print(&text(&record))?;
    Ok(Exit::Done)
}

/// A container that the engine has, or that only a record is left of, whose name nobody knows any more.
struct Known {
    id: String,
    name: String,
}

/// Everything that a name or the beginning of an id may mean.
fn known(context: &Context, recorded: Vec<String>) -> Result<Vec<Known>, Failure> {
    let containers = match gather::extensions(context) {
        Ok((containers, _)) => containers,
        Err(error @ (Failure::Stopped | Failure::Host(_))) => return Err(error),
        // Records are told all the same, by their ids.
        Err(error) => {
            let told = chain(&error);
            context.log.warn(&format!("{told}; names cannot be looked up"));
            Vec::new()
        }
    };
    let listed: BTreeSet<&str> = containers.iter().map(|one| one.id.as_str()).collect();
    let left = recorded.into_iter().filter(|id| !listed.contains(id.as_str()));
    let left: Vec<Known> = left.map(|id| Known { id, name: String::new() }).collect();
    let containers = containers.iter();
    let containers = containers.map(|one| Known { id: one.id.clone(), name: one.name.clone() });
    Ok(containers.chain(left).collect())
}

fn text(record: &Record) -> String {
    let mut text = String::new();
    for step in &record.steps {
        let became = match (&step.error, &step.refused) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "refused the extension",
            (None, None) => "succeeded",
        };
        // A formatter into a String cannot fail.
        let _ = writeln!(text, "{} {} {became}", step.time, step.verb);
        for heard in &step.hooks {
            if heard.output.is_empty() {
                let _ = writeln!(text, "  {} said nothing", heard.hook);
                continue;
            }
            let _ = writeln!(text, "  {} said:", heard.hook);
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

/// What an image prints must not drive the terminal of whoever reads it.
fn plain(line: &str) -> String {
    let parts: Vec<String> = line.split('\t').map(on_one_line).collect();
    parts.join("\t")
}
