//! Whether a process is in the mount namespace of process 1, whose mounts are the host's. Hooks of an
//! image run there (docs/engines.md, "Mount namespaces"); `host/container/mount_namespace.rs` reads what is compared here.

/// How the mount namespace of a process relates to that of process 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It is the same one.
    Same,
    /// It is in another one: mounts there do not reach the host.
    Other,
    /// It cannot be determined, for this reason.
    Unknown(String),
}

/// Compares two mount tables (`/proc/PID/mountinfo`, proc_pid_mountinfo(5)), for a process that may not
/// read the link of process 1's namespace. A mount has a number that no other mount of the system has, so
/// the first mount of one table stands in the other only if both are of one namespace.
pub(crate) fn compare(own: &str, of_process_1: &str) -> Relation {
    let id = |line: &str| line.split(' ').next().and_then(|id| id.parse::<u64>().ok());
    let Some(first) = own.lines().next().and_then(id) else {
        return Relation::Unknown("its mount table is empty".to_owned());
    };
    let mut theirs = of_process_1.lines().filter_map(id).peekable();
    if theirs.peek().is_none() {
        return Relation::Unknown("the mount table of process 1 is empty".to_owned());
    }
    if theirs.any(|id| id == first) { Relation::Same } else { Relation::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "22 27 0:21 / /proc rw - proc proc rw\n27 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
    const ENGINE: &str =
        "90 91 0:21 / /proc rw - proc proc rw\n91 50 8:1 / / rw - ext4 /dev/sda1 rw\n";

    #[test]
    fn a_shared_mount_number_is_the_same_namespace() {
        assert_eq!(compare(HOST, HOST), Relation::Same);
        assert_eq!(compare("27 1 8:1 / / rw - ext4 x rw", HOST), Relation::Same);
        assert_eq!(compare(ENGINE, HOST), Relation::Other);
        assert_eq!(compare("2 1 8:1 / / rw - ext4 x rw", HOST), Relation::Other);
    }

    #[test]
    fn a_table_that_cannot_be_read_tells_nothing() {
        for (own, theirs) in [("", HOST), (HOST, ""), ("garbage", HOST), (HOST, "x y\n\n")] {
            assert!(matches!(compare(own, theirs), Relation::Unknown(_)), "{own:?} {theirs:?}");
        }
    }
}
