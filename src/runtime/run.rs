//! `run ID`: create, start and delete for people at a terminal. Each is a process of its own and safe to
//! kill at any moment, so an interrupted run ends with a forced delete and leaves nothing.
//!
//! A create that was killed does not say whether it had the id. So each run has a mark, which its create
//! records and its delete looks for: another's container is never taken for the own.

use super::{Context, Outcome, observe};
use crate::cli::runtime::{Afterwards, Command, Create, parse};
use crate::host::container::state_dir::Loaded;
use crate::host::os::clock;
use crate::host::os::reaper::{self, First, Interrupts};
use crate::host::os::spawn::{Pid, Program, SigSet, spawn};
use crate::model::container::exit::Exit;
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::Duty;
use crate::model::container::proxy::PROGRAM;
use crate::model::text::cause::chain;
use std::ffi::{OsStr, OsString};
use std::io;

const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

/// Why a run did not go through. What the verb itself says is on standard error already.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("run {verb} of the container")]
    Spawn { verb: &'static str, source: io::Error },
    #[error("{verb} {exit}")]
    Verb { verb: &'static str, exit: Exit },
    #[error("an argument is not UTF-8: {word:?}")]
    NotUtf8 { word: OsString },
    #[error("{first}; and cleaning up: {then}")]
    NotUndone { first: String, then: String },
    #[error("look for the proxy, to wait for its end")]
    Look { source: Box<dyn std::error::Error> },
    #[error("wait for the proxy to end")]
    Wait { source: io::Error },
    #[error("start refused the extension: {reason}")]
    Refused { reason: String },
    #[error("interrupted")]
    Interrupted,
    #[error("prepare to run the container")]
    Prepare { source: io::Error },
}

/// `words` is the command line, `runtime_dir` the value of `XDG_RUNTIME_DIR`: the verbs get the same.
pub(super) fn run(
    context: &Context<'_>,
    words: &[OsString],
    runtime_dir: Option<&OsStr>,
    request: &Create,
    afterwards: Afterwards,
) -> Outcome {
    let failed = |source| Error::Prepare { source };
    // The proxy becomes a child of this process, which so leaves no zombie.
    reaper::adopt_orphans().map_err(failed)?;
    let interrupts = Interrupts::hold().map_err(failed)?;
    let globals: Vec<String> =
        globals(words).iter().map(|word| utf8(word)).collect::<Result<_, _>>()?;
    let environment = match runtime_dir {
        Some(path) => vec![format!("{RUNTIME_DIR}={}", utf8(path)?)],
        None => Vec::new(),
    };
    // The time tells it from a later process with the same pid.
    let mark = format!("{}@{}", std::process::id(), clock::now());
    let run = Run { globals, environment, id: request.id.to_string(), mark, interrupts };
    let created = run.verb("create", &create_flags(request)?);
    // A create that failed has left nothing; one that was killed may have left something.
    if let Err(Error::Verb { exit: Exit::Status(_), .. }) = &created {
        return created.map(|()| None).map_err(Into::into);
    }
    let ran = created
        .and_then(|()| run.verb("start", &[]))
        .and_then(|()| run.await_proxy(context, &request.id));
    if ran.is_ok() && afterwards == Afterwards::Keep {
        return Ok(Some("ran; kept".to_owned()));
    }
    let force = "--force".to_owned();
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

/// The words before the command. A flag's value may be `run` as well.
fn globals(words: &[OsString]) -> &[OsString] {
    let is_command = |at: usize| {
        let before = words.get(..at).unwrap_or_default();
        let probe: Vec<OsString> = before.iter().cloned().chain(["features".into()]).collect();
        words.get(at).is_some_and(|word| word == "run")
            && matches!(parse(&probe), Ok((_, Command::Features)))
    };
    let at = (0..words.len()).find(|&at| is_command(at)).unwrap_or_default();
    words.get(..at).unwrap_or_default()
}

struct Run {
    /// The flags before the command, to pass on.
    globals: Vec<String>,
    environment: Vec<String>,
    id: String,
    mark: String,
    interrupts: Interrupts,
}

impl Run {
    /// Calls a verb; what interrupts the run ends it.
    fn verb(&self, verb: &'static str, flags: &[String]) -> Result<(), Error> {
        self.call(verb, flags, |pid| self.interrupts.wait(pid))
    }

    /// Waits until the proxy of a sandbox has ended, which is when somebody ends it. That of an extension
    /// was told to, and delete sees to it; what a hook has left in the background is its own affair. One that
    /// was refused is an error here: its proxy's exit status is 1.
    fn await_proxy(&self, context: &Context<'_>, id: &ContainerId) -> Result<(), Error> {
        let look = |error: Box<dyn std::error::Error>| Error::Look { source: error };
        // Whatever else is there now is not what this run has made.
        let Loaded::Ours(state) = context.root.load(id).map_err(|error| look(error.into()))? else {
            return Ok(());
        };
        if let Some(reason) = state.refused {
            return Err(Error::Refused { reason });
        }
        let (proxy, _) = observe(&state).map_err(|error| look(error.into()))?;
        let Some(proxy) = proxy.filter(|_| state.duty() == Duty::Stay) else { return Ok(()) };
        match self.interrupts.wait_end(&proxy).map_err(|source| Error::Wait { source })? {
            First::End => {
                reaper::reap(&proxy);
                Ok(())
            }
            First::Interrupt => Err(Error::Interrupted),
        }
    }

    /// Calls a verb that has to come to its end.
    fn uninterrupted(&self, verb: &'static str, flags: &[String]) -> Result<(), Error> {
        self.call(verb, flags, reaper::wait)
    }

    fn call(
        &self,
        verb: &'static str,
        flags: &[String],
        wait: impl FnOnce(Pid) -> io::Result<Exit>,
    ) -> Result<(), Error> {
        let words = [PROGRAM].into_iter().chain(self.globals.iter().map(String::as_str));
        let words = words.chain([verb]).chain(flags.iter().map(String::as_str));
        let mark: &[&str] = match verb {
            "create" | "delete" => &["--of-run", &self.mark],
            _ => &[],
        };
        let words = words.chain(mark.iter().copied());
        let arguments: Vec<&str> = words.chain([self.id.as_str()]).collect();
        let program = Program {
            path: "/proc/self/exe",
            arguments: &arguments,
            environment: &self.environment,
            descriptors: &[],
            blocked: SigSet::empty(),
        };
        match spawn(&program).and_then(wait).map_err(|source| Error::Spawn { verb, source })? {
            exit if exit.is_success() => Ok(()),
            exit => Err(Error::Verb { verb, exit }),
        }
    }
}

fn create_flags(request: &Create) -> Result<Vec<String>, Error> {
    let mut flags = Vec::new();
    for (flag, value) in [
        ("--bundle", &request.bundle),
        ("--pid-file", &request.pid_file),
        ("--console-socket", &request.console_socket),
    ] {
        if let Some(value) = value {
            flags.extend([flag.to_owned(), utf8(value.as_os_str())?]);
        }
    }
    Ok(flags)
}

fn utf8(word: &OsStr) -> Result<String, Error> {
    word.to_str().map(str::to_owned).ok_or_else(|| Error::NotUtf8 { word: word.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_before_the_command_are_found_whatever_the_values_of_flags_are() {
        for (line, count) in [
            ("run x", 0),
            ("--root run run x", 2),
            ("--root=run --log run run run", 3),
            ("--debug run --bundle run x", 1),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(globals(&words).len(), count, "{line}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Spawn { verb, source }, Verb { verb, exit = Exit::Status(7) }, NotUtf8 { word },
        NotUndone { first, then }, Look { source }, Wait { source }, Refused { reason },
        Interrupted, Prepare { source },
    }
}
