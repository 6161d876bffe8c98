//! The manager: the operator's program. One file per command, which gathers facts, lets `model` decide, and
//! applies or prints the result.

mod readable;
mod gather;
mod inspected;
mod host_view;
mod records;
mod sharing;
mod parallel;
mod cleanup;
mod apply;
mod deactivate;
mod cleanup_report;
mod status;
mod next_boot;
mod plan;
mod plan_view;
mod try_extension;
mod space;
mod metrics;
mod inspect;
mod list;
mod logs;
mod check;
mod doctor;
mod kernel;

use crate::check::rules::rule::Severity;
use crate::cli::activation::KernelCommand;
use crate::cli::manager::{Arguments, GlobalOptions, ManagerCommand, parse};
use crate::host::container::guard;
use crate::host::container::sandbox;
use crate::host::engine::client::Client;
use crate::host::engine::error::Error as EngineError;
use crate::host::engine::socket::{self, Engine, UnusableHost};
use crate::host::kernel::operation_lock;
use crate::host::os::descriptor;
use crate::host::os::host_root::HostRoot;
use crate::host::os::log::Log;
use crate::host::os::privilege;
use crate::host::os::reaper;
use crate::host::os::signals::Stop;
use crate::host::os::stdio;
use crate::host::os::view_process;
use crate::model::engine::api;
use crate::model::text::cause::chain;
use crate::model::text::cut;
use crate::model::text::cut::short_id;
use crate::model::text::log::Format;
use parallel::Limit;
use std::ffi::OsString;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the reader of an answer, such as a pager, may take for each part of it, and the reader of warnings
/// and errors for all of them.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);
const ERRORS_LIMIT: Duration = Duration::from_secs(30);
/// How much JSON is written at once.
const PIECE: usize = 64 * 1024;

/// The exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManagerExit {
    Done,
    /// Something failed, and was reported.
    Failed,
    /// Invalid command line.
    Usage,
    /// `cleanup --stale-os` while an OS update can still roll back.
    Refused,
    /// A signal came, or the time was up.
    Interrupted,
    /// The kernel of an image must not be used, on this machine or on any.
    KernelRefused,
    /// The worst finding of `check`.
    Warnings,
    Errors,
    /// The status of a program that was called.
    OfProgram(u8),
}

