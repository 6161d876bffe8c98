//! `logs ID`: what the runtime and its hooks said at the last deploy, from the runtime's own record. The
//! engine, or its store, is only asked what a name means.

use super::gather::{self, Depth};
use super::{Context, Exit, Failure, print, resolve};
use crate::cli::manager::Logs;
use crate::host::deploy;
use crate::model::cause::{chain, on_one_line};
use crate::model::container_id::ContainerId;
use crate::model::deploy::Record;
use std::fmt::Write as _;

pub(super) fn logs(context: &Context, request: &Logs) -> Result<Exit, Failure> {
    let folder = context.host.path(deploy::FOLDER);
    let recorded = deploy::ids(&folder)?;
    let named = |id: &String| -> Result<Option<Record>, Failure> {
        match ContainerId::parse(id) {
            Ok(id) => Ok(deploy::load(&folder, &id)?),
            // No container has such an id, so there is no such record.
            Err(_) => Ok(None),
        }
    };
    let record = match resolve(&recorded, &request.id, |id| (id.as_str(), id.as_str())) {
        Ok(id) => named(id)?,
        Err(ambiguous @ Failure::Ambiguous { .. }) => return Err(ambiguous),
        // Not the beginning of an id: a name, which only the engine knows.
        Err(_) => match engines_id(context, &request.id)? {
            Some(id) => named(&id)?,
            None => None,
        },
    };
    let record = record.ok_or_else(|| Failure::NoRecord { name: request.id.clone() })?;
    print(&text(&record))?;
    Ok(Exit::Done)
}

fn engines_id(context: &Context, name: &str) -> Result<Option<String>, Failure> {
    let containers = match gather::extensions(context, Depth::Listed) {
        Ok((containers, _)) => containers,
        Err(error @ Failure::Stopped) => return Err(error),
        // Records are told all the same, by their ids.
        Err(error) => {
            let told = chain(&error);
            context.log.warn(&format!("{told}; names cannot be looked up"));
            return Ok(None);
        }
    };
    let one = resolve(&containers, name, |one| (one.id.as_str(), one.name.as_str()))?;
    Ok(Some(one.id.clone()))
}

fn text(record: &Record) -> String {
    let mut text = String::new();
    for step in &record.steps {
        let became = if step.error.is_some() { "failed" } else { "succeeded" };
        // A formatter into a String cannot fail.
        let _ = writeln!(text, "{} {} {became}", step.time, step.verb);
        for heard in step.hooks.iter().filter(|heard| !heard.output.is_empty()) {
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
