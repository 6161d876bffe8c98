//! The runtime: from a command line to one verb and its report. One file a verb.

mod create;
mod delete;
mod features;
mod hooks;
mod kill;
mod list;
mod ps;
mod record;
mod roots;
mod run;
mod start;
mod state;

use crate::cli::commands;
use crate::cli::log_options::{LogOptions, Need, Stderr, log_options};
use crate::cli::runtime::{Command, UsageError, parse};
use crate::host::container::guard;
use crate::host::container::proxy;
use crate::host::container::state_dir::{self, StateRoot};
use crate::host::os::descriptor;
use crate::host::os::log::{Log, Told};
use crate::host::os::privilege;
use crate::host::os::process;
use crate::host::os::reaper;
use crate::host::os::stdio;
use crate::model::container::deploy_record;
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::Status;
use crate::model::container::state::{ProxyIs, State};
use crate::model::text::cause::chain;
use crate::model::text::log::{Fact, Format, Level};
use roots::Roots;
use std::cell::RefCell;
use std::error::Error as StdError;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the reader of an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const NAME: &str = "balena-extension-runtime";
/// The other program. It was once this file under a second name, and links from then may be left.
const MANAGER: &str = "balena-extension-manager";

/// What every verb works with.
struct Context<'a> {
    log: &'a Log,
    root: StateRoot,
    docker_root: Option<PathBuf>,
    /// The hooks that have run, with the milliseconds each took.
    ran: &'a RefCell<Vec<(String, f64)>>,
    /// What they printed.
    heard: RefCell<Vec<deploy_record::Heard>>,
}

/// What a verb did, in one sentence for the log; `None` where there is nothing to tell.
type Outcome = Result<Option<String>, Box<dyn StdError>>;

