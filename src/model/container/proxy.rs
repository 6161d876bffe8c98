//! The proxy's identity: which process a recorded pid stands for. A pid alone is recycled, so the
//! start time goes with it, and the command line names the container.

use serde::{Deserialize, Serialize};

/// The name under which the proxy shows in `ps`, whatever the file is called.
pub(crate) const PROGRAM: &str = "balena-extension-runtime";

/// A process, told apart from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
    pub(crate) start_time: u64,
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) start_time: u64,
    pub(crate) parent: i32,
    pub(crate) life: Life,
}

/// Whether a process still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// A zombie: it has ended and waits for its parent to read the exit status.
    Ended,
}

/// What the proxy does before it is ready, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Inspection,
    Signals,
    Folder,
    Waiting,
    Capabilities,
    SystemCalls,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::Inspection,
        Self::Signals,
        Self::Folder,
        Self::Waiting,
        Self::Capabilities,
        Self::SystemCalls,
    ];

    /// The words for it, after "could not".
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Inspection => "close itself to other processes",
            Self::Signals => "reset its signals",
            Self::Folder => "make / its working directory",
            Self::Waiting => "wait for signals by rt_sigtimedwait or signalfd4",
            Self::Capabilities => "give up its capabilities",
            Self::SystemCalls => "give up all system calls that it does not need",
        }
    }
}

impl Step {
    /// The system call that it rests on.
    pub(crate) fn call(self) -> &'static str {
        match self {
            Self::Inspection => "prctl",
            Self::Signals => "rt_sigaction",
            Self::Folder => "chdir",
            Self::Waiting => "signalfd4",
            Self::Capabilities => "capset",
            Self::SystemCalls => "seccomp",
        }
    }
}

/// A step that the kernel refused: what a proxy says instead of being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

impl Refusal {
    /// The bytes of one, the first of which is the step's number.
    pub(crate) const LEN: usize = 5;

    /// As a proxy sends it.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let number = Step::ALL.iter().zip(0_u8..).find(|(step, _)| **step == self.step);
        let number = number.map(|(_, number)| number).unwrap_or_default();
        let [a, b, c, d] = self.errno.to_le_bytes();
        [number, a, b, c, d]
    }

    /// Reads what a proxy has sent.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (number, errno) = bytes.split_first()?;
        let step = *Step::ALL.get(usize::from(*number))?;
        Some(Self { step, errno: i32::from_le_bytes(errno.try_into().ok()?) })
    }
}

/// Reads a `/proc/PID/stat`. The second field is the command's name in parentheses and may hold
/// anything, parentheses included, so fields are counted from the last `)`.
pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    // `rest` starts with field 3.
    let mut fields = rest.split_ascii_whitespace();
    let life = match fields.next()? {
        "Z" | "X" | "x" => Life::Ended,
        _ => Life::Alive,
    };
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { start_time, parent, life })
}

/// The command line of the proxy of container `id`, as `/proc/PID/cmdline` shows it.
pub(crate) fn command_line(id: &str) -> Vec<u8> {
    [PROGRAM, "proxy", "--id", id, ""].join("\0").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (a b) c) S 1 77 77 0 -1 4194560 10 0 0 0 0 0 0 0 20 0 1 0 5005 1 2";

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let stat = parse_stat(STAT.as_bytes()).unwrap();
        assert_eq!(stat, Stat { start_time: 5005, parent: 1, life: Life::Alive });
    }

    #[test]
    fn a_zombie_has_ended() {
        let stat = parse_stat(STAT.replace(") S", ") Z").as_bytes()).unwrap();
        assert_eq!(stat.life, Life::Ended);
    }

    #[test]
    fn what_is_no_stat_is_none() {
        for text in
            ["", "77 (x", "77 (x) S 1 2", "77 (x) S a b c d e f g h i j k l m n o p q r s t"]
        {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_read_as_it_was_sent() {
        for step in Step::ALL {
            let refusal = Refusal { step, errno: 1 };
            assert_eq!(Refusal::parse(&refusal.to_bytes()), Some(refusal));
        }
        for bytes in [&b""[..], b"r", b"\x00\x01\0\0", b"\x06\x01\0\0\0", b"\0\x01\0\0\0\0"] {
            assert_eq!(Refusal::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_command_line_names_the_container() {
        assert_eq!(command_line("x"), b"balena-extension-runtime\0proxy\0--id\0x\0");
    }
}
