//! The names of the commands: whoever reads a command line must agree on where its command is.

use crate::cli::unsupported;

/// Those that do something, `update` among them, which changes nothing.
const SERVED: [&str; 11] = [
    "create", "run", "start", "kill", "delete", "state", "list", "ps", "features", "help", "update",
];

/// Whether a word is the name of a command, served or refused.
pub(super) fn is_command(word: &str) -> bool {
    SERVED.contains(&word) || unsupported::COMMANDS.iter().any(|(verb, _)| *verb == word)
}
