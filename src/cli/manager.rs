//! The manager's command line. People type it, so clap's manners are worth their size here; man pages
//! and completions come from the same definition.

use crate::cli::check::Check;
use crate::model::text::log::Level;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Removes what failed and what is stale of hostapp extensions, and tells what is applied and why not.
///
/// It works on the containers, images and volumes of a container engine that are labelled
/// io.balena.image.class=overlay, and never touches others. The exit status is 0 on success, 1 when
/// something failed, 2 for a command line that is not understood; some commands have more.
#[derive(Debug, Parser)]
#[command(
    name = "balena-extension-manager",
    bin_name = "balena-extension-manager",
    // Printed by the main, which knows it.
    version = "",
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = false,
    max_term_width = 100,
    after_help = "docs/manager.md explains every verdict."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What goes for every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// The engine's socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute
    /// path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]
    #[arg(long, global = true, value_name = "URL", value_parser = socket)]
    pub(crate) host: Option<PathBuf>,
    /// How much is told on standard error: debug, info, warn or error
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub(crate) log_level: Level,
    /// How many seconds the engine may take to answer one request
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) request_timeout: Duration,
    /// How many seconds the whole command may take
    #[arg(long, global = true, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// The engine's data root, for when it is down [default: /var/lib/docker, else /mnt/data/docker]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) docker_root: Option<PathBuf>,
    /// Look at the host's files below DIR instead of /
    #[arg(long, global = true, value_name = "DIR", default_value = "/", value_hint = ValueHint::DirPath)]
    pub(crate) host_root: PathBuf,
}

/// What the manager is asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Cleanup(Cleanup),
    Status(Status),
    List(List),
    Inspect(Inspect),
    Logs(Logs),
    Check(Check),
    Doctor(Doctor),
}

/// Remove extensions that failed or are dead, and with --stale-os those the running system is not for
///
/// Containers that are dead, or that could not be created or started, are removed with their anonymous
/// volumes. With --stale-os, so are containers, images and volumes whose claims on the kernel and the
/// OS do not hold; the executable `deactivate` at the top of each volume of a stale container runs
/// before. Clean extensions stay, `Exited (0)` as they are.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit status is 0 if all is done, 1 if something could not be removed or decided, 3 if --stale-os is \
refused because an OS update can still roll back, 4 if the time was up or a signal came.")]
pub(crate) struct Cleanup {
    /// Also remove what the running system is not for; only after an OS update has committed
    #[arg(long)]
    pub(crate) stale_os: bool,
    /// With --stale-os: even if an OS update can still roll back, or if that cannot be told
    #[arg(long, requires = "stale_os")]
    pub(crate) force: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print what stays, too, with the reason (JSON always has it)
    #[arg(long)]
    pub(crate) verbose: bool,
    /// How many seconds to wait for an engine that is starting up
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) wait: Duration,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Tell what became of every extension, and why
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The beginning of an id, or a name; all extensions if there is none
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// List the extensions: an id and a name a line, with a tab between
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print ids only
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t, conflicts_with = "quiet")]
    pub(crate) format: Format,
}

/// Print everything that is known of an extension, as JSON
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The beginning of an id, or a name
    pub(crate) id: String,
}

/// Print what the runtime and its hooks said when an extension was last deployed
///
/// This works for containers whose create failed, too, of which engines show nothing. Records end with
/// the boot.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The beginning of an id, or a name
    pub(crate) id: String,
}

/// Look whether this host is set up for extensions
#[derive(Debug, Args)]
#[command(after_help = "The exit status is 1 if there is a problem; warnings do not count.")]
pub(crate) struct Doctor {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs; docs/manager.md has the fields
    Json,
}

/// Why a value is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Invalid {
    #[error("only unix sockets can be used: unix:///path/to.sock")]
    Host,
    #[error("it must be debug, info, warn or error")]
    Level,
    #[error("it must be a number of seconds, at most a week")]
    Seconds,
}

fn socket(url: &str) -> Result<PathBuf, Invalid> {
    socket_of(url).ok_or(Invalid::Host)
}

