//! The manager: outside the life of a container, from boot units and by hand. One file a command;
//! `gather` → a plan or a verdict of `model` → `apply` or print.

mod apply;
mod check;
mod cleanup;
mod doctor;
mod gather;
mod inspect;
mod list;
mod logs;
mod parallel;
mod preview;
mod records;
mod sharing;
mod socket;
mod status;
mod surroundings;

use self::socket::UnusableHost;
use crate::check::rules::rule::Severity;
use crate::cli::manager::{Arguments, Command, Globals, parse};
use crate::host::container::guard;
use crate::host::container::sandbox;
use crate::host::engine::client::Client;
use crate::host::engine::error::Error as EngineError;
use crate::host::engine::socket::Engine;
use crate::host::kernel::operation_lock;
use crate::host::os::descriptor;
use crate::host::os::host_root::HostRoot;
use crate::host::os::log::Log;
use crate::host::os::privilege;
use crate::host::os::reaper;
use crate::host::os::signals::Stop;
use crate::host::os::stdio;
use crate::model::text::cause::chain;
use crate::model::text::cut;
use crate::model::text::log::Format;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the reader of an answer may take for each part, which may be a pager, and how long that of all
/// warnings and errors together.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);
const ERRORS_LIMIT: Duration = Duration::from_secs(30);

/// The exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done,
    /// Something failed; it has been told.
    Failed,
    /// The command line was not understood.
    Usage,
    /// `cleanup --stale-os` while an OS update can still roll back.
    Refused,
    /// A signal came, or the time was up.
    Interrupted,
    /// What `check` found.
    Warnings,
    Errors,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused | Exit::Warnings => 3,
            Exit::Interrupted | Exit::Errors => 4,
        })
    }
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Host(#[from] UnusableHost),
    #[error("{engine}; and its store on disk does not help: {store}")]
    NeitherEngineNorStore { engine: String, store: String },
    #[error(transparent)]
    Unprivileged(#[from] privilege::Unprivileged),
    #[error(transparent)]
    Lock(#[from] operation_lock::Error),
    #[error(
        "an OS update can still roll back (upgrade_available=1 in {path}), and stale extensions are what it \
         would roll back to; run this when the update has committed, or with --force"
    )]
    RollbackPossible { path: String },
    #[error(
        "it cannot be told whether an OS update can still roll back (--force goes ahead): {why}"
    )]
    WindowUnknown { why: String },
    #[error("not finished within {seconds} s (--timeout allows more)")]
    OutOfTime { seconds: f32 },
    #[error("told to end by a signal; nothing more was done")]
    Stopped,
    #[error("there is no extension {name:?} (list them with: balena-extension-manager list)")]
    NoSuchExtension { name: String },
    #[error("{name:?} is the beginning of several ids: {}", ids.join(", "))]
    Ambiguous { name: String, ids: Vec<String> },
    #[error(
        "nothing is recorded of {name:?} since the host booted; what the engine has: docker logs {name}"
    )]
    NoRecord { name: String },
    #[error(transparent)]
    Record(#[from] crate::host::container::deploy_record::Error),
    #[error("{why}")]
    Records { why: String },
    #[error(transparent)]
    Check(#[from] check::Error),
    #[error("write the answer to standard output")]
    Print { source: io::Error },
    #[error("prepare to be told to end")]
    Signals { source: io::Error },
    #[error("keep the caller's descriptors from the hooks")]
    Descriptors { source: io::Error },
    #[error("cannot close this process to others (prctl, capget, capset)")]
    Close { source: io::Error },
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::RollbackPossible { .. } => Exit::Refused,
            Self::OutOfTime { .. } | Self::Stopped => Exit::Interrupted,
            Self::Lock(operation_lock::Error::Stopped | operation_lock::Error::Busy { .. }) => {
                Exit::Interrupted
            }
            Self::Engine(error) if error.is_stop() || error.is_out_of_time() => Exit::Interrupted,
            Self::Engine(_)
            | Self::Host(_)
            | Self::NeitherEngineNorStore { .. }
            | Self::Unprivileged(_)
            | Self::Lock(_)
            | Self::WindowUnknown { .. }
            | Self::NoSuchExtension { .. }
            | Self::Ambiguous { .. }
            | Self::NoRecord { .. }
            | Self::Record(_)
            | Self::Records { .. }
            | Self::Check(_)
            | Self::Print { .. }
            | Self::Signals { .. }
            | Self::Descriptors { .. }
            | Self::Close { .. } => Exit::Failed,
        }
    }
}

/// What every command works with.
struct Context {
    log: Log,
    globals: Globals,
    host: HostRoot,
    /// A command that does not talk to the engine has no use for it, and none for the error.
    socket: Result<PathBuf, UnusableHost>,
    stop: Arc<Stop>,
    deadline: Instant,
}

impl Context {
    fn connect(&self) -> Result<Client, Failure> {
        let engine = Engine {
            socket: self.socket.clone()?,
            patience: self.globals.request_timeout,
            deadline: self.deadline,
        };
        Ok(Client::connect(engine, &self.stop)?)
    }

    fn out_of_time(&self) -> Failure {
        Failure::OutOfTime { seconds: self.globals.timeout.as_secs_f32() }
    }

    fn note_requests(&self, client: &Client) {
        let (sent, api) = (client.sent(), client.api());
        self.log.debug(|| format!("{sent} requests sent, version {api} of the API"));
    }
}

