//! How a hook is known that has outlived its runtime and its guard. `host/container/outlived.rs` ends it.

/// The variable that only the hooks of an image have.
const VARIABLE: &[u8] = b"EXTENSION_ROOTFS=";

/// A process, as `/proc/PID/stat` has it (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relative {
    pub(crate) parent: i32,
    pub(crate) session: i32,
}

/// Reads a `/proc/PID/stat`; `None` if the process has ended, or this is none.
pub(crate) fn parse_stat(stat: &[u8]) -> Option<Relative> {
    let text = String::from_utf8_lossy(stat);
    // The name of the program may hold anything, so the fields are counted from its last parenthesis.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Relative { parent, session })
}

/// Whether a process with this environment runs a hook of the image whose rootfs the hooks find at one of
/// these paths.
pub(crate) fn is_of(environment: &[u8], rootfs: &[&str]) -> bool {
    environment
        .split(|&byte| byte == 0)
        .filter_map(|variable| variable.strip_prefix(VARIABLE))
        .any(|path| rootfs.iter().any(|rootfs| rootfs.as_bytes() == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_and_session_are_read_behind_any_name() {
        let stat = b"7 (a) b) S 3 7 5 0 -1 4194560";
        assert_eq!(parse_stat(stat), Some(Relative { parent: 3, session: 5 }));
        for stat in [&b"7 (a) Z 3 7 5 0"[..], b"7 (a) S 3", b"", b"7 (a) S x 7 5"] {
            assert_eq!(parse_stat(stat), None);
        }
    }

    #[test]
    fn a_hook_is_known_by_its_rootfs() {
        let environment = b"PATH=/bin\0EXTENSION_ROOTFS=/r\0X=EXTENSION_ROOTFS=/s\0";
        assert!(is_of(environment, &["/q", "/r"]));
        assert!(!is_of(environment, &["/s", "/", "/r/a"]));
        assert!(!is_of(b"", &["/r"]));
    }
}
