//! An emulated machine: boots the kernel, and reads from the console what has become of each part.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::architecture::Architecture;
use crate::parts::{MARK, Part, VERDICT};
use crate::root;

/// The time that a machine has from power-on to power-off, besides that of its parts.
const BOOT: Duration = Duration::from_secs(240);
/// The last lines of a part or of a console that are shown.
const SHOWN: usize = 120;

/// What a machine has printed, and how it ended.
pub(crate) struct Console {
    architecture: &'static Architecture,
    text: String,
    end: End,
    took: Duration,
}

enum End {
    Exited(ExitStatus),
    /// It did not end within this time and was killed.
    Hung(Duration),
}

/// Boots a machine, and waits until it has powered off or the time is up.
pub(crate) fn boot(architecture: &'static Architecture) -> Result<Console, String> {
    let image = root::make(architecture)?;
    let console =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("arm/{}.log", architecture.name));
    let show = |error| format!("{}: {error}", console.display());
    let output = File::create(&console).map_err(show)?;
    let mut qemu = Command::new(architecture.qemu);
    qemu.args(["-M", "virt", "-accel", "tcg", "-smp", "2", "-m", "1024"])
        .args(architecture.options);
    qemu.args([
        "-display",
        "none",
        "-monitor",
        "none",
        "-serial",
        "stdio",
        "-nic",
        "none",
        "-no-reboot",
    ]);
    qemu.arg("-kernel").arg(image.kernel).arg("-initrd").arg(image.initramfs);
    // A panic ends the machine at once (-no-reboot); the kernel hands `PARTS` on to process 1.
    let parts: Vec<&str> = Part::wanted().iter().map(|part| part.short_name()).collect();
    qemu.args([
        "-append",
        &format!("console=ttyAMA0 loglevel=3 panic=-1 PARTS={}", parts.join(",")),
    ]);
    qemu.stdin(Stdio::null()).stdout(output.try_clone().map_err(show)?).stderr(output);
    let limit = BOOT + Part::wanted().into_iter().map(Part::limit).sum::<Duration>();
    let started = Instant::now();
    let mut child = qemu.spawn().map_err(|error| format!("{}: {error}", architecture.qemu))?;
    let end = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break End::Exited(status),
            None if started.elapsed() > limit => {
                child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                break End::Hung(limit);
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let mut bytes = Vec::new();
    File::open(&console).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(show)?;
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    Ok(Console { architecture, text, end, took: started.elapsed() })
}

impl Console {
    /// What has become of a part.
    pub(crate) fn part(&self, part: Part) -> Result<(), String> {
        let begin = format!("{MARK}{} begins\n", part.name());
        let Some((_, behind)) = self.text.split_once(&begin) else {
            return Err("the machine did not come to it".to_owned());
        };
        let end = format!("{MARK}{}: ", part.name());
        let Some((output, behind)) = behind.split_once(&end) else {
            return Err(format!("it did not end\n{}", last_lines(behind)));
        };
        match behind.lines().next() {
            Some(result) if result.starts_with("passed ") => Ok(()),
            result => Err(format!("{}\n{}", result.unwrap_or("no result"), last_lines(output))),
        }
    }

    /// Whether the machine came to its end.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let expected = format!("{VERDICT} {}", Part::wanted().len());
        let ended = match &self.end {
            End::Hung(limit) => format!("the machine did not power off within {limit:?}"),
            End::Exited(status) if !status.success() => format!("QEMU: {status}"),
            End::Exited(_) if !self.text.lines().any(|line| line == expected) => {
                "the machine ended before all parts had".to_owned()
            }
            End::Exited(_) => return Ok(()),
        };
        Err(format!("{ended}\n{}", last_lines(&self.text)))
    }

    /// Prints what a reader should know, whatever has passed.
    pub(crate) fn print_notes(&self) {
        let mut notes = String::new();
        let marked = self.text.lines().filter_map(|line| line.strip_prefix(MARK));
        for line in marked.filter(|line| !line.ends_with(" begins")) {
            writeln!(notes, "{}: {line}", self.architecture.name).unwrap();
        }
        println!(
            "{notes}{}: from start to power-off {:.1} s",
            self.architecture.name,
            self.took.as_secs_f32()
        );
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
