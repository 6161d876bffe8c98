//! What the stepper is told, and what it tells: whom it strikes, when and how, and what it saw.

use crate::finished::{End, Finished};
use crate::system_calls::Call;
use nix::errno::Errno;
use nix::unistd::Pid;

/// Which process of the family is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The one that was called.
    Main,
    /// The n-th that it starts, from 1.
    Child(usize),
}

/// At which of its calls, from 1, something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before(usize),
    After(usize),
    /// At this one and at every later one.
    From(usize),
    Never,
}

/// What happens.
pub(crate) enum Deed<'a> {
    /// SIGKILL.
    Kill,
    /// The call is not made and returns an error, if the filter holds.
    Fail(Errno, fn(&Call) -> bool),
    /// Something happens elsewhere while the process stands still.
    Meanwhile(&'a mut dyn FnMut()),
    Nothing,
}

/// What a stepped command did.
pub(crate) struct Traced {
    pub(crate) finished: Finished,
    /// The call that was struck first.
    pub(crate) hit: Option<Call>,
    pub(crate) strikes: usize,
    /// Its number among the calls of the process.
    pub(crate) hit_at: usize,
    /// All calls of the stepped process, as far as it came.
    pub(crate) calls: Vec<Call>,
    /// Who else has ended meanwhile.
    pub(crate) others: Vec<(Pid, End)>,
    /// What became of the stepped child, if there was one: its command line.
    pub(crate) child: Option<String>,
}
