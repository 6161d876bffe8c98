//! Describes the failure of a hook: how it ended, the last lines it printed, and why a file
//! could not be run at all.

use crate::model::text::cut;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How many of a hook's last lines an error quotes, as far as they fit into one value.
const QUOTED_LINES: usize = 5;

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    Status(i32),
    Signal(i32),
    /// It was killed with everything it had started.
    OverLimit(Duration),
}

impl Exit {
    /// Whether the hook did its work.
    pub(crate) fn is_success(self) -> bool {
        self == Self::Status(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "exited with status {status}"),
            Self::Signal(signal) => write!(formatter, "was killed by signal {signal}"),
            Self::OverLimit(limit) => write!(
                formatter,
                "timed out: it was still running after {} s, the limit, and was killed with everything that it had started",
                limit.as_secs_f64()
            ),
        }
    }
}

/// The last lines of `output` as one line of printable text, or nothing if it has none.
pub(crate) fn quote(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .map(printable)
        .filter(|line| !line.is_empty())
        .take(QUOTED_LINES)
        .collect();
    lines.reverse();
    let joined = lines.join(" | ");
    (!joined.is_empty()).then(|| cut::ending(&joined, cut::VALUE_MAX).into_owned())
}

/// The last line of `output` that is not blank, as printable text.
pub(crate) fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().rev().map(printable).find(|line| !line.is_empty())
}

/// Without what would move a terminal's cursor or forge a line.
fn printable(line: &str) -> String {
    let safe: String =
        line.chars().map(|found| if found.is_control() { ' ' } else { found }).collect();
    safe.trim().to_owned()
}

/// The facts about a file that the kernel refused to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unrunnable<'a> {
    /// Its first bytes.
    pub(crate) head: &'a [u8],
    /// The error of execve(2).
    pub(crate) errno: i32,
    /// This machine, as `uname -m` says.
    pub(crate) machine: &'a str,
}

/// Errors of execve(2) that need more words than the kernel has.
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;
const ELIBBAD: i32 = 80;

impl fmt::Display for Unrunnable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interpreter = interpreter(self.head);
        match (self.errno, &interpreter, elf_machine(self.head)) {
            (ENOENT | ENOTDIR, Some(path), _) if path.ends_with('\r') => write!(
                formatter,
                "its first line ends in CR LF, so the interpreter {:?} is not found; save the file \
                 with LF line ends",
                path
            ),
            (ENOENT | ENOTDIR, Some(path), _) => write!(
                formatter,
                "its interpreter {path} is not on this host (hooks run on the host, not in the image)"
            ),
            (ENOENT | ENOTDIR, None, Some(_)) => formatter.write_str(
                "its dynamic loader is not on this host (hooks run on the host, not in the image; \
                 link it statically)",
            ),
            (ENOEXEC | ELIBBAD, _, Some(found)) if found != self.machine => {
                write!(
                    formatter,
                    "it is a program for {found}, but this machine is {}",
                    self.machine
                )
            }
            (ENOEXEC, None, None) => formatter.write_str(
                "it is neither a program of this machine nor a script that starts with #!",
            ),
            (EACCES, Some(path), _) => write!(
                formatter,
                "it or its interpreter {path} may not be executed (missing x permission, or a noexec mount)"
            ),
            (EACCES, None, _) => formatter
                .write_str("it may not be executed (missing x permission, or a noexec mount)"),
            (errno, _, _) => {
                let error = std::io::Error::from_raw_os_error(errno);
                formatter.write_str(&crate::model::text::cause::in_words(&error))
            }
        }
    }
}

/// The interpreter that a script's first line names.
pub(crate) fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    let text = text.trim_start_matches([' ', '\t']);
    // A carriage return belongs to the name, as the kernel sees it.
    let path = text.split([' ', '\t']).next().unwrap_or_default();
    (!path.is_empty()).then(|| path.to_owned())
}

/// The machine an ELF program is for, in the words of `uname -m` (elf(5), `e_machine`).
pub(crate) fn elf_machine(head: &[u8]) -> Option<&'static str> {
    let head = head.strip_prefix(b"\x7fELF")?;
    let class = *head.first()?;
    let order = *head.get(1)?;
    // `e_machine` stands at offset 18 of the file.
    let pair = [*head.get(14)?, *head.get(15)?];
    let machine = if order == 2 { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
    Some(match (machine, class) {
        (3, _) => "i686",
        (8, _) => "mips",
        (20, _) => "ppc",
        (21, _) => "ppc64le",
        (22, _) => "s390x",
        (40, _) => "armv7l",
        (62, _) => "x86_64",
        (183, _) => "aarch64",
        (243, 1) => "riscv32",
        (243, _) => "riscv64",
        _ => "another machine",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(head: &[u8], errno: i32) -> String {
        Unrunnable { head, errno, machine: "x86_64" }.to_string()
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(18, 0);
        head.extend(machine.to_le_bytes());
        head
    }

    #[test]
    fn each_way_a_file_cannot_run_is_told_apart() {
        for (head, errno, expected) in [
            (b"#!/opt/x -e\n".to_vec(), ENOENT, "its interpreter /opt/x is not on this host"),
            (b"#! /bin/sh\r\n".to_vec(), ENOENT, "CR LF"),
            (elf(62), ENOENT, "dynamic loader"),
            (elf(183), ENOEXEC, "it is a program for aarch64, but this machine is x86_64"),
            (elf(40), ENOEXEC, "armv7l"),
            (b"echo hi".to_vec(), ENOEXEC, "neither a program"),
            (Vec::new(), ENOEXEC, "neither a program"),
            (elf(62), EACCES, "noexec"),
            (b"#!/etc/passwd".to_vec(), EACCES, "/etc/passwd"),
            (elf(62), 12, "memory"),
        ] {
            let text = why(&head, errno);
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("No such file"), "{text}");
        }
    }

    #[test]
    fn the_last_lines_are_quoted_on_one_line_without_control_characters() {
        assert_eq!(quote(b""), None);
        assert_eq!(quote(b"\n \n"), None);
        assert_eq!(quote(b"mount: bad\n").unwrap(), "mount: bad");
        assert_eq!(quote(b"1\n2\n3\n4\n5\n6\n").unwrap(), "2 | 3 | 4 | 5 | 6");
        assert_eq!(quote(b"a\x1b[31mb\r\n\xff").unwrap(), "a [31mb | \u{fffd}");
        assert_eq!(last_line(b"a\nwhy\x07\n \n").unwrap(), "why");
        assert_eq!(last_line(b"\n"), None);
        let long = quote("é".repeat(5000).as_bytes()).unwrap();
        assert!(long.len() <= cut::VALUE_MAX && long.starts_with("…é") && long.ends_with('é'));
    }

    #[test]
    fn the_way_it_ended_is_said() {
        assert_eq!(Exit::Status(3).to_string(), "exited with status 3");
        assert_eq!(Exit::Signal(9).to_string(), "was killed by signal 9");
        assert!(Exit::OverLimit(Duration::from_secs(60)).to_string().contains("60 s, the limit"));
        assert!(Exit::Status(0).is_success() && !Exit::Signal(9).is_success());
    }
}
