//! The runtime: from a command line to one verb, its log and its record. One file per verb.

mod error;
mod journal;
mod record;
mod roots;
mod container;
mod prepare;
mod reserve;
mod hooks;
mod kernel;
mod create;
mod start;
mod kill;
mod delete;
mod run;
mod state;
mod list;
mod ps;
mod features;

use crate::cli::commands;
use crate::cli::log_options::{LogOptions, Need, Stderr};
use crate::cli::runtime::{Command, Globals, UsageError, parse};
use crate::host::container::guard;
use crate::host::container::proxy;
use crate::host::os::descriptor;
use crate::host::os::log::{Log, Unusable};
use crate::host::os::reaper;
use crate::host::os::stdio;
use crate::model::text::cause::chain;
use crate::model::text::log::{Format, Level};
use error::Error;
use journal::{Journal, Outcome, WarningPolicy};
use record::recorded;
use roots::Roots;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long the reader of an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const NAME: &str = "balena-extension-runtime";
/// The other program. It was once this file under a second name, so links by that name may be left.
const MANAGER: &str = "balena-extension-manager";

/// The main of `balena-extension-runtime`. `command_line` begins with the name by which the program was
/// called; `runtime_dir` is the value of `XDG_RUNTIME_DIR`.
#[must_use]
pub fn main(
    mut command_line: impl Iterator<Item = OsString>,
    runtime_dir: Option<OsString>,
) -> ExitCode {
    let called = command_line.next().unwrap_or_default();
    let words: Vec<OsString> = command_line.collect();
    // The two processes that the runtime starts of itself come first: they are to cost little.
    match words.split_first() {
        Some((word, _)) if word == "proxy" => return proxy::main(),
        Some((word, rest)) if word == guard::COMMAND => return guard::main(rest),
        _ => {}
    }
    if Path::new(&called).file_name().is_some_and(|name| name == MANAGER) {
        stdio::complain(&chain(&Error::CalledAsManager));
        return ExitCode::FAILURE;
    }
    let (globals, command) = parse(&words);
    let mut journal = match open_log(&globals.log) {
        Ok((log, policy)) => Journal::new(log, policy),
        Err(error) => {
            stdio::complain(&chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let result = dispatch(globals, command, runtime_dir, &mut journal);
    journal.finish(&result);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Opens the log file. Without one the log is standard error: warnings and errors, or at `create`, where that is the
/// container's own log, only errors, unless a level was given. The same happens if the file cannot be used, for verbs
/// that do not need it.
fn open_log(options: &LogOptions) -> Result<(Log, WarningPolicy), Unusable> {
    let format = options.format.unwrap_or(Format::Text);
    let Some(path) = &options.file else {
        let level = match options.stderr {
            Stderr::Caller => Level::Warn,
            Stderr::Container => Level::Error,
        };
        let log = Log::to_stderr(format, options.level.unwrap_or(level));
        return Ok((log, WarningPolicy::AtOnce));
    };
    let level = options.level.unwrap_or(Level::Info);
    let policy = match (options.stderr, format, level) {
        (Stderr::Container, Format::Json, Level::Info | Level::Warn | Level::Error) => {
            WarningPolicy::AtTheEnd
        }
        (Stderr::Container | Stderr::Caller, Format::Json | Format::Text | Format::Plain, _) => {
            WarningPolicy::AtOnce
        }
    };
    match (Log::to_file(path, format, level), options.need) {
        (Err(error), Need::Wanted) => {
            stdio::complain(&format!("{}; continuing without it", chain(&error)));
            // Text: nobody expects JSON here.
            let log = Log::to_stderr(Format::Text, options.level.unwrap_or(Level::Warn));
            Ok((log, WarningPolicy::AtOnce))
        }
        (opened, Need::Wanted | Need::Demanded) => Ok((opened?, policy)),
    }
}

fn dispatch(
    globals: Globals,
    command: Result<Command, UsageError>,
    runtime_dir: Option<OsString>,
    journal: &mut Journal,
) -> Result<Outcome, Error> {
    let command = command?;
    descriptor::keep_from_children().map_err(|source| Error::Descriptors { source })?;
    reaper::keep_statuses().map_err(|source| Error::Statuses { source })?;
    let roots = Roots { given: globals.root, runtime_dir };
    let docker_root = globals.docker_root.as_deref();
    match command {
        Command::Create(request) => {
            journal.begin("create", &request.id)?;
            let root = roots.of_new(journal)?;
            let created = create::create(journal, &root, docker_root, &request);
            recorded(journal, "create", &request.id, created)
        }
        Command::Start { id } => {
            journal.begin("start", &id)?;
            let root = roots.of_existing(journal, &id)?;
            let started = start::start(journal, &root, &id);
            recorded(journal, "start", &id, started)
        }
        Command::Kill { id, signal, audience } => {
            journal.begin("kill", &id)?;
            let root = roots.of_existing(journal, &id)?;
            kill::kill(journal, &root, &id, signal, audience)
        }
        Command::Delete { id, insistence } => {
            journal.begin("delete", &id)?;
            let root = roots.of_existing(journal, &id)?;
            let deleted = delete::delete(journal, &root, &id, insistence);
            recorded(journal, "delete", &id, deleted)
        }
        Command::Run { create, afterwards } => {
            journal.begin("run", &create.id)?;
            let root = roots.of_new(journal)?;
            run::run(journal, &root, docker_root, &create, afterwards)
        }
        Command::State { id } => {
            journal.name("state", Some(&id));
            state::state(&roots.of_existing(journal, &id)?, &id)
        }
        Command::List { format } => {
            journal.name("list", None);
            let (first, second) = roots.all(journal)?;
            list::list(journal, &first, second.as_ref(), format)
        }
        Command::Ps { id, format } => {
            journal.name("ps", Some(&id));
            ps::ps(&roots.of_existing(journal, &id)?, &id, format)
        }
        Command::Features => features::features(),
        Command::Update => Ok(Outcome::Answered),
        Command::Unsupported { verb, why, id } => {
            journal.name(verb, id.as_ref());
            Err(Error::Unsupported { verb, why })
        }
        Command::Help { topic } => print(help_text(topic)?),
        Command::Version => print(crate::version::RUNTIME),
    }
}

/// Paths in a line of the log.
fn shown_paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn help_text(topic: Option<String>) -> Result<&'static str, Error> {
    match topic {
        None => Ok(commands::GENERAL),
        Some(topic) => commands::find(&topic).map(|verb| verb.help).ok_or(Error::NoTopic { topic }),
    }
}

/// Prints the answer of a command that only asks.
fn print(text: &str) -> Result<Outcome, Error> {
    let printed = stdio::print(text.as_bytes(), ANSWER_LIMIT);
    printed.map(|()| Outcome::Answered).map_err(|source| Error::Print { source })
}

/// Prints indented JSON, as runc does.
fn print_json(value: &impl serde::Serialize) -> Result<Outcome, Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(|source| Error::Json { source })?;
    text.push('\n');
    print(&text)
}
