//! Whether a process is a command of this program that works on a container. `host/container/lock_holder.rs` ends
//! it then.

/// What the kernel adds to the link of a program whose file has been replaced (proc_pid_exe(5)).
const REPLACED: &str = " (deleted)";

/// Whether the process with `command_line` (NUL after every argument) and the program `theirs` is a
/// command on container `id` of the program `own`, which an update may have replaced meanwhile.
pub(crate) fn works_on(command_line: &[u8], theirs: &str, own: &str, id: &str) -> bool {
    let name = |path: &str| {
        let path = path.strip_suffix(REPLACED).unwrap_or(path);
        path.rsplit('/').next().unwrap_or_default().to_owned()
    };
    name(theirs) == name(own) && names(command_line, id)
}

/// Whether `id` is one of the arguments in `command_line`.
pub(crate) fn names(command_line: &[u8], id: &str) -> bool {
    let mut arguments = command_line.split(|&byte| byte == 0).skip(1);
    arguments.any(|argument| argument == id.as_bytes())
}

/// Whether `command_line` is that of a delete, or might be.
pub(crate) fn is_delete(command_line: &[u8]) -> bool {
    command_line.split(|&byte| byte == 0).skip(1).any(|argument| argument == b"delete")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_is_told_from_other_commands() {
        assert!(is_delete(b"rt\0--root\0/r\0delete\0--force\0x\0"));
        assert!(!is_delete(b"rt\0create\0x\0"));
        assert!(!is_delete(b"delete\0start\0x\0"));
    }

    #[test]
    fn only_this_program_on_this_container_counts() {
        let line = b"/usr/bin/rt\0--root\0/r\0create\0x\0";
        assert!(works_on(line, "/usr/bin/rt", "/usr/bin/rt", "x"));
        assert!(works_on(line, "/usr/bin/rt (deleted)", "/opt/rt", "x"));
        assert!(!works_on(line, "/usr/bin/rt", "/usr/bin/rt", "y"));
        assert!(!works_on(line, "/usr/bin/flock", "/usr/bin/rt", "x"));
        assert!(!works_on(b"x\0", "/usr/bin/rt", "/usr/bin/rt", "x"), "the name is no argument");
        assert!(!works_on(b"", "", "/usr/bin/rt", "x"));
    }
}
