//! The manager: outside the life of a container, from boot units and by hand.

use crate::cli::manager::{Command, HELP, parse};
use crate::host::output;
use crate::model::cause::chain;
use std::ffi::OsString;
use std::process::ExitCode;

/// The main of `balena-extension-manager`. `words` is the command line without the program's name.
#[must_use]
pub fn main(words: Vec<OsString>) -> ExitCode {
    let text = match parse(&words) {
        Ok(Command::Help) => HELP.to_owned(),
        Ok(Command::Version) => crate::version::text("balena-extension-manager"),
        Err(error) => {
            output::complain(&chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match output::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&chain(&error));
            ExitCode::FAILURE
        }
    }
}