/// Errors that several verbs share.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("container does not exist: {id}")]
    Unknown { id: String },
    #[error(
        "the state of container {id} is damaged ({path:?}: {why}); remove it with delete --force {id}"
    )]
    Damaged { id: String, path: PathBuf, why: String },
    #[error("container {id} is busy: another command works on it (delete --force {id} ends that)")]
    Busy { id: String },
    #[error("look for the proxy process of container {id}")]
    Proxy { id: String, source: io::Error },
    #[error("keep the engine's descriptors from the hooks")]
    Descriptors { source: io::Error },
    #[error("keep the exit statuses of child processes (SIGCHLD)")]
    Statuses { source: io::Error },
    #[error("write the answer to standard output")]
    Print { source: io::Error },
    #[error(
        "this is {NAME}, and {MANAGER} is a separate program: install it in place of this link"
    )]
    CalledAsManager,
    #[error("{verb} is not supported: {why}")]
    Unsupported { verb: &'static str, why: &'static str },
    #[error("there is no command {topic:?}: see {NAME} --help")]
    NoTopic { topic: String },
    #[error("write JSON")]
    Json { source: serde_json::Error },
    #[error(transparent)]
    Unprivileged(#[from] privilege::Unprivileged),
    #[error(transparent)]
    State(#[from] state_dir::Error),
    #[error(transparent)]
    Usage(#[from] UsageError),
}

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
    let started = Instant::now();
    let log = match open_log(&log_options(&words)) {
        Ok(log) => log,
        Err(error) => {
            stdio::complain(&chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let ran = RefCell::default();
    let told = dispatch(&words, runtime_dir, &log, &ran);
    let times = || {
        let took = Fact::Millis(millis(started.elapsed()));
        [("durationMs", took), ("hooksMs", Fact::Steps(ran.take()))]
    };
    match told {
        Ok(told) => {
            log.succeed(told.as_deref(), &times());
            ExitCode::SUCCESS
        }
        Err(error) => {
            log.fail(&chain(&*error), &times());
            ExitCode::FAILURE
        }
    }
}

/// Without a file, what is logged lands on standard error: warnings and errors, and at `create`, where
/// that is the container's own log, errors alone, unless somebody asks for more. So it does where the file
/// cannot be used and the verb can do without.
fn open_log(options: &LogOptions) -> Result<Log, crate::host::os::log::Unusable> {
    let format = options.format.unwrap_or(Format::Text);
    match &options.file {
        Some(path) => {
            let level = options.level.unwrap_or(Level::Info);
            let told = match (options.stderr, format, level) {
                (Stderr::Container, Format::Json, Level::Info | Level::Warn | Level::Error) => {
                    Told::AtTheEnd
                }
                (Stderr::Container | Stderr::Caller, Format::Json | Format::Text, _) => {
                    Told::AtOnce
                }
            };
            match (Log::to_file(path, format, level, told), options.need) {
                (Err(error), Need::Wanted) => {
                    stdio::complain(&format!("{}; going on without it", chain(&error)));
                    // Text: nobody expects JSON here.
                    Ok(Log::to_stderr(Format::Text, options.level.unwrap_or(Level::Warn)))
                }
                (opened, Need::Wanted | Need::Demanded) => opened,
            }
        }
        None => {
            let level = match options.stderr {
                Stderr::Caller => Level::Warn,
                Stderr::Container => Level::Error,
            };
            Ok(Log::to_stderr(format, options.level.unwrap_or(level)))
        }
    }
}

fn dispatch(
    words: &[OsString],
    runtime_dir: Option<OsString>,
    log: &Log,
    ran: &RefCell<Vec<(String, f64)>>,
) -> Outcome {
    let (globals, command) = parse(words).map_err(Error::Usage)?;
    descriptor::keep_from_children().map_err(|source| Error::Descriptors { source })?;
    reaper::keep_statuses().map_err(|source| Error::Statuses { source })?;
    let roots = Roots { given: globals.root, runtime_dir: runtime_dir.clone() };
    let docker_root = globals.docker_root;
    let with = |root| Context { log, root, docker_root, ran, heard: RefCell::default() };
    let told = match command {
        Command::Create(request) => {
            begin(log, "create", &request.id)?;
            let context = with(roots.of_new(log)?);
            let told = create::create(&context, &request);
            if !told.as_ref().is_err_and(|error| error.may_be_of_another(&context, &request.id)) {
                let told = told.as_ref().map(drop).map_err(|error| error.cause());
                record::step(&context, "create", &request.id, told, None);
            }
            told?
        }
        Command::Start { id } => {
            begin(log, "start", &id)?;
            let context = with(roots.of_existing(log, &id)?);
            let started = start::start(&context, &id);
            let refusal = started.as_ref().ok().and_then(start::Started::refusal).cloned();
            let told = started.map(|started| Some(started.sentence()));
            record::step(&context, "start", &id, record::outcome(&told), refusal.as_ref());
            told?
        }
        Command::Kill { id, signal, audience } => {
            begin(log, "kill", &id)?;
            let context = with(roots.of_existing(log, &id)?);
            kill::kill(&context, &id, signal, audience)?
        }
        Command::Delete { id, insistence, whose } => {
            begin(log, "delete", &id)?;
            let context = with(roots.of_existing(log, &id)?);
            let told = delete::delete(&context, &id, insistence, &whose);
            record::step(&context, "delete", &id, record::outcome(&told), None);
            told?
        }
        Command::Run { create, afterwards } => {
            begin(log, "run", &create.id)?;
            let context = with(roots.of_new(log)?);
            run::run(&context, words, runtime_dir.as_deref(), &create, afterwards)?
        }
        Command::State { id } => {
            name(log, "state", Some(&id));
            state::state(&with(roots.of_existing(log, &id)?), &id)?
        }
        Command::List { format } => {
            name(log, "list", None);
            let (first, second) = roots.all(log)?;
            list::list(&with(first), second.as_ref(), format)?
        }
        Command::Ps { id, format } => {
            name(log, "ps", Some(&id));
            ps::ps(&with(roots.of_existing(log, &id)?), &id, format)?
        }
        Command::Features => features::features()?,
        Command::Update => None,
        Command::Unsupported { verb, why, id } => {
            name(log, verb, id.as_ref());
            return Err(Error::Unsupported { verb, why }.into());
        }
        Command::Help { topic } => print(help_text(topic)?)?,
        Command::Version => print(crate::version::RUNTIME)?,
    };
    Ok(told)
}

/// Paths in a line of the log.
fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Names the command and the container in every line of the log.
fn name(log: &Log, verb: &str, id: Option<&ContainerId>) {
    log.with("command", verb);
    if let Some(id) = id {
        log.with("id", id.as_str());
    }
}

/// The same for a verb that changes something, which it refuses to whoever may not.
fn begin(log: &Log, verb: &str, id: &ContainerId) -> Result<(), Error> {
    name(log, verb, Some(id));
    Ok(privilege::check()?)
}

fn help_text(topic: Option<String>) -> Result<&'static str, Error> {
    match topic {
        None => Ok(commands::GENERAL),
        Some(topic) => commands::find(&topic).map(|verb| verb.help).ok_or(Error::NoTopic { topic }),
    }
}

/// Prints the answer of a command that only asks.
fn print(text: &str) -> Result<Option<String>, Error> {
    stdio::print(text, ANSWER_LIMIT).map(|()| None).map_err(|source| Error::Print { source })
}

/// Prints indented JSON, as runc does.
fn print_json(value: &impl serde::Serialize) -> Result<Option<String>, Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(|source| Error::Json { source })?;
    text.push('\n');
    print(&text)
}

/// The proxy that `state` records, if it is there, and the status as it truly is.
fn observe(state: &State) -> Result<(Option<process::Process>, Status), Error> {
    let found = match state.proxy() {
        Some(identity) => process::find_proxy(&state.id, identity)
            .map_err(|source| Error::Proxy { id: state.id.clone(), source })?,
        None => None,
    };
    let proxy_is = if found.is_some() { ProxyIs::Alive } else { ProxyIs::Gone };
    let status = state.true_status(proxy_is);
    Ok((found, status))
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Unknown { id }, Damaged { id, path, why }, Busy { id }, Proxy { id, source },
        Descriptors { source }, Statuses { source }, Print { source }, CalledAsManager,
        Unsupported { verb, why }, NoTopic { topic }, Json { source }, Unprivileged(..), State(..),
        Usage(..),
    }
}
