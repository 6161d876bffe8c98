//! The image's own hooks: which file, which search path, which limit. `host/container/hook.rs` runs them, in the
//! environment that `model/container/environment.rs` makes.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a hook may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The longest that a hook of the spec may ask for: a day. Clocks and what a guard reports have room for
/// it, which they have not for every number that a configuration can hold.
const LIMIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The search path of every hook and of the proxy.
pub(crate) const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a hook of the spec with this `timeout`, in seconds, may take.
pub(crate) fn limit_of(timeout: Option<i64>) -> Duration {
    // A spec with one that is not above zero is refused; state that was forged may have it.
    let seconds = timeout.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(LIMIT, |seconds| Duration::from_secs(seconds).min(LIMIT_MAX))
}

/// The moment an image hook belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    Create,
    Start,
    Delete,
    /// Before the manager removes a stale container: at the top of each of its volumes.
    Deactivate,
}

impl Verb {
    /// The path of the hook inside the rootfs; also its name in messages.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Create => "hooks/create",
            Self::Start => "hooks/start",
            Self::Delete => "hooks/delete",
            Self::Deactivate => "deactivate",
        }
    }
}

/// What stands where a hook is looked for, links followed inside the rootfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    File,
    Folder,
    Fifo,
    Socket,
    Device,
    LinkToNothing,
    LinkLoop,
    Other,
}

/// Why a file is no hook that could be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("hook {hook} is {what}, it must be an executable file")]
    NotAFile { hook: &'static str, what: &'static str },
    #[error("hook {hook} is not executable (its mode is {mode:04o}): chmod +x it in the image")]
    NotExecutable { hook: &'static str, mode: u32 },
}

/// Decides whether what was found can be run as the hook of `verb`. Of `mode` the permission bits
/// count.
///
/// # Errors
/// What it is instead of an executable file.
pub(crate) fn fitness(verb: Verb, kind: FileKind, mode: u32) -> Result<(), Unfit> {
    let hook = verb.path();
    let what = match kind {
        FileKind::File if mode & 0o111 == 0 => {
            return Err(Unfit::NotExecutable { hook, mode: mode & 0o7777 });
        }
        FileKind::File => return Ok(()),
        FileKind::Folder => "a folder",
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::Device => "a device",
        FileKind::LinkToNothing => "a link to nothing inside the rootfs",
        FileKind::LinkLoop => "a loop of links",
        FileKind::Other => "not a file",
    };
    Err(Unfit::NotAFile { hook, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timeout_is_a_limit_that_clocks_have_room_for() {
        for (timeout, seconds) in [
            (None, 60),
            (Some(1), 1),
            (Some(86_400), 86_400),
            (Some(86_401), 86_400),
            (Some(90_000_000_000_000_000), 86_400),
            (Some(i64::MAX), 86_400),
            (Some(-1), 60),
        ] {
            let limit = limit_of(timeout);
            assert_eq!(limit, Duration::from_secs(seconds), "{timeout:?}");
            // As it travels: milliseconds in 31 bits.
            assert!(i32::try_from(limit.as_millis()).is_ok(), "{timeout:?}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Unfit {
        NotAFile { hook, what }, NotExecutable { hook, mode },
    }
}
