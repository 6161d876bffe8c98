//! Checks that this process is root of the host. Root of a user namespace (rootless Podman and Docker) has the
//! same user id, but its hooks cannot change the host.

use crate::host::os::process;
use rustix::io::Errno;
use std::io;

/// The inode of the initial user namespace (PROC_USER_INIT_INO of linux/proc_ns.h).
const INITIAL: u64 = 0xEFFF_FFFD;
const USER_NAMESPACE: &str = "/proc/self/ns/user";
/// Exists on every kernel.
const MOUNT_NAMESPACE: &str = "/proc/self/ns/mnt";

/// Why this process must not change the host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unprivileged {
    #[error("must run as root, not as user {uid}: hooks change the host")]
    NotRoot { uid: u32 },
    #[error("must run as root of the host, not of a user namespace: hooks change the host")]
    UserNamespace,
    #[error(
        "cannot determine whether this is root of the host or of a user namespace: cannot stat \
         {USER_NAMESPACE}"
    )]
    Unknown { source: io::Error },
}

/// Checks that this process is root of the initial user namespace.
pub(crate) fn check() -> Result<(), Unprivileged> {
    match process::effective_user() {
        0 => {}
        uid => return Err(Unprivileged::NotRoot { uid }),
    }
    match rustix::fs::stat(USER_NAMESPACE) {
        Ok(found) if found.st_ino == INITIAL => Ok(()),
        Ok(_) => Err(Unprivileged::UserNamespace),
        // A kernel without user namespaces lists all others.
        Err(Errno::NOENT) if rustix::fs::stat(MOUNT_NAMESPACE).is_ok() => Ok(()),
        Err(error) => Err(Unprivileged::Unknown { source: error.into() }),
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Unprivileged {
        NotRoot { uid }, UserNamespace, Unknown { source },
    }
}
