//! The help texts of the runtime, one a command.

/// `--help`.
pub(crate) const GENERAL: &str = include_str!("help/general.txt");

/// The help of each command.
const TOPICS: [(&str, &str); 16] = [
    ("create", include_str!("help/create.txt")),
    ("start", include_str!("help/start.txt")),
    ("kill", include_str!("help/kill.txt")),
    ("delete", include_str!("help/delete.txt")),
    ("state", include_str!("help/state.txt")),
    ("list", include_str!("help/list.txt")),
    ("ps", include_str!("help/ps.txt")),
    ("features", include_str!("help/features.txt")),
    ("run", include_str!("help/run.txt")),
    ("update", include_str!("help/update.txt")),
    ("exec", UNSUPPORTED),
    ("pause", UNSUPPORTED),
    ("resume", UNSUPPORTED),
    ("events", UNSUPPORTED),
    ("checkpoint", UNSUPPORTED),
    ("restore", UNSUPPORTED),
];

const UNSUPPORTED: &str = include_str!("help/unsupported.txt");

/// The help of `topic`, if there is such a command.
pub(crate) fn topic(topic: &str) -> Option<&'static str> {
    TOPICS.iter().find(|(name, _)| *name == topic).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_general_help_names_every_command_and_fits_a_terminal() {
        for (name, text) in TOPICS {
            assert!(GENERAL.contains(name), "{name} is not in the general help");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{name} is too wide");
        }
        assert!(GENERAL.lines().all(|line| line.chars().count() <= 80));
    }
}
