//! One run of a machine, from power-on to power-off, and what its serial console has printed.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The last lines of a console that are shown.
const SHOWN: usize = 120;

/// What a machine has printed, and how it ended.
pub(crate) struct MachineRun {
    pub(crate) text: String,
    pub(crate) end: MachineEnd,
    pub(crate) took: Duration,
}

pub(crate) enum MachineEnd {
    /// It powered off, or reset.
    Exited(ExitStatus),
    /// It printed the text at which the caller switches it off.
    SwitchedOff,
    /// It did not end within this time and was killed.
    Hung(Duration),
}

impl fmt::Display for MachineEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "QEMU: {status}"),
            Self::SwitchedOff => write!(formatter, "the machine was switched off"),
            Self::Hung(limit) => {
                write!(formatter, "the machine did not power off within {limit:?}")
            }
        }
    }
}

/// Runs `qemu`, whose serial console is its standard output, until it ends, or until it prints the text `switch_off`.
/// What it prints remains in the file `console`.
pub(crate) fn run(
    mut qemu: Command,
    console: &Path,
    limit: Duration,
    switch_off: Option<&str>,
) -> Result<MachineRun, String> {
    let show = |error| format!("{}: {error}", console.display());
    let output = File::create(console).map_err(show)?;
    qemu.stdin(Stdio::null()).stdout(output.try_clone().map_err(show)?).stderr(output);
    let printed = || -> Result<String, String> {
        let mut bytes = Vec::new();
        File::open(console).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(show)?;
        Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
    };
    let started = Instant::now();
    let mut child = qemu.spawn().map_err(|error| format!("{:?}: {error}", qemu.get_program()))?;
    let end = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break MachineEnd::Exited(status);
        }
        let is_due = switch_off.is_some_and(|text| printed().is_ok_and(|seen| seen.contains(text)));
        let is_late = started.elapsed() > limit;
        if is_due || is_late {
            child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
            break if is_due { MachineEnd::SwitchedOff } else { MachineEnd::Hung(limit) };
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    Ok(MachineRun { text: printed()?, end, took: started.elapsed() })
}

/// The end of a text.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
