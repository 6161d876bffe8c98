//! The journal of a call: what it logs, which warnings it gave and which hooks it ran. The last line of the log
//! and the record of the deploy are written from it.

use super::error::Error;
use crate::host::container::hook::HookRun;
use crate::host::os::clock;
use crate::host::os::log::Log;
use crate::host::os::privilege;
use crate::host::os::signals::Stop;
use crate::model::container::deploy_record::{HookOutput, MountNamespace};
use crate::model::container::exit::quote;
use crate::model::container::id::ContainerId;
use crate::model::container::refusal::Refusal;
use crate::model::text::cause::{chain, sentence};
use crate::model::text::log::Fact;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

/// The result of a verb that succeeded.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It answered a question, or had nothing to do: the log gets no line.
    Answered,
    /// The sentence for the log.
    Did(String),
    /// `start` did not apply the extension.
    Refused(Refusal),
}

impl Outcome {
    fn sentence(&self) -> Option<&str> {
        match self {
            Self::Answered => None,
            Self::Did(sentence) => Some(sentence),
            Self::Refused(_) => {
                Some("refused; the container has stopped, and its proxy ends with status 1")
            }
        }
    }
}

/// When warnings are written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WarningPolicy {
    AtOnce,
    /// At the end: before the last line of a call that succeeds, and within that of one that fails. Podman reads
    /// the log file of a failed `create` as one document.
    AtTheEnd,
}

struct Warning {
    /// RFC 3339.
    time: String,
    message: String,
}

struct RanHook {
    took: f64,
    output: HookOutput,
}

pub(super) struct Journal {
    log: Log,
    policy: WarningPolicy,
    begun: Instant,
    warnings: Vec<Warning>,
    hooks: Vec<RanHook>,
    /// How many of the warnings and hooks are in the record of the deploy.
    recorded: (usize, usize),
    /// Ends a hook of `run` early.
    pub(super) stop: Option<Stop>,
}

impl Journal {
    pub(super) fn new(log: Log, policy: WarningPolicy) -> Self {
        let (warnings, hooks, recorded, stop) = Default::default();
        Self { log, policy, begun: Instant::now(), warnings, hooks, recorded, stop }
    }

    /// Names the command and the container in every further line of the log.
    pub(super) fn name(&mut self, verb: &str, id: Option<&ContainerId>) {
        self.log.with("command", verb);
        if let Some(id) = id {
            self.log.with("id", id.as_str());
        }
    }

    /// The same for a verb that changes something, which not every caller may.
    pub(super) fn begin(&mut self, verb: &str, id: &ContainerId) -> Result<(), Error> {
        self.name(verb, Some(id));
        Ok(privilege::check()?)
    }

    pub(super) fn debug(&self, message: impl FnOnce() -> String) {
        self.log.debug(message);
    }

    pub(super) fn warn(&mut self, message: &str) {
        let (time, message) = (clock::now(), sentence(message));
        if self.policy == WarningPolicy::AtOnce {
            self.log.warn_of(&time, &message);
        }
        self.warnings.push(Warning { time, message });
    }

    /// Adds a hook that has run; its result.
    pub(super) fn add(&mut self, run: HookRun, namespace: MountNamespace) -> Result<(), Error> {
        let took = millis(run.took);
        self.debug(|| match (&run.result, quote(&run.output)) {
            (Ok(()), Some(said)) => format!("{} took {took:.3} ms, and printed: {said}", run.name),
            (Ok(()), None) => format!("{} took {took:.3} ms", run.name),
            (Err(_), _) => format!("{} failed after {took:.3} ms", run.name),
        });
        let output = HookOutput::new(&run.name, &run.output, namespace);
        self.hooks.push(RanHook { took, output });
        Ok(run.result?)
    }

    /// The descriptor that interrupts a hook.
    pub(super) fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.stop.as_ref().map(Stop::as_fd)
    }

    /// The warnings and hooks since this was last called, for the record of the deploy.
    pub(super) fn unrecorded(&mut self) -> (Vec<String>, Vec<HookOutput>) {
        let (warnings, hooks) = self.recorded;
        self.recorded = (self.warnings.len(), self.hooks.len());
        (
            self.warnings.iter().skip(warnings).map(|it| it.message.clone()).collect(),
            self.hooks.iter().skip(hooks).map(|it| it.output.clone()).collect(),
        )
    }

    /// Writes the last lines of the log.
    pub(super) fn finish(self, result: &Result<Outcome, Error>) {
        let at_the_end = self.policy == WarningPolicy::AtTheEnd && self.log.shows_warnings();
        let late: Vec<Warning> = if at_the_end { self.warnings } else { Vec::new() };
        let times = self.hooks.into_iter().map(|it| (it.output.hook, it.took)).collect();
        let mut fields = vec![
            ("durationMs", Fact::Millis(millis(self.begun.elapsed()))),
            ("hooksMs", Fact::Steps(times)),
        ];
        match result {
            Ok(outcome) => {
                for Warning { time, message } in &late {
                    self.log.warn_of(time, message);
                }
                if let Some(sentence) = outcome.sentence() {
                    self.log.succeed(sentence, &fields);
                }
            }
            Err(error) => {
                if !late.is_empty() {
                    let late = late.into_iter().map(|warning| warning.message).collect();
                    fields.push(("warnings", Fact::Texts(late)));
                }
                self.log.fail(&chain(error), &fields);
            }
        }
    }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
