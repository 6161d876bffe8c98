//! The commands that an extension, which has no process of its own, cannot serve. Their flags are many
//! and none matters, but the log is to say for which container one was asked.

use crate::model::container::id::ContainerId;
use std::ffi::OsString;

/// The commands, and why not.
pub(super) const COMMANDS: [(&str, &str); 6] = [
    ("exec", "an extension has no process to execute beside"),
    ("pause", "an extension has no process to pause"),
    ("resume", "an extension has no process to resume"),
    ("events", "an extension has no process to report on"),
    ("checkpoint", "an extension has no process to checkpoint"),
    ("restore", "an extension has no process to restore"),
];

/// Their flags that take a value, which may be the next word: those of runc and crun.
const VALUED: [&str; 30] = [
    "-b",
    "-c",
    "-e",
    "-g",
    "-p",
    "-u",
    "--additional-gids",
    "--apparmor",
    "--bundle",
    "--cap",
    "--cgroup",
    "--console-socket",
    "--cwd",
    "--empty-ns",
    "--env",
    "--image-path",
    "--interval",
    "--lsm-mount-context",
    "--lsm-profile",
    "--manage-cgroups-mode",
    "--network-lock",
    "--page-server",
    "--parent-path",
    "--pid-file",
    "--preserve-fds",
    "--process",
    "--process-label",
    "--status-fd",
    "--user",
    "--work-path",
];

/// The container among the words behind such a command: the first that is neither a flag nor a flag's
/// value. `None` if there is none, or if it is no id.
pub(super) fn container(words: impl Iterator<Item = OsString>) -> Option<ContainerId> {
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        if VALUED.contains(&word.as_str()) {
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
            let words = line.split_ascii_whitespace().map(OsString::from);
            let found = container(words);
            assert_eq!(found.as_ref().map(ContainerId::as_str), expected, "{line}");
        }
    }
}
