//! The table of the runtime's commands: the name of each, its help text, and why some are refused. Everything
//! that needs the name of a command asks this table.

use crate::model::container::id::ContainerId;
use std::ffi::OsString;

/// The help text without a command.
pub(crate) const GENERAL: &str = include_str!("help/general.txt");
const REFUSED: &str = include_str!("help/unsupported.txt");

/// A command of the runtime.
pub(crate) struct CommandEntry {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// Why an extension cannot serve it.
    pub(super) refusal: Option<&'static str>,
}

const COMMANDS: [CommandEntry; 17] = [
    served("create", include_str!("help/create.txt")),
    served("start", include_str!("help/start.txt")),
    served("kill", include_str!("help/kill.txt")),
    served("delete", include_str!("help/delete.txt")),
    served("state", include_str!("help/state.txt")),
    served("list", include_str!("help/list.txt")),
    served("ps", include_str!("help/ps.txt")),
    served("features", include_str!("help/features.txt")),
    served("run", include_str!("help/run.txt")),
    served("update", include_str!("help/update.txt")),
    served("help", GENERAL),
    refused("exec", "an extension has no process to exec into"),
    refused("pause", "an extension has no process to pause"),
    refused("resume", "an extension has no process to resume"),
    refused("events", "an extension has no process to report on"),
    refused("checkpoint", "an extension has no process to checkpoint"),
    refused("restore", "an extension has no process to restore"),
];

const fn served(name: &'static str, help: &'static str) -> CommandEntry {
    CommandEntry { name, help, refusal: None }
}

const fn refused(name: &'static str, why: &'static str) -> CommandEntry {
    CommandEntry { name, help: REFUSED, refusal: Some(why) }
}

/// The command of this name.
pub(crate) fn find(name: &str) -> Option<&'static CommandEntry> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The flags of refused commands whose value may be the next word, as runc and crun have them.
const VALUED: &str = "-b -c -e -g -p -u --additional-gids --apparmor --bundle --cap --cgroup --console-socket --cwd \
    --empty-ns --env --image-path --interval --lsm-mount-context --lsm-profile --manage-cgroups-mode --network-lock \
    --page-server --parent-path --pid-file --preserve-fds --process --process-label --status-fd --user --work-path";

/// The container that a refused command is for, which its log line names: the first word that is neither a flag nor
/// the value of a flag.
pub(super) fn container_of_refused(words: &[OsString]) -> Option<ContainerId> {
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if VALUED.split_ascii_whitespace().any(|flag| flag == word) {
            words.next();
        } else if word != "--" && !word.starts_with('-') {
            return ContainerId::parse(&word).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_general_help_names_every_command_and_fits_a_terminal() {
        for CommandEntry { name, help, .. } in COMMANDS {
            assert!(GENERAL.contains(name), "{name} is not in the general help");
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{name} is too wide");
        }
    }

    #[test]
    fn the_container_is_found_among_the_flags_of_other_runtimes() {
        for (line, expected) in [
            ("x", Some("x")),
            ("--detach --process /p/spec.json --pid-file=/p/pid x sh -c y", Some("x")),
            ("-t -e A=1 --cwd / x y", Some("x")),
            ("--stats --interval 5s x", Some("x")),
            ("--image-path /i --leave-running -- x", Some("x")),
            ("--process", None),
            ("../x", None),
            ("", None),
        ] {
            let words: Vec<OsString> = line.split_ascii_whitespace().map(OsString::from).collect();
            let found = container_of_refused(&words);
            assert_eq!(found.as_ref().map(ContainerId::as_str), expected, "{line}");
        }
    }
}
