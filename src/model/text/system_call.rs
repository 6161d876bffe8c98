//! Explains why a system call failed: which call it was, the Linux version that introduced it, and the seccomp profile
//! or the missing capability that refuses it.

use crate::model::text::{cause, cut};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// A system call that failed, and what it was needed for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedCall {
    /// The operation that failed: `watch the hook`.
    pub(crate) purpose: String,
    /// The name of the system call.
    pub(crate) call: String,
    pub(crate) errno: i32,
}

impl RefusedCall {
    /// The failure of `call` with `error`. Values that `purpose` quotes are cut.
    pub(crate) fn new(call: &str, purpose: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or_default();
        Self { purpose: cut::values(purpose).into(), call: call.to_owned(), errno }
    }
}

impl fmt::Display for RefusedCall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.purpose, why(&self.call, self.errno))
    }
}

const EPERM: i32 = 1;
const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;

/// Why `call` failed with `errno`.
pub(crate) fn why(call: &str, errno: i32) -> String {
    let since = since(call).map(|since| format!("; {call} needs Linux {since} or newer"));
    let since = since.unwrap_or_default();
    let by_profile = "usually by a seccomp profile that does not allow it";
    match (errno, capability(call)) {
        (ENOSYS, _) => {
            format!("the kernel has no {call}, or a seccomp profile refuses it (ENOSYS){since}")
        }
        (EPERM, None) => format!("{call} is refused (EPERM), {by_profile}{since}"),
        (EPERM | EACCES, Some(capability)) => {
            let name = if errno == EPERM { "EPERM" } else { "EACCES" };
            format!(
                "{call} is refused ({name}), {by_profile}, or because {capability} is missing{since}"
            )
        }
        (EINVAL, _) if call == "open_tree" => {
            "open_tree is refused (EINVAL): the mount is unbindable, or in another mount namespace"
                .to_owned()
        }
        (EAGAIN, _) if call.starts_with("fork") => {
            "no more processes can be started (EAGAIN): see `ulimit -u` and pids.max of the cgroup"
                .to_owned()
        }
        (errno, _) => format!("{call}: {}", cause::in_words(&io::Error::from_raw_os_error(errno))),
    }
}

/// The same as an error. The kind is lost only if the call is refused, or if a capability is missing.
pub(crate) fn explained(call: &str, errno: i32) -> io::Error {
    match errno {
        EPERM | ENOSYS | EAGAIN => io::Error::other(why(call, errno)),
        errno => io::Error::from_raw_os_error(errno),
    }
}

/// The first Linux version that has `call`, for calls newer than the kernel of most systems.
fn since(call: &str) -> Option<&'static str> {
    match call {
        "openat2" => Some("5.6"),
        "pidfd_open" => Some("5.3"),
        "open_tree" | "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "fspick" => Some("5.2"),
        "pidfd_send_signal" => Some("5.1"),
        _ => None,
    }
}

/// The capability that `call` needs.
fn capability(call: &str) -> Option<&'static str> {
    match call {
        "open_tree" | "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "fspick" | "mount"
        | "umount2" | "setns" => Some("CAP_SYS_ADMIN"),
        "chroot" => Some("CAP_SYS_CHROOT"),
        "open" => Some("CAP_SYS_PTRACE"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_is_named_with_its_usual_cause() {
        for (call, errno, expected) in [
            ("pidfd_open", EPERM, ["pidfd_open", "EPERM", "seccomp", "Linux 5.3"]),
            ("pidfd_open", ENOSYS, ["pidfd_open", "ENOSYS", "seccomp", "Linux 5.3"]),
            ("openat2", EPERM, ["openat2", "EPERM", "seccomp", "Linux 5.6"]),
            ("open_tree", EPERM, ["open_tree", "CAP_SYS_ADMIN", "seccomp", "Linux 5.2"]),
            ("open_tree", EINVAL, ["open_tree", "EINVAL", "unbindable", "namespace"]),
            ("open", EACCES, ["open", "EACCES", "CAP_SYS_PTRACE", "missing"]),
            ("fork", EAGAIN, ["processes", "EAGAIN", "ulimit", "pids.max"]),
            ("setns", 12, ["setns", "memory", "has", "run out"]),
        ] {
            let text = why(call, errno);
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.to_lowercase().contains("not permitted"), "{text}");
        }
    }

    #[test]
    fn only_a_refusal_has_other_words() {
        assert!(explained("openat2", EPERM).to_string().contains("seccomp"));
        assert_eq!(explained("openat2", 2).kind(), io::ErrorKind::NotFound);
    }
}
