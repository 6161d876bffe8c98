//! The input and the result of the tracer: which process it steps, at which call it acts and how, and what it
//! observed.

use crate::finished::{End, Finished};
use crate::system_calls::Call;
use nix::errno::Errno;
use nix::unistd::Pid;

/// The process that is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// The command itself.
    Main,
    /// The n-th process that the command starts, from 1.
    Child(usize),
}

/// The number of the call, from 1, at which the tracer acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before(usize),
    After(usize),
    /// At this call and all later ones.
    From(usize),
    Never,
}

/// The action.
pub(crate) enum Action<'a> {
    /// Sends SIGKILL.
    Kill,
    /// Skips the call and makes it return an error, if the filter matches.
    Fail(Errno, fn(&Call) -> bool),
    /// Runs something else while the process is paused.
    Meanwhile(&'a mut dyn FnMut()),
    /// Shows every call at its end, with its result, while the process is paused.
    Observe(&'a mut dyn FnMut(Pid, &Call, i64)),
    Nothing,
}

/// The result of a traced command.
pub(crate) struct Traced {
    pub(crate) finished: Finished,
    /// The first call at which the tracer acted.
    pub(crate) hit: Option<Call>,
    pub(crate) strikes: usize,
    /// The number of that call.
    pub(crate) hit_at: usize,
    /// All calls of the stepped process until its end.
    pub(crate) calls: Vec<Call>,
    /// The other processes that ended meanwhile.
    pub(crate) others: Vec<(Pid, End)>,
    /// The command line of the stepped child, if there was one.
    pub(crate) child: Option<String>,
}