/// The path of the socket that a URL names, if it is a unix socket's.
pub(crate) fn socket_of(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("unix://").unwrap_or(url);
    Some(PathBuf::from(path)).filter(|_| path.starts_with('/') && !path.contains('\0'))
}

fn level(text: &str) -> Result<Level, Invalid> {
    Level::parse(text).ok_or(Invalid::Level)
}

/// Decimal seconds. By hand: the tables for reading floating point would be 1 % of the binary.
fn seconds(text: &str) -> Result<Duration, Invalid> {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(Invalid::Seconds);
    }
    let whole = whole.parse().map_err(|_| Invalid::Seconds)?;
    let nanoseconds = format!("{fraction:0<9}").parse().map_err(|_| Invalid::Seconds)?;
    Some(Duration::new(whole, nanoseconds)).filter(|time| *time <= WEEK).ok_or(Invalid::Seconds)
}

/// Reads a whole command line, the program's name left out.
///
/// # Errors
/// clap's: the help and the version too, which are no errors.
pub(crate) fn parse(words: &[OsString]) -> Result<Arguments, clap::Error> {
    let name = OsString::from("balena-extension-manager");
    Arguments::try_parse_from(std::iter::once(&name).chain(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_that_go_for_all_stand_before_or_after_the_command() {
        for line in [
            "--host unix:///x --log-level debug cleanup --stale-os --force",
            "cleanup --stale-os --force --host=/x --log-level=debug",
        ] {
            let arguments = parse(&words(line)).unwrap();
            assert_eq!(arguments.globals.host.unwrap().to_str(), Some("/x"));
            assert_eq!(arguments.globals.log_level, Level::Debug);
            let Command::Cleanup(cleanup) = arguments.command else { panic!("{line}") };
            assert!(cleanup.stale_os && cleanup.force && !cleanup.dry_run);
        }
    }

    #[test]
    fn seconds_are_decimal_and_bounded() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("30", Some(30_000)),
            ("0.5", Some(500)),
            ("604800", Some(604_800_000)),
        ] {
            let seconds = seconds(text).ok().map(|time| time.as_millis());
            assert_eq!(seconds, milliseconds, "{text}");
        }
        for text in
            ["", ".", ".5", "-1", "1e3", "604800.1", "604801", "99999999999999999999", "1.2.3"]
        {
            assert_eq!(seconds(text), Err(Invalid::Seconds), "{text}");
        }
    }

    #[test]
    fn each_wrong_word_is_named_with_the_way_to_the_help() {
        for (line, expected) in [
            ("", "subcommand"),
            ("frob", "'frob'"),
            ("cleanup --frob", "'--frob'"),
            ("cleanup --force", "--stale-os"),
            ("clean", "'cleanup'"),
            ("--host tcp://1.2.3.4:5 status", "only unix sockets"),
            ("--host unix://x status", "only unix sockets"),
            ("--log-level loud status", "debug, info, warn or error"),
            ("--timeout x status", "number of seconds"),
            ("--timeout -1 status", "-1"),
            ("--timeout inf status", "number of seconds"),
            ("status --format yaml", "table"),
            ("inspect", "<ID>"),
            ("logs a b", "'b'"),
        ] {
            let error = parse(&words(line)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            let text = error.to_string();
            assert!(text.contains(expected), "{line}: {text}");
            assert!(text.contains("--help"), "{line}: {text}");
        }
    }

    #[test]
    fn help_and_version_go_to_standard_output() {
        for line in ["--help", "-h", "--version", "-v", "-V", "cleanup --help"] {
            let answer = parse(&words(line)).unwrap_err();
            assert!(!answer.use_stderr() && answer.exit_code() == 0, "{line}");
        }
        let version = parse(&words("--version")).unwrap_err();
        assert_eq!(version.kind(), clap::error::ErrorKind::DisplayVersion);
    }

    #[test]
    fn the_help_names_every_command() {
        let help = parse(&words("--help")).unwrap_err().to_string();
        for command in ["cleanup", "status", "list", "inspect", "logs", "check", "doctor"] {
            assert!(help.contains(command), "{command}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Invalid {
        Host, Level, Seconds,
    }
}
