//! The runtime's command line. Engines call it several times per container, so the parser is lexopt. Flags that
//! engines pass and that have no effect here are accepted; an unknown flag is an error that names it.

use crate::cli::commands::{self, CommandEntry, container_of_refused};
use crate::cli::log_options::LogOptions;
use crate::model::container::id::{self, ContainerId};
use crate::model::container::lifecycle::{Audience, Insistence};
use crate::model::container::proxy::PROGRAM;
use crate::model::container::signal::{self, Signal};
use crate::model::text::log::{Format, Level};
use lexopt::prelude::*;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The flags before the command.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    pub(crate) root: Option<PathBuf>,
    pub(crate) docker_root: Option<PathBuf>,
    pub(crate) log: LogOptions,
}

/// A command with its own flags.
#[derive(Debug)]
pub(crate) enum Command {
    Create(Create),
    Start {
        id: ContainerId,
    },
    Kill {
        id: ContainerId,
        signal: Signal,
        audience: Audience,
    },
    Delete {
        id: ContainerId,
        insistence: Insistence,
    },
    State {
        id: ContainerId,
    },
    /// Without a format, only the ids.
    List {
        format: Option<AnswerFormat>,
    },
    Ps {
        id: ContainerId,
        format: AnswerFormat,
    },
    Features,
    Run {
        create: Create,
        afterwards: Afterwards,
    },
    Update,
    Unsupported {
        verb: &'static str,
        why: &'static str,
        id: Option<ContainerId>,
    },
    Help {
        topic: Option<String>,
    },
    Version,
}

/// The flags of `create`.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) id: ContainerId,
    /// The working directory if absent.
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) terminals: Terminals,
}

/// What `process.terminal` means where no console socket is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminals {
    /// An error: the pty would go nowhere.
    ToConsoleSocket,
    /// The terminal that `run` is typed at.
    Inherited,
}

/// How `list` and `ps` print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    Table,
    Json,
}

impl AnswerFormat {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "table" => Some(Self::Table),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What `run` does with the container when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    Delete,
    Keep,
}

