//! `run ID`: create, start and delete for people at a terminal. Each is a process of its own and safe to
//! kill at any moment, so an interrupted run ends with a forced delete and leaves nothing.

use super::Outcome;
use crate::cli::runtime::{Afterwards, Create};
use crate::host::reaper;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Command, ExitStatus};

/// Why a run did not go through. What the verb itself says is on standard error already.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("run {verb} of the container")]
    Spawn { verb: &'static str, source: io::Error },
    #[error("{verb} did not succeed ({status}); nothing of the container is left")]
    Verb { verb: &'static str, status: ExitStatus },
    #[error("delete did not succeed ({status})")]
    Delete { status: ExitStatus },
    #[error("prepare to run the container")]
    Prepare { source: io::Error },
}

pub(super) fn run(words: &[OsString], request: &Create, afterwards: Afterwards) -> Outcome {
    // The proxy becomes a child of this process, which so leaves no zombie.
    reaper::adopt_orphans().map_err(|source| Error::Prepare { source })?;
    // What interrupts the run goes to the verb under way, which is in the same process group.
    reaper::hold_interrupts().map_err(|source| Error::Prepare { source })?;
    let globals: Vec<&OsString> = words.iter().take_while(|word| *word != "run").collect();
    let id = OsStr::new(request.id.as_str());
    let call = |verb: &'static str, arguments: &[&OsStr]| {
        Command::new("/proc/self/exe")
            .args(&globals)
            .arg(verb)
            .args(arguments)
            .arg(id)
            .status()
            .map_err(|source| Error::Spawn { verb, source })
    };
    let flags = create_flags(request);
    let flags: Vec<&OsStr> = flags.iter().map(OsString::as_os_str).collect();
    let created = call("create", &flags)?;
    if !created.success() {
        // A create that failed has left nothing; one that was killed, or an id that was taken, must
        // be told apart: only the first may be deleted.
        if created.code().is_none() {
            call("delete", &[OsStr::new("--force")])?;
        }
        return Err(Error::Verb { verb: "create", status: created }.into());
    }
    let started = call("start", &[])?;
    if !started.success() {
        call("delete", &[OsStr::new("--force")])?;
        return Err(Error::Verb { verb: "start", status: started }.into());
    }
    reaper::reap_children().map_err(|source| Error::Prepare { source })?;
    if afterwards == Afterwards::Delete {
        let deleted = call("delete", &[])?;
        if !deleted.success() {
            return Err(Error::Delete { status: deleted }.into());
        }
    }
    Ok(Some("ran".to_owned()))
}

fn create_flags(request: &Create) -> Vec<OsString> {
    let mut flags = vec![OsString::from("--inherit-terminal")];
    for (flag, value) in [
        ("--bundle", &request.bundle),
        ("--pid-file", &request.pid_file),
        ("--console-socket", &request.console_socket),
    ] {
        if let Some(value) = value {
            flags.extend([OsString::from(flag), value.clone().into_os_string()]);
        }
    }
    flags
}