impl From<ManagerExit> for ExitCode {
    fn from(exit: ManagerExit) -> Self {
        Self::from(match exit {
            ManagerExit::Done => 0,
            ManagerExit::Failed => 1,
            ManagerExit::Usage => 2,
            ManagerExit::Refused | ManagerExit::Warnings => 3,
            ManagerExit::Interrupted | ManagerExit::Errors => 4,
            ManagerExit::OfProgram(status) => status,
            ManagerExit::KernelRefused => 10,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Host(#[from] UnusableHost),
    #[error("{engine}; reading the engine's data directory instead failed as well: {store}")]
    NeitherEngineNorStore { engine: String, store: String },
    #[error(transparent)]
    Unprivileged(#[from] privilege::Unprivileged),
    #[error(transparent)]
    Lock(#[from] operation_lock::Error),
    #[error(
        "an OS update can still roll back (upgrade_available=1 in {path}), and a rollback would need the \
         extensions that are stale now; run this after the update has committed, or pass --force"
    )]
    RollbackPossible { path: String },
    #[error(
        "cannot determine whether an OS update can still roll back (--force removes stale extensions \
         anyway): {why}"
    )]
    WindowUnknown { why: String },
    #[error("not finished within {seconds} s (--timeout allows more)")]
    OutOfTime { seconds: f32 },
    #[error("stopped by a signal; nothing more was done")]
    Stopped,
    #[error(transparent)]
    Store(#[from] crate::host::engine::stored_containers::Unreadable),
    #[error("there is no extension {name:?} (to list all: balena-extension-manager list)")]
    NoSuchExtension { name: String },
    #[error("several ids begin with {name:?}: {}", ids.join(", "))]
    Ambiguous { name: String, ids: Vec<String> },
    #[error(
        "nothing is recorded about {name:?} since the host booted; the engine's log: docker logs {name}"
    )]
    NoRecord { name: String },
    #[error(transparent)]
    Record(#[from] crate::host::container::deploy_record::Error),
    #[error("{why}")]
    Records { why: String },
    #[error(transparent)]
    Check(#[from] check::CheckError),
    #[error(transparent)]
    KernelCall(#[from] kernel::call::CallError),
    #[error(transparent)]
    Fabricate(#[from] kernel::fabricate::FabricateError),
    #[error(transparent)]
    Kernel(#[from] kernel::KernelError),
    #[error(transparent)]
    Simulate(#[from] kernel::simulate::SimulateError),
    #[error(transparent)]
    Activate(#[from] kernel::activate::ActivateError),
    #[error(transparent)]
    Try(#[from] try_extension::TryError),
    /// Any failure of `try`, whose exit status differs from those of the command that it runs.
    #[error(transparent)]
    NoView(Box<Failure>),
    #[error("cannot write the answer to standard output")]
    Print { source: io::Error },
    #[error("cannot replace {path:?}")]
    Output { path: PathBuf, source: io::Error },
    #[error("cannot set up the handling of signals")]
    Signals { source: io::Error },
    #[error("cannot keep hooks from inheriting the caller's file descriptors")]
    Descriptors { source: io::Error },
    #[error("cannot protect this process from inspection by others (prctl, capget, capset)")]
    Close { source: io::Error },
}

impl Failure {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other failure has one status")]
    fn exit(&self) -> ManagerExit {
        match self {
            Self::RollbackPossible { .. } => ManagerExit::Refused,
            Self::NoView(_) => ManagerExit::OfProgram(view_process::NOT_MADE),
            Self::Activate(error) if error.is_refusal() => ManagerExit::KernelRefused,
            Self::OutOfTime { .. }
            | Self::Stopped
            | Self::Lock(operation_lock::Error::Stopped | operation_lock::Error::Busy { .. }) => {
                ManagerExit::Interrupted
            }
            Self::Kernel(kernel::KernelError::Health(error)) if error.is_interruption() => {
                ManagerExit::Interrupted
            }
            Self::Engine(error) if error.is_stop() || error.is_out_of_time() => {
                ManagerExit::Interrupted
            }
            _ => ManagerExit::Failed,
        }
    }
}

/// What every command works with.
struct Session {
    log: Log,
    globals: GlobalOptions,
    host: HostRoot,
    /// An error here fails only the commands that connect to the engine.
    socket: Result<PathBuf, UnusableHost>,
    limit: Limit,
    /// The shell of the caller.
    shell: Option<OsString>,
    /// What is different for a command that `simulate` plays.
    play: Option<kernel::play::Play>,
}

impl Session {
    fn connect(&self) -> Result<Client, Failure> {
        let engine = Engine {
            socket: self.socket.clone()?,
            request_timeout: self.globals.request_timeout,
            deadline: self.limit.deadline,
        };
        Ok(Client::connect(engine, &self.limit.stop)?)
    }

    /// Whether the records are those of another machine than the one that runs this program.
    fn is_of_another_host(&self) -> bool {
        self.globals.host_root != std::path::Path::new("/")
    }

    fn log_requests(&self, client: &Client) {
        let (sent, api) = (client.sent(), client.api());
        self.log.debug(|| format!("{sent} requests sent, version {api} of the API"));
    }
}

/// The main of `balena-extension-manager`. `command_line` begins with the name by which the program was
/// called; `docker_host` and `shell` are the values of `DOCKER_HOST` and `SHELL`.
#[must_use]
pub fn main(
    command_line: impl Iterator<Item = OsString>,
    docker_host: Option<OsString>,
    shell: Option<OsString>,
) -> ExitCode {
    let words: Vec<OsString> = command_line.skip(1).collect();
    // The manager starts itself as the guard of a `deactivate`, as the runtime does for its hooks.
    match words.split_first() {
        Some((word, rest)) if word == guard::COMMAND => return guard::main(rest),
        Some((word, rest)) if word == view_process::COMMAND => return view_process::main(rest),
        _ => {}
    }
    if let Err(source) = sandbox::close_manager() {
        stdio::complain(&chain(&Failure::Close { source }));
        return ManagerExit::Failed.into();
    }
    let result = match parse(&words) {
        Ok(arguments) => run(arguments, docker_host, shell),
        Err(answer) => print_answer(&answer),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            stdio::complain(&chain(&failure));
            failure.exit().into()
        }
    }
}

/// Prints the answer of the command line parser: help, the version, or the mistake.
fn print_answer(answer: &clap::Error) -> Result<ManagerExit, Failure> {
    if answer.use_stderr() {
        let text = answer.to_string();
        stdio::complain(&cut::middle(text.trim_end(), 0, cut::SENTENCE_MAX));
        return Ok(ManagerExit::Usage);
    }
    if answer.kind() == clap::error::ErrorKind::DisplayVersion {
        print(crate::version::MANAGER)?;
    } else {
        print(&answer.to_string())?;
    }
    Ok(ManagerExit::Done)
}

fn run(
    arguments: Arguments,
    docker_host: Option<OsString>,
    shell: Option<OsString>,
) -> Result<ManagerExit, Failure> {
    let Arguments { globals, command, .. } = arguments;
    descriptor::keep_from_children().map_err(|source| Failure::Descriptors { source })?;
    reaper::keep_statuses().map_err(|source| Failure::Signals { source })?;
    // A check only reads, for as long as an image is large, and the kernel ends what a try has made, so a signal simply ends
    // them. For all others signals are blocked before any thread is started.
    let only_reads = matches!(command, ManagerCommand::Check(_) | ManagerCommand::Try(_));
    let stop = if only_reads { Stop::never() } else { Stop::listen() };
    let stop = stop.map_err(|source| Failure::Signals { source })?;
    let log = Log::to_stderr(Format::Text, globals.log_level).patient(ERRORS_LIMIT);
    let host = HostRoot::new(globals.host_root.clone());
    let socket = socket::choose(globals.host.as_ref(), docker_host, &host);
    // A trial takes longer than any other command.
    let timeout = match &command {
        ManagerCommand::Validate(request) => request.deadline,
        ManagerCommand::Cleanup(_)
        | ManagerCommand::Status(_)
        | ManagerCommand::Plan(_)
        | ManagerCommand::Try(_)
        | ManagerCommand::List(_)
        | ManagerCommand::Inspect(_)
        | ManagerCommand::Logs(_)
        | ManagerCommand::Doctor(_)
        | ManagerCommand::Check(_)
        | ManagerCommand::Override(_)
        | ManagerCommand::History(_)
        | ManagerCommand::Hup(_)
        | ManagerCommand::Simulate(_)
        | ManagerCommand::Kernel(_) => globals.timeout,
    };
    let stop = Arc::new(stop);
    let limit = Limit { stop, deadline: Instant::now() + timeout, timeout };
    let session = Session { log, globals, host, socket, limit, shell, play: None };
    match command {
        ManagerCommand::Cleanup(request) => cleanup::cleanup(&session, &request),
        ManagerCommand::Status(request) => status::status(&session, &request),
        ManagerCommand::Plan(request) => plan::plan(&session, &request),
        ManagerCommand::Try(request) => try_extension::try_extension(&session, &request)
            .map_err(|failure| Failure::NoView(Box::new(failure))),
        ManagerCommand::List(request) => list::list(&session, &request),
        ManagerCommand::Inspect(request) => inspect::inspect(&session, &request),
        ManagerCommand::Logs(request) => logs::logs(&session, &request),
        ManagerCommand::Doctor(request) => doctor::doctor(&session, &request),
        ManagerCommand::Override(request) => {
            kernel::override_command::run(&session, &request.command)
        }
        ManagerCommand::History(request) => kernel::history::history(&session, &request),
        ManagerCommand::Validate(request) => kernel::validate::validate(&session, &request),
        ManagerCommand::Hup(request) => kernel::hup::hup(&session, &request.command),
        ManagerCommand::Simulate(request) => kernel::simulate::simulate(session, &request),
        ManagerCommand::Kernel(KernelCommand::Fabricate(request)) => {
            kernel::fabricate::fabricate(&session, &request)
        }
        ManagerCommand::Kernel(KernelCommand::Activate(request)) => {
            kernel::activate::activate(&session, &request)
        }
        ManagerCommand::Check(request) => {
            let answer = check::run(&request, |image| Ok(saved_image(&session, image)?))?;
            print(&answer.text)?;
            Ok(match answer.worst {
                Some(Severity::Error) => ManagerExit::Errors,
                Some(Severity::Warning) => ManagerExit::Warnings,
                Some(_) | None => ManagerExit::Done,
            })
        }
    }
}

/// An image of the engine, as the archive that `docker save` makes.
fn saved_image(session: &Session, image: &str) -> Result<impl io::Read + use<>, Failure> {
    let client = session.connect()?;
    let path = format!("/images/{}/get", api::in_path(image));
    Ok(client.download(&path, &format!("save image {image:?}"))?)
}

fn print(text: &str) -> Result<(), Failure> {
    stdio::print(text.as_bytes(), ANSWER_LIMIT).map_err(|source| Failure::Print { source })
}

/// Prints JSON as it is made, since a document about thousands of objects is larger than all that is known of them.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut output = BufWriter::with_capacity(PIECE, Output);
    let written = serde_json::to_writer_pretty(&mut output, value).map_err(io::Error::from);
    let written = written.and_then(|()| writeln!(output)).and_then(|()| output.flush());
    written.map_err(|source| Failure::Print { source })
}

/// Standard output, as [`print`] writes it.
struct Output;

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stdio::print(bytes, ANSWER_LIMIT).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Finds the object that the user calls `name`: by its whole id, else its name, else the beginning of its id.
fn resolve<'a, T>(
    all: &'a [T],
    name: &str,
    id_and_name: impl Fn(&T) -> (&str, &str),
) -> Result<&'a T, Failure> {
    let wanted = name.trim_start_matches('/');
    let by_id = all.iter().find(|one| id_and_name(one).0 == wanted);
    let exact = by_id.or_else(|| all.iter().find(|one| id_and_name(one).1 == wanted));
    let begins = |one: &&T| id_and_name(one).0.starts_with(wanted);
    let matching: Vec<&T> = match exact {
        _ if wanted.is_empty() => Vec::new(),
        Some(exact) => vec![exact],
        None => all.iter().filter(begins).collect(),
    };
    match matching.as_slice() {
        [] => Err(Failure::NoSuchExtension { name: name.to_owned() }),
        [one] => Ok(one),
        several => Err(Failure::Ambiguous {
            name: name.to_owned(),
            ids: several.iter().map(|one| short_id(id_and_name(one).0).to_owned()).collect(),
        }),
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Failure {
        Engine(..), Host(..), NeitherEngineNorStore { engine, store }, Unprivileged(..), Lock(..),
        RollbackPossible { path }, WindowUnknown { why }, OutOfTime { seconds }, Stopped, Store(..),
        NoSuchExtension { name }, Ambiguous { name, ids }, NoRecord { name }, Record(..),
        Records { why }, Check(..), KernelCall(..), Fabricate(..), Simulate(..), Activate(..), Kernel(..),
        Try(..), NoView(..),
        Print { source }, Output { path, source }, Signals { source }, Descriptors { source },
        Close { source },
    }
}
