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

const VERBS: [CommandEntry; 17] = [
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
    refused("exec", "an extension has no process to execute beside"),
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
    VERBS.iter().find(|verb| verb.name == name)
}

/// The container that a refused command is for, which its log line names. Engines write the id last; in
/// an `exec` without `--process` a command line follows the id, so the last word says nothing.
pub(super) fn container_of_refused(verb: &CommandEntry, words: &[OsString]) -> Option<ContainerId> {
    let names_file = |word: &OsString| {
        word.to_str().is_some_and(|word| word == "-p" || word.starts_with("--process"))
    };
    if verb.name == "exec" && !words.iter().any(names_file) {
        return None;
    }
    ContainerId::parse(words.last()?.to_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_general_help_names_every_command_and_fits_a_terminal() {
        for CommandEntry { name, help, .. } in VERBS {
            assert!(GENERAL.contains(name), "{name} is not in the general help");
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{name} is too wide");
        }
    }

    #[test]
    fn the_container_of_a_refused_command_is_found_as_engines_write_it() {
        for (line, expected) in [
            ("pause x", Some("x")),
            ("exec --detach --process /p/spec.json --pid-file=/p/pid x", Some("x")),
            ("exec --process=/p --console-socket /s --preserve-fds 1 x", Some("x")),
            ("exec -t -e A=1 --cwd / x y", None),
            ("events --stats --interval 5s x", Some("x")),
            ("checkpoint --image-path /i --leave-running -- x", Some("x")),
            ("exec --process /p", None),
            ("resume ../x", None),
            ("restore", None),
        ] {
            let mut words = line.split_ascii_whitespace();
            let verb = find(words.next().unwrap()).unwrap();
            let words: Vec<OsString> = words.map(OsString::from).collect();
            let found = container_of_refused(verb, &words);
            assert_eq!(found.as_ref().map(ContainerId::as_str), expected, "{line}");
        }
    }
}