/// Why a command line is invalid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("no command given: see {program} --help", program = PROGRAM)]
    NoCommand,
    #[error("unknown command {name:?}: see {program} --help", program = PROGRAM)]
    UnknownCommand { name: String },
    #[error("unknown flag {flag} before the command: see {program} --help", program = PROGRAM)]
    UnknownGlobal { flag: String },
    #[error("unknown flag {flag} of {command}: see {program} {command} --help", program = PROGRAM)]
    UnknownFlag { flag: String, command: String },
    #[error("{command} needs a container id: see {program} {command} --help", program = PROGRAM)]
    NoId { command: String },
    #[error("{command} has one argument too many: {word:?}")]
    TooMany { command: String, word: String },
    #[error("{flag} needs a value")]
    NoValue { flag: String },
    #[error("{flag} takes no value, but {value:?} was given")]
    UnwantedValue { flag: String, value: String },
    #[error("invalid value {value:?} of {flag}: {expected}")]
    Value { flag: String, value: String, expected: &'static str },
    #[error("an argument is not UTF-8: {word:?}")]
    NotUtf8 { word: OsString },
    #[error(transparent)]
    Id(#[from] id::InvalidId),
    #[error(transparent)]
    Signal(#[from] signal::Unknown),
}

/// Reads a whole command line, the program's name left out. The first error counts. The flags after it are
/// read all the same, because one of them may name the log.
pub(crate) fn parse(words: &[OsString]) -> (Globals, Result<Command, UsageError>) {
    let mut parser = lexopt::Parser::from_args(words.iter().cloned());
    let mut globals = Globals::default();
    let mut failure = None;
    let command = loop {
        match next_global(&mut parser, &mut globals) {
            Ok(Global::Flag) => {}
            Ok(Global::Answer(command)) => break Ok(command),
            Ok(Global::Name(name)) => match commands::find(&name) {
                Some(entry) => {
                    globals.log.apply_defaults(&name);
                    break command(entry, parser);
                }
                None => {
                    failure.get_or_insert(UsageError::UnknownCommand { name });
                }
            },
            Ok(Global::End) => break Err(UsageError::NoCommand),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    };
    (globals, failure.map_or(command, Err))
}

/// What stands before the command, or is the command.
enum Global {
    Flag,
    /// A flag that is a command of its own.
    Answer(Command),
    /// The name of a command, if there is such a command.
    Name(String),
    End,
}

fn next_global(parser: &mut lexopt::Parser, globals: &mut Globals) -> Result<Global, UsageError> {
    let Some(argument) = parser.next().map_err(|error| usage(error, None))? else {
        return Ok(Global::End);
    };
    match argument {
        Long("root") => globals.root = Some(path(parser, "--root")?),
        Long("docker-root") => globals.docker_root = Some(path(parser, "--docker-root")?),
        Long("log") => globals.log.file = Some(path(parser, "--log")?),
        Long("log-format") => {
            let format = one_of(parser, "--log-format", "text or json", Format::parse)?;
            globals.log.format = Some(format);
        }
        Long("log-level") => {
            let level = one_of(parser, "--log-level", "debug, info, warn or error", Level::parse)?;
            globals.log.level = Some(level);
        }
        Long("debug") => globals.log.level = Some(Level::Debug),
        Long("criu") => drop(path(parser, "--criu")?),
        Long("cgroup-manager") => drop(text(parser, "--cgroup-manager")?),
        Long("rootless") => drop(parser.optional_value()),
        Long("systemd-cgroup") => {}
        Long("version") | Short('v') => return Ok(Global::Answer(Command::Version)),
        Long("help") | Short('h') => return Ok(Global::Answer(Command::Help { topic: None })),
        Value(name) => return utf8(name).map(Global::Name),
        other @ (Long(_) | Short(_)) => {
            return Err(UsageError::UnknownGlobal { flag: as_typed(&other) });
        }
    }
    Ok(Global::Flag)
}

fn command(entry: &CommandEntry, mut parser: lexopt::Parser) -> Result<Command, UsageError> {
    let name = entry.name;
    let help = || Command::Help { topic: Some(name.to_owned()) };
    if entry.refusal.is_some() || name == "update" {
        // The flags of engines are many, and none matters.
        let words = parser.raw_args().map(Iterator::collect).unwrap_or_else(|_| Vec::new());
        if words.first().is_some_and(|word| word == "--help" || word == "-h") {
            return Ok(help());
        }
        let id = container_of_refused(&words);
        let unsupported = |why| Command::Unsupported { verb: name, why, id };
        return Ok(entry.refusal.map_or(Command::Update, unsupported));
    }
    let mut flags = Flags::default();
    let mut words: Vec<String> = Vec::new();
    while let Some(argument) = parser.next().map_err(|error| usage(error, Some(name)))? {
        match (name, argument) {
            (_, Long("help") | Short('h')) => return Ok(help()),
            ("create" | "run", Long("bundle") | Short('b')) => {
                flags.bundle = Some(path(&mut parser, "--bundle")?);
            }
            ("create" | "run", Long("pid-file")) => {
                flags.pid_file = Some(path(&mut parser, "--pid-file")?);
            }
            ("create" | "run", Long("console-socket")) => {
                flags.console_socket = Some(path(&mut parser, "--console-socket")?);
            }
            ("create" | "run", Long("no-pivot" | "no-new-keyring")) => {}
            // go-runc passes it to `create`, too, which never waits for the container anyway.
            ("create", Long("detach")) => {}
            ("create" | "run", Long("preserve-fds")) => {
                let number = |text: &str| text.parse::<u32>().ok();
                one_of(&mut parser, "--preserve-fds", "a number", number)?;
            }
            ("create" | "run", Long("pidfd-socket")) => drop(path(&mut parser, "--pidfd-socket")?),
            ("run", Long("keep")) => flags.keep = true,
            ("kill", Long("all") | Short('a')) => flags.all = true,
            ("delete", Long("force") | Short('f')) => flags.force = true,
            ("list" | "ps", Long("format") | Short('f')) => {
                let parse = AnswerFormat::parse;
                flags.format = Some(one_of(&mut parser, "--format", "table or json", parse)?);
            }
            ("list", Long("quiet") | Short('q')) => flags.quiet = true,
            (_, Value(word)) => {
                words.push(utf8(word)?);
                if name == "ps" {
                    // `ps ID ARGS`: the arguments are for ps(1), which is not run.
                    break;
                }
            }
            (_, other) => {
                let (flag, command) = (as_typed(&other), name.to_owned());
                return Err(UsageError::UnknownFlag { flag, command });
            }
        }
    }
    flags.into_command(name, words)
}

/// The flags of all commands, as typed.
#[derive(Default)]
struct Flags {
    bundle: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    format: Option<AnswerFormat>,
    keep: bool,
    all: bool,
    force: bool,
    quiet: bool,
}

impl Flags {
    fn into_command(self, name: &str, words: Vec<String>) -> Result<Command, UsageError> {
        let mut words = words.into_iter();
        let format = self.format.unwrap_or(AnswerFormat::Table);
        let command = match name {
            "help" => Command::Help { topic: words.next() },
            "features" => Command::Features,
            "list" => Command::List { format: (!self.quiet).then_some(format) },
            _ => {
                let id = words.next();
                let id = id.ok_or_else(|| UsageError::NoId { command: name.to_owned() })?;
                let id = ContainerId::parse(&id)?;
                match name {
                    "create" => Command::Create(self.into_create(id, Terminals::ToConsoleSocket)),
                    "run" => {
                        let keep = self.keep;
                        let create = self.into_create(id, Terminals::Inherited);
                        let afterwards = if keep { Afterwards::Keep } else { Afterwards::Delete };
                        Command::Run { create, afterwards }
                    }
                    "start" => Command::Start { id },
                    "kill" => {
                        let signal = words.next().map(|word| Signal::parse(&word)).transpose()?;
                        let signal = signal.unwrap_or(signal::DEFAULT);
                        let audience =
                            if self.all { Audience::Everything } else { Audience::Process };
                        Command::Kill { id, signal, audience }
                    }
                    "delete" => {
                        let insistence =
                            if self.force { Insistence::Force } else { Insistence::Plain };
                        Command::Delete { id, insistence }
                    }
                    "ps" => Command::Ps { id, format },
                    _ => Command::State { id },
                }
            }
        };
        match words.next() {
            Some(word) => Err(UsageError::TooMany { command: name.to_owned(), word }),
            None => Ok(command),
        }
    }

    fn into_create(self, id: ContainerId, terminals: Terminals) -> Create {
        let Self { bundle, pid_file, console_socket, .. } = self;
        Create { id, bundle, pid_file, console_socket, terminals }
    }
}

/// A value that `parse` understands.
fn one_of<T>(
    parser: &mut lexopt::Parser,
    flag: &str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, UsageError> {
    let value = text(parser, flag)?;
    parse(&value).ok_or_else(|| UsageError::Value { flag: flag.to_owned(), value, expected })
}

fn path(parser: &mut lexopt::Parser, flag: &str) -> Result<PathBuf, UsageError> {
    value(parser, flag).map(PathBuf::from)
}

fn text(parser: &mut lexopt::Parser, flag: &str) -> Result<String, UsageError> {
    utf8(value(parser, flag)?)
}

/// An empty value counts as missing: as a path it would be the working directory.
fn value(parser: &mut lexopt::Parser, flag: &str) -> Result<OsString, UsageError> {
    match parser.value() {
        Ok(value) if !value.is_empty() => Ok(value),
        Ok(_) | Err(_) => Err(UsageError::NoValue { flag: flag.to_owned() }),
    }
}

fn utf8(word: OsString) -> Result<String, UsageError> {
    word.into_string().map_err(|word| UsageError::NotUtf8 { word })
}

fn as_typed(argument: &lexopt::Arg<'_>) -> String {
    match argument {
        Long(name) => format!("--{name}"),
        Short(name) => format!("-{name}"),
        Value(word) => OsStr::to_string_lossy(word).into_owned(),
    }
}

/// The only error of lexopt itself that can occur: a value for a flag that takes none.
fn usage(error: lexopt::Error, command: Option<&str>) -> UsageError {
    if let lexopt::Error::UnexpectedValue { option, value } = error {
        let value = value.to_string_lossy().into_owned();
        return UsageError::UnwantedValue { flag: option, value };
    }
    let flag = error.to_string();
    match command {
        Some(command) => UsageError::UnknownFlag { flag, command: command.to_owned() },
        None => UsageError::UnknownGlobal { flag },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn parsed(line: &str) -> (Globals, Command) {
        let (globals, command) = parse(&words(line));
        (globals, command.unwrap())
    }

    fn refused(line: &str) -> String {
        parse(&words(line)).1.unwrap_err().to_string()
    }

    #[test]
    fn what_containerds_shim_sends_is_understood() {
        let (globals, command) = parsed(
            "--root /run/r --log /b/log.json --log-format json --systemd-cgroup create --bundle /b \
             --pid-file /b/init.pid --console-socket /s --no-pivot --no-new-keyring x1",
        );
        assert_eq!(globals.root.unwrap().to_str(), Some("/run/r"));
        let Command::Create(create) = command else { panic!("{command:?}") };
        assert_eq!(create.id.as_str(), "x1");
        assert_eq!(create.bundle.unwrap().to_str(), Some("/b"));
        assert_eq!(create.console_socket.unwrap().to_str(), Some("/s"));
    }

    #[test]
    fn the_forms_of_conmon_podman_and_cri_o_are_understood() {
        for line in [
            "--root=/r create --bundle /b --pid-file /p --preserve-fds 2 x",
            "--rootless=true --criu /usr/sbin/criu --cgroup-manager disabled start x",
            "--rootless start x",
            "kill -a x 9",
            "kill x KILL",
            "kill --all x 15",
            "delete --force x",
            "ps --format json x",
            "ps --format table x -ef",
            "update --resources - x",
            "restore --detach -no-subreaper --bundle /b x",
            "exec --process /p --detach x",
            "create --bundle /b --pid-file /p --pidfd-socket /s --detach x",
        ] {
            parse(&words(line)).1.unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn kill_defaults_to_term() {
        let (_, command) = parsed("kill x");
        let Command::Kill { signal, audience, .. } = command else { panic!("{command:?}") };
        assert_eq!((signal.number(), audience), (15, Audience::Process));
    }

    #[test]
    fn each_wrong_word_is_named() {
        for (line, expected) in [
            ("", "no command given"),
            ("frob x", r#"unknown command "frob""#),
            ("--frob start x", "unknown flag --frob before the command"),
            ("-z start x", "unknown flag -z"),
            ("start --frob x", "unknown flag --frob of start"),
            ("delete --all x", "unknown flag --all of delete"),
            ("run --detach x", "unknown flag --detach of run"),
            ("start", "start needs a container id"),
            ("start a b", r#"start has one argument too many: "b""#),
            ("features x", "one argument too many"),
            ("create --bundle", "--bundle needs a value"),
            ("--root= list", "--root needs a value"),
            ("--debug=yes list", "--debug takes no value"),
            ("--log-format xml list", r#"invalid value "xml" of --log-format"#),
            ("--log-level loud list", "debug, info, warn or error"),
            ("list --format yaml", "table or json"),
            ("create --preserve-fds x y", "a number"),
            ("start ../x", "invalid container id"),
            ("kill x NOPE", r#"unknown signal "NOPE""#),
        ] {
            let error = refused(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum UsageError {
        NoCommand, UnknownCommand { name }, UnknownGlobal { flag }, UnknownFlag { flag, command },
        NoId { command }, TooMany { command, word }, NoValue { flag },
        UnwantedValue { flag, value }, Value { flag, value, expected }, NotUtf8 { word }, Id(..),
        Signal(..),
    }
}
