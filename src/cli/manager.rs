//! The manager's command line, and its help. People type it, so clap's help and suggestions are worth their size
//! here. Man pages and completions come from the same definition. A new command is a variant of
//! [`ManagerCommand`] with its arguments.

use crate::cli::activation::{self, KernelCommand};
use crate::cli::check::Check;
use crate::cli::kernel::{HistoryArguments, HupArguments, OverrideArguments, ValidateArguments};
use crate::cli::plan::PlanArguments;
use crate::cli::simulate::SimulateArguments;
use crate::cli::try_extension::TryArguments;
use crate::cli::values::{OutputFormat, StatusFormat, level, seconds, socket};
use crate::model::text::log::Level;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The heading of the options that every command has.
const GLOBAL: &str = "Global options";

/// Report the state of hostapp extensions, and remove failed or obsolete ones.
///
/// The manager works on the containers, images and volumes of a container engine that are labelled
/// io.balena.image.class=overlay, and never touches others.
#[derive(Debug, Parser)]
#[command(
    name = "balena-extension-manager",
    bin_name = "balena-extension-manager",
    // Printed by the main, which knows it.
    version = "",
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = false,
    max_term_width = 100,
    after_help = "\
Examples:
  balena-extension-manager status           the verdict about every extension, and the next step
  balena-extension-manager plan             what the next boot will make of every extension
  balena-extension-manager try IMAGE        a shell in the root filesystem with an extension that is not deployed
  balena-extension-manager logs NAME        the output of its hooks at the last deploy
  balena-extension-manager cleanup          remove failed and dead extensions
  balena-extension-manager help cleanup     the options of a command

Exit status: 0 on success, 1 if something failed, 2 for an invalid command line. The help of cleanup
and of check lists further ones.

Documentation: docs/manager.md (every verdict) and docs/troubleshooting.md (symptoms). The Debian
package installs docs/ in /usr/share/doc/balena-extension-runtime."
)]
pub(crate) struct Arguments {
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub(crate) globals: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: ManagerCommand,
}

/// The options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = GLOBAL)]
pub(crate) struct GlobalOptions {
    /// The engine's socket, unix:///path [default: DOCKER_HOST, which must be unix:///path or an absolute
    /// path, else unix:///var/run/balena-engine.sock, else unix:///var/run/docker.sock]
    #[arg(long, global = true, value_name = "URL", value_parser = socket)]
    pub(crate) host: Option<PathBuf>,
    /// Which messages to print to standard error: debug, info, warn or error
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub(crate) log_level: Level,
    /// The time limit of one request to the engine
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) request_timeout: Duration,
    /// The time limit of the whole command
    #[arg(long, global = true, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// The engine's data root, which is read if the engine does not answer [default: the one that the engine reports, else
    /// /var/lib/docker, else /mnt/data/docker]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) docker_root: Option<PathBuf>,
    /// Read the host's files below DIR instead of /
    #[arg(long, global = true, value_name = "DIR", default_value = "/", value_hint = ValueHint::DirPath)]
    pub(crate) host_root: PathBuf,
}

/// The commands, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum ManagerCommand {
    Status(StatusArguments),
    Plan(PlanArguments),
    Try(TryArguments),
    Logs(LogsArguments),
    Inspect(InspectArguments),
    List(ListArguments),
    Doctor(DoctorArguments),
    Cleanup(CleanupArguments),
    Check(Check),
    Override(OverrideArguments),
    History(HistoryArguments),
    Validate(ValidateArguments),
    Hup(HupArguments),
    Simulate(SimulateArguments),
    /// Not for people, and in no help: [`RuntimeCall`] parses it.
    #[command(skip)]
    Kernel(KernelCommand),
}

/// Report the verdict about every extension, the reason, and the next step
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager status
  balena-extension-manager status NAME --format json
  balena-extension-manager status --format prometheus --output /var/lib/prometheus/node-exporter/balena-extensions.prom")]
