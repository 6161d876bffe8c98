//! The proxy's identity: the process that a recorded pid stands for. The kernel reuses pids, so the start time is
//! recorded too, and the command line names the container. Also the steps that prepare the proxy.

use serde::{Deserialize, Serialize};

/// The proxy's name in `ps`, whatever the name of the file is.
pub(crate) const PROGRAM: &str = "balena-extension-runtime";

/// Identifies a process, also after its pid has been reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
    pub(crate) start_time: u64,
}

/// The fields of `/proc/PID/stat` that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) start_time: u64,
    pub(crate) parent: i32,
    pub(crate) session: i32,
    pub(crate) life: Life,
}

/// Whether a process still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// It is exiting: it runs no program any more, but the kernel does not report its end yet.
    Exiting,
    /// The process has exited; it is a zombie until its parent has read the exit status.
    Ended,
}

/// The steps by which the proxy becomes ready, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Inspection,
    Signals,
    Directory,
    Waiting,
    Capabilities,
    SystemCalls,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::Inspection,
        Self::Signals,
        Self::Directory,
        Self::Waiting,
        Self::Capabilities,
        Self::SystemCalls,
    ];

    /// The system call that the step needs, and the step in words, to follow "could not".
    pub(crate) fn call_and_words(self) -> (&'static str, &'static str) {
        match self {
            Self::Inspection => ("prctl", "protect itself from inspection by others"),
            Self::Signals => ("rt_sigaction", "reset its signals"),
            Self::Directory => ("chdir", "make / its working directory"),
            Self::Waiting => ("signalfd4", "wait for signals with rt_sigtimedwait or signalfd4"),
            Self::Capabilities => ("capset", "give up its capabilities"),
            Self::SystemCalls => ("seccomp", "give up the system calls that it does not need"),
        }
    }
}

/// A step that the kernel refused. The proxy sends it in place of "ready".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusedStep {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

impl RefusedStep {
    /// The length in bytes; the first byte is the number of the step.
    pub(crate) const LEN: usize = 5;

    /// Encodes it for the socket.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let number = Step::ALL.iter().zip(0_u8..).find(|(step, _)| **step == self.step);
        let number = number.map(|(_, number)| number).unwrap_or_default();
        let [a, b, c, d] = self.errno.to_le_bytes();
        [number, a, b, c, d]
    }

    /// Decodes it.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (number, errno) = bytes.split_first()?;
        let step = *Step::ALL.get(usize::from(*number))?;
        Some(Self { step, errno: i32::from_le_bytes(errno.try_into().ok()?) })
    }
}

/// The kernel's flag of a process that is exiting, in field 9.
const PF_EXITING: u32 = 4;

/// Parses `/proc/PID/stat`. The second field is the command's name in parentheses and may contain anything,
/// parentheses included, so fields are counted from the last `)`.
pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    // `rest` starts with field 3.
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let flags: u32 = fields.nth(2)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    let life = match state {
        "Z" | "X" | "x" => Life::Ended,
        _ if flags & PF_EXITING != 0 => Life::Exiting,
        _ => Life::Alive,
    };
    Some(Stat { start_time, parent, session, life })
}

/// The command line of the proxy of container `id`, as `/proc/PID/cmdline` shows it.
pub(crate) fn command_line(id: &str) -> Vec<u8> {
    [PROGRAM, "proxy", "--id", id, ""].join("\0").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (a b) c) S 1 76 75 0 -1 4194560 10 0 0 0 0 0 0 0 20 0 1 0 5005 1 2";

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let stat = parse_stat(STAT.as_bytes()).unwrap();
        let expected = Stat { start_time: 5005, parent: 1, session: 75, life: Life::Alive };
        assert_eq!(stat, expected);
    }

    #[test]
    fn a_zombie_has_ended_and_before_that_a_process_is_exiting() {
        let exiting = STAT.replace("4194560", "4194564");
        assert_eq!(parse_stat(exiting.as_bytes()).unwrap().life, Life::Exiting);
        let zombie = exiting.replace(") S", ") Z");
        assert_eq!(parse_stat(zombie.as_bytes()).unwrap().life, Life::Ended);
    }

    #[test]
    fn a_malformed_stat_is_rejected() {
        for text in
            ["", "77 (x", "77 (x) S 1 2", "77 (x) S a b c d e f g h i j k l m n o p q r s t"]
        {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_read_as_it_was_sent() {
        for step in Step::ALL {
            let refusal = RefusedStep { step, errno: 1 };
            assert_eq!(RefusedStep::parse(&refusal.to_bytes()), Some(refusal));
        }
        for bytes in [&b""[..], b"r", b"\x00\x01\0\0", b"\x06\x01\0\0\0", b"\0\x01\0\0\0\0"] {
            assert_eq!(RefusedStep::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_command_line_names_the_container() {
        assert_eq!(command_line("x"), b"balena-extension-runtime\0proxy\0--id\0x\0");
    }
}
