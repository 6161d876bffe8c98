//! `run ID`: create, start and delete for people at a terminal. Each is a process of its own and safe to
//! kill at any moment, so an interrupted run ends with a forced delete and leaves nothing.

use super::Outcome;
use crate::cli::runtime::{Afterwards, Create};
use crate::host::reaper::{self, Interrupts};
use crate::model::cause::chain;
use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, ExitStatus};

/// Why a run did not go through. What the verb itself says is on standard error already.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("run {verb} of the container")]
    Spawn { verb: &'static str, source: io::Error },
    #[error("{verb} did not succeed ({status})")]
    Verb { verb: &'static str, status: ExitStatus },
    #[error("{first}; and cleaning up: {then}")]
    NotUndone { first: String, then: String },
    #[error("prepare to run the container")]
    Prepare { source: io::Error },
}

pub(super) fn run(words: &[OsString], request: &Create, afterwards: Afterwards) -> Outcome {
    let failed = |source| Error::Prepare { source };
    // The proxy becomes a child of this process, which so leaves no zombie.
    reaper::adopt_orphans().map_err(failed)?;
    let interrupts = Interrupts::hold().map_err(failed)?;
    let globals = words.iter().take_while(|word| *word != "run").cloned().collect();
    let run = Run { globals, id: request.id.to_string(), interrupts };
    let created = run.verb("create", &create_flags(request));
    // A create that failed has left nothing, and one whose id was taken must not delete; one that was
    // killed may have left something.
    if let Err(Error::Verb { status, .. }) = &created
        && status.code().is_some()
    {
        return created.map(|()| None).map_err(Into::into);
    }
    let ran = created
        .and_then(|()| run.verb("start", &[]))
        .and_then(|()| reaper::reap_children().map_err(failed));
    if ran.is_ok() && afterwards == Afterwards::Keep {
        return Ok(Some("ran; kept".to_owned()));
    }
    let force = OsString::from("--force");
    let deleted = match &ran {
        Ok(()) => run.verb("delete", &[]).or_else(|_| run.uninterrupted("delete", &[force])),
        Err(_) => run.uninterrupted("delete", &[force]),
    };
    match (ran, deleted) {
        (Ok(()), Ok(())) => Ok(Some("ran".to_owned())),
        (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error.into()),
        (Err(first), Err(then)) => {
            Err(Error::NotUndone { first: chain(&first), then: chain(&then) }.into())
        }
    }
}

struct Run {
    /// The flags before the command, to pass on.
    globals: Vec<OsString>,
    id: String,
    interrupts: Interrupts,
}

impl Run {
    /// Calls a verb; what interrupts the run ends it.
    fn verb(&self, verb: &'static str, flags: &[OsString]) -> Result<(), Error> {
        let mut child = self.spawn(verb, flags)?;
        let status = self.interrupts.wait(&mut child);
        verdict(verb, status)
    }

    /// Calls a verb that has to come to its end.
    fn uninterrupted(&self, verb: &'static str, flags: &[OsString]) -> Result<(), Error> {
        let status = self.spawn(verb, flags)?.wait();
        verdict(verb, status)
    }

    fn spawn(&self, verb: &'static str, flags: &[OsString]) -> Result<Child, Error> {
        Command::new("/proc/self/exe")
            .args(&self.globals)
            .arg(verb)
            .args(flags)
            .arg(&self.id)
            .spawn()
            .map_err(|source| Error::Spawn { verb, source })
    }
}

fn verdict(verb: &'static str, status: io::Result<ExitStatus>) -> Result<(), Error> {
    match status.map_err(|source| Error::Spawn { verb, source })? {
        status if status.success() => Ok(()),
        status => Err(Error::Verb { verb, status }),
    }
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