/// The main of `balena-extension-manager`. `command_line` begins with the name by which the program was
/// called; `docker_host` is the value of `DOCKER_HOST`.
#[must_use]
pub fn main(
    command_line: impl Iterator<Item = OsString>,
    docker_host: Option<OsString>,
) -> ExitCode {
    let words: Vec<OsString> = command_line.skip(1).collect();
    // The manager starts itself as the guard of a `deactivate`, as the runtime does for its hooks.
    match words.split_first() {
        Some((word, rest)) if word == guard::COMMAND => return guard::main(rest),
        _ => {}
    }
    if let Err(source) = sandbox::close_manager() {
        stdio::complain(&chain(&Failure::Close { source }));
        return Exit::Failed.into();
    }
    let arguments = match parse(&words) {
        Ok(arguments) => arguments,
        Err(answer) => return tell(&answer).into(),
    };
    match run(arguments, docker_host) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            stdio::complain(&chain(&failure));
            failure.exit().into()
        }
    }
}

/// What the command line parser has to say: help, the version, or what is wrong.
fn tell(answer: &clap::Error) -> Exit {
    if answer.use_stderr() {
        let text = answer.to_string();
        stdio::complain(&cut::middle(text.trim_end(), 0, cut::SENTENCE_MAX));
        return Exit::Usage;
    }
    let text = if answer.kind() == clap::error::ErrorKind::DisplayVersion {
        crate::version::MANAGER.to_owned()
    } else {
        answer.to_string()
    };
    match stdio::print(&text, ANSWER_LIMIT) {
        Ok(()) => Exit::Done,
        Err(error) => {
            stdio::complain(&chain(&error));
            Exit::Failed
        }
    }
}

fn run(arguments: Arguments, docker_host: Option<OsString>) -> Result<Exit, Failure> {
    let Arguments { globals, command, .. } = arguments;
    descriptor::keep_from_children().map_err(|source| Failure::Descriptors { source })?;
    reaper::keep_statuses().map_err(|source| Failure::Signals { source })?;
    // Before any thread, so that none is ended by a signal.
    // A check only reads, for as long as an image is large: a signal simply ends it.
    let only_reads = matches!(command, Command::Check(_));
    let stop = if only_reads { Stop::never() } else { Stop::listen() };
    let stop = stop.map_err(|source| Failure::Signals { source })?;
    let log = Log::to_stderr(Format::Text, globals.log_level).patient(ERRORS_LIMIT);
    let host = HostRoot::new(globals.host_root.clone());
    let socket = socket::choose(globals.host.as_ref(), docker_host, &host);
    let deadline = Instant::now() + globals.timeout;
    let context = Context { log, host, socket, stop: Arc::new(stop), deadline, globals };
    match command {
        Command::Cleanup(request) => cleanup::cleanup(&context, &request),
        Command::Status(request) => status::status(&context, &request),
        Command::List(request) => list::list(&context, &request),
        Command::Inspect(request) => inspect::inspect(&context, &request),
        Command::Logs(request) => logs::logs(&context, &request),
        Command::Doctor(request) => doctor::doctor(&context, &request),
        Command::Check(request) => {
            let answer = check::run(&request, |image| saved_image(&context, image))?;
            print(&answer.text)?;
            Ok(match answer.worst {
                Some(Severity::Error) => Exit::Errors,
                Some(Severity::Warning) => Exit::Warnings,
                Some(_) | None => Exit::Done,
            })
        }
    }
}

/// An image of the engine, as the archive that `docker save` makes.
fn saved_image(
    context: &Context,
    image: &str,
) -> Result<impl io::Read + use<>, Box<dyn std::error::Error>> {
    let client = context.connect()?;
    let path = format!("/images/{}/get", crate::model::engine::api::in_path(image));
    Ok(client.download(&path, &format!("save image {image:?}"))?)
}

fn print(text: &str) -> Result<(), Failure> {
    stdio::print(text, ANSWER_LIMIT).map_err(|source| Failure::Print { source })
}

/// Prints an answer piece by piece, without ever having all of it in memory.
fn print_by(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<(), Failure> {
    stdio::stream(ANSWER_LIMIT, write).map_err(|source| Failure::Print { source })
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print_by(|stdout| {
        serde_json::to_writer_pretty(&mut *stdout, value)?;
        stdout.write_all(b"\n")
    })
}

/// A list for an answer, each item made when it is written.
struct Each<I>(I);

impl<I: Iterator<Item: serde::Serialize> + Clone> serde::Serialize for Each<I> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

/// The one that a person means by `name`: its whole id, else its name, else the beginning of its id.
fn resolve<'a, T>(
    all: &'a [T],
    name: &str,
    of: impl Fn(&T) -> (&str, &str),
) -> Result<&'a T, Failure> {
    let wanted = name.trim_start_matches('/');
    let unknown = || Failure::NoSuchExtension { name: name.to_owned() };
    if wanted.is_empty() {
        return Err(unknown());
    }
    let by_id = all.iter().find(|one| of(one).0 == wanted);
    if let Some(exact) = by_id.or_else(|| all.iter().find(|one| of(one).1 == wanted)) {
        return Ok(exact);
    }
    let mut matching = all.iter().filter(|one| of(one).0.starts_with(wanted));
    let first = matching.next().ok_or_else(unknown)?;
    let others: Vec<&T> = matching.collect();
    if others.is_empty() {
        return Ok(first);
    }
    let ids = std::iter::once(first).chain(others).map(|one| gather::brief(of(one).0)).collect();
    Err(Failure::Ambiguous { name: name.to_owned(), ids })
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Failure {
        Engine(..), Host(..), NeitherEngineNorStore { engine, store }, Unprivileged(..), Lock(..),
        RollbackPossible { path }, WindowUnknown { why }, OutOfTime { seconds }, Stopped,
        NoSuchExtension { name }, Ambiguous { name, ids }, NoRecord { name }, Record(..),
        Records { why }, Check(..), Print { source }, Signals { source }, Descriptors { source },
        Close { source },
    }
}