pub(crate) struct StatusArguments {
    /// An id, a name, or the beginning of an id [default: all extensions]
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// The output format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: StatusFormat,
    /// With --format prometheus: replace FILE instead of printing; if the command fails, FILE is unchanged
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

/// Print the output of the runtime and of the hooks at the last deploy of an extension
///
/// This also works for containers that failed at create, for which engines keep no logs. Records are kept until the
/// next reboot.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  balena-extension-manager logs NAME")]
pub(crate) struct LogsArguments {
    /// An id, a name, or the beginning of an id
    pub(crate) id: String,
}

/// Print everything that is known about an extension, as JSON
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  balena-extension-manager inspect NAME")]
pub(crate) struct InspectArguments {
    /// An id, a name, or the beginning of an id
    pub(crate) id: String,
}

/// List the extensions, one per line: the id, a tab, the name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  balena-extension-manager list --quiet")]
pub(crate) struct ListArguments {
    /// Print only the ids
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// The output format
    #[arg(long, value_enum, default_value_t, conflicts_with = "quiet")]
    pub(crate) format: OutputFormat,
}

/// Check whether this host is set up for extensions, and print how to fix it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  balena-extension-manager doctor

Exit status: 0 if there is no problem (warnings do not count), 1 if there is one.")]
pub(crate) struct DoctorArguments {
    /// The output format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// Remove failed and dead extensions; with --stale-os, also those built for another OS or kernel
///
/// Containers that are dead, or that could not be created or started, are removed with their anonymous
/// volumes. Volumes that were fabricated for a kernel are removed when no extension claims it any more. With --stale-os, containers, images and volumes whose claims the running kernel or OS violates are
/// removed too. Before such a container is removed, the executable `deactivate` at the top of each of its volumes
/// is run. Working extensions are kept, although engines show them as `Exited (0)`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  balena-extension-manager cleanup                        safe at any time, for example at every boot
  balena-extension-manager cleanup --stale-os --dry-run   print what would be removed after an OS update

Exit status: 0 if everything was done, 1 if an object could not be removed or no decision was possible,
3 if --stale-os was refused because an OS update can still roll back, 4 if it timed out or was
interrupted by a signal.")]
pub(crate) struct CleanupArguments {
    /// Also remove extensions built for another OS or kernel; only after an OS update has committed
    #[arg(long)]
    pub(crate) stale_os: bool,
    /// With --stale-os: continue even if an OS update can still roll back, or if that is unknown
    #[arg(long, requires = "stale_os")]
    pub(crate) force: bool,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also print the objects that are kept, with the reason (JSON always contains them)
    #[arg(long)]
    pub(crate) verbose: bool,
    /// How long to wait for an engine that is starting up
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) wait: Duration,
    /// The output format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OutputFormat,
}

/// A call of the runtime.
#[derive(Debug, Parser)]
#[command(name = "balena-extension-manager kernel")]
struct RuntimeCall {
    #[command(flatten)]
    globals: GlobalOptions,
    #[command(subcommand)]
    command: KernelCommand,
}

/// Parses a whole command line, without the program's name. The help and the version are errors of clap.
pub(crate) fn parse(words: &[OsString]) -> Result<Arguments, clap::Error> {
    // Not a command of the definition: clap would offer it in completions and suggestions.
    if words.first().is_some_and(|word| word == activation::COMMAND) {
        let RuntimeCall { globals, command } = RuntimeCall::try_parse_from(words)?;
        return Ok(Arguments { version: None, globals, command: ManagerCommand::Kernel(command) });
    }
    let name = OsString::from("balena-extension-manager");
    let arguments = Arguments::try_parse_from(std::iter::once(&name).chain(words))?;
    if let ManagerCommand::Status(status) = &arguments.command {
        status.check()?;
    }
    Ok(arguments)
}

impl StatusArguments {
    /// Checks what clap cannot express: an argument that depends on the value of another one.
    fn check(&self) -> Result<(), clap::Error> {
        let is_prometheus = self.format == StatusFormat::Prometheus;
        let why = match (is_prometheus, self.ids.is_empty(), &self.output) {
            // Metrics about some extensions would look like those of a device that has no others.
            (true, false, _) => "--format prometheus reports all extensions, so it takes no ID",
            (false, _, Some(_)) => "--output can only be used with --format prometheus",
            (_, _, _) => return Ok(()),
        };
        let mut definition = Arguments::command();
        definition.build();
        let command = definition.find_subcommand_mut("status");
        Err(match command {
            Some(command) => command.error(ErrorKind::ArgumentConflict, why),
            None => clap::Error::raw(ErrorKind::ArgumentConflict, why),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            "--host unix:///x --log-level debug cleanup --stale-os --force",
            "cleanup --stale-os --force --host=/x --log-level=debug",
        ] {
            let arguments = parse(&words(line)).unwrap();
            assert_eq!(arguments.globals.host.unwrap().to_str(), Some("/x"));
            assert_eq!(arguments.globals.log_level, Level::Debug);
            let ManagerCommand::Cleanup(cleanup) = arguments.command else { panic!("{line}") };
            assert!(cleanup.stale_os && cleanup.force && !cleanup.dry_run);
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
            ("list --format prometheus", "json"),
            ("status x --format prometheus", "takes no ID"),
            ("status --output x", "--format prometheus"),
            ("status --format json --output x", "--format prometheus"),
            ("plan --os-root x --os-version 1", "--os-version"),
            ("plan --kernel-abi stock", "or none"),
            ("plan --kernel-release a/b", "uname -r"),
            ("plan --page-size 4k", "4k"),
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
    fn the_calls_of_the_runtime_are_understood_and_not_shown() {
        let line = "kernel fabricate --caller 1 --container c --rootfs /r --volume v --label a=b=c \
                    --docker-root /d --timeout 9";
        let Arguments { globals, command, .. } = parse(&words(line)).unwrap();
        assert_eq!(globals.docker_root.unwrap().to_str(), Some("/d"));
        let ManagerCommand::Kernel(KernelCommand::Fabricate(call)) = command else { panic!() };
        assert_eq!(call.labels, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(parse(&words("kernel fabricate")).unwrap_err().exit_code(), 2);
        assert_eq!(parse(&words("kernel frob")).unwrap_err().exit_code(), 2);
        assert!(!parse(&words("--help")).unwrap_err().to_string().contains("fabricate"));
    }

    #[test]
    fn help_and_version_are_printed_to_standard_output() {
        for line in
            ["--help", "-h", "help", "help status", "--version", "-v", "-V", "cleanup --help"]
        {
            let answer = parse(&words(line)).unwrap_err();
            assert!(!answer.use_stderr() && answer.exit_code() == 0, "{line}");
        }
        let version = parse(&words("--version")).unwrap_err();
        assert_eq!(version.kind(), clap::error::ErrorKind::DisplayVersion);
    }

    #[test]
    fn the_help_names_every_command() {
        let help = parse(&words("--help")).unwrap_err().to_string();
        for command in [
            "cleanup", "status", "list", "inspect", "logs", "check", "doctor", "validate", "hup",
            "override", "history", "simulate", "plan", "try",
        ] {
            assert!(help.contains(command), "{command}");
        }
    }

    #[test]
    fn every_help_has_an_example_and_its_global_options_apart() {
        for command in [
            "", "cleanup", "status", "list", "inspect", "logs", "doctor", "check", "validate",
            "hup", "override", "history", "plan", "try",
        ] {
            let help = parse(&words(&format!("{command} --help"))).unwrap_err().to_string();
            let (own, global) = help.split_once("Global options:").unwrap();
            assert!(!own.contains("--timeout") && global.contains("--timeout"), "{help}");
            let example = format!("  balena-extension-manager {command}");
            assert!(global.contains("Example") && global.contains(example.trim_end()), "{help}");
        }
    }
}
