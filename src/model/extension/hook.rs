//! The hooks of an image: their paths, search path and time limit. `host/container/hook.rs` runs them, in the
//! environment from `model/container/environment.rs`.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a hook may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// The largest `timeout` of a hook of the spec. A larger number could overflow a clock or the guard's report.
const LIMIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The search path of every hook and of the proxy.
pub(crate) const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// The time limit of a hook of the spec; `timeout` is in seconds.
pub(crate) fn limit_of(timeout: Option<i64>) -> Duration {
    // `create` refuses a timeout that is not positive, but a forged state may have one.
    let seconds = timeout.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(LIMIT, |seconds| Duration::from_secs(seconds).min(LIMIT_MAX))
}

/// When a hook of the image runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    Create,
    Start,
    Delete,
    /// Before the manager removes a stale container; at the top of each of its volumes.
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

/// The kind of file at a hook's path, after following links inside the rootfs.
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

/// Why a file cannot be run as a hook.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("hook {hook} is {what}, not an executable file")]
    NotAFile { hook: &'static str, what: &'static str },
    #[error("hook {hook} is not executable (mode {mode:04o}): run chmod +x on it in the image")]
    NotExecutable { hook: &'static str, mode: u32 },
}

/// Checks that the file can be run as the hook of `verb`. Only the permission bits of `mode` count.
pub(crate) fn fitness(verb: Verb, kind: FileKind, mode: u32) -> Result<(), Unfit> {
    let hook = verb.path();
    let what = match kind {
        FileKind::File if mode & 0o111 == 0 => {
            return Err(Unfit::NotExecutable { hook, mode: mode & 0o7777 });
        }
        FileKind::File => return Ok(()),
        FileKind::Folder => "a directory",
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
        FileKind::Device => "a device",
        FileKind::LinkToNothing => "a link to nothing inside the rootfs",
        FileKind::LinkLoop => "a loop of links",
        FileKind::Other => "a special file",
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
