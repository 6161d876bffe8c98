//! Signal names and numbers (signal(7), Linux on x86 and ARM).

/// The names of signals 1 to 31, without `SIG`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The first and last real-time signal that programs may use.
const REAL_TIME: (i32, i32) = (34, 64);
const LAST: i32 = 64;

/// The signal of `kill ID` when none is named.
pub(crate) const DEFAULT: Signal = Signal(15);
pub(crate) const KILL: Signal = Signal(9);
/// SIGUSR1: the extension was started; the proxy exits with status 0.
pub(crate) const STARTED: Signal = Signal(10);
/// SIGUSR2: the extension was refused; the proxy exits with status 1.
pub(crate) const REFUSED: Signal = Signal(12);

/// A signal number, 0 to 64; 0 only asks whether the process is there (kill(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal(i32);

/// A text that names no signal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal {text:?}: give a name such as TERM or SIGTERM, or a number from 0 to 64")]
pub(crate) struct Unknown {
    text: String,
}

impl Signal {
    /// Reads `KILL`, `SIGKILL`, `sigkill`, `9`, `RTMIN+2`, `SIGRTMAX-1`.
    pub(crate) fn parse(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown { text: text.to_owned() };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse::<i32>().map_err(|_| unknown())?;
            return if number <= LAST { Ok(Self(number)) } else { Err(unknown()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let plain = NAMES.iter().zip(1..).find(|(known, _)| **known == name);
        let alias = ALIASES.iter().find(|(known, _)| *known == name);
        let number = plain
            .map(|(_, number)| number)
            .or(alias.map(|(_, number)| *number))
            .or_else(|| real_time(name));
        number.map(Self).ok_or_else(unknown)
    }

    /// The number.
    pub(crate) fn number(self) -> i32 {
        self.0
    }
}

/// The signals that a process ignores, as its `/proc/PID/status` says (proc_pid_status(5)): signal 1 is the
/// lowest bit.
pub(crate) fn ignored(status: &[u8]) -> Option<u64> {
    let mut lines = status.split(|&byte| byte == b'\n');
    let digits = lines.find_map(|line| line.strip_prefix(b"SigIgn:\t"))?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn real_time(name: &str) -> Option<i32> {
    let (base, rest, sign) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (REAL_TIME.0, rest, '+')
    } else {
        (REAL_TIME.1, name.strip_prefix("RTMAX")?, '-')
    };
    if rest.is_empty() {
        return Some(base);
    }
    let offset = rest.strip_prefix(sign)?.parse::<u8>().ok()?;
    let number = if sign == '+' { base + i32::from(offset) } else { base - i32::from(offset) };
    (REAL_TIME.0..=REAL_TIME.1).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignored_signals_are_found_in_a_status() {
        let status =
            b"Name:\tx\nSigBlk:\t0000000000000200\nSigIgn:\t0000000800001001\nSigCgt:\t0\n";
        assert_eq!(ignored(status), Some(1 << 35 | 1 << 12 | 1));
        for status in
            ["", "SigIgn:", "SigIgn:\tx", "SigIgn:\t00000000000000001\u{e9}", "Name:\tSigIgn:\t1\n"]
        {
            assert_eq!(ignored(status.as_bytes()), None, "{status}");
        }
    }

    #[test]
    fn names_and_numbers_agree() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("kill", 9),
            ("9", 9),
            ("09", 9),
            ("TERM", 15),
            ("usr1", 10),
            ("SIGSYS", 31),
            ("CLD", 17),
            ("0", 0),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("rtmax", 64),
        ] {
            assert_eq!(Signal::parse(text).unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_text() {
        for text in ["", "65", "-9", "SIG", "NOPE", "9x", "RTMIN+40", "RTMAX+1", "99999999999"] {
            let error = Signal::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct Unknown { text };
}
