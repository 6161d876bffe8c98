//! An emulated machine: boots the kernel, and reads from the console what has become of each part.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::architecture::Architecture;
use crate::emulated::qemu::{self, MachineEnd, MachineRun, last_lines};
use crate::parts::{MARK, Part, VERDICT};
use crate::root;

/// The time that a machine has from power-on to power-off, besides that of its parts.
const BOOT: Duration = Duration::from_secs(240);

/// A machine that has run.
pub(crate) struct Console {
    architecture: &'static Architecture,
    run: MachineRun,
}

/// Boots a machine, and waits until it has powered off or the time is up.
pub(crate) fn boot(architecture: &'static Architecture) -> Result<Console, String> {
    let image = root::make(architecture)?;
    let console =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("arm/{}.log", architecture.name));
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
    // A panic ends the machine at once (-no-reboot); the kernel hands `PARTS` on to process 1. QEMU translates a program
    // again for every address at which it is loaded, so programs get the same ones each time (norandmaps).
    let parts: Vec<&str> = Part::wanted().iter().map(|part| part.short_name()).collect();
    qemu.args([
        "-append",
        &format!("console=ttyAMA0 loglevel=3 norandmaps panic=-1 PARTS={}", parts.join(",")),
    ]);
    let limit = BOOT + Part::wanted().into_iter().map(Part::limit).sum::<Duration>();
    Ok(Console { architecture, run: qemu::run(qemu, &console, limit, None)? })
}

impl Console {
    /// What has become of a part.
    pub(crate) fn part(&self, part: Part) -> Result<(), String> {
        let begin = format!("{MARK}{} begins\n", part.name());
        let Some((_, behind)) = self.run.text.split_once(&begin) else {
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
        let text = &self.run.text;
        let ended = match &self.run.end {
            MachineEnd::Exited(status) if status.success() => {
                if text.lines().any(|line| line == expected) {
                    return Ok(());
                }
                "the machine ended before all parts had".to_owned()
            }
            end => end.to_string(),
        };
        Err(format!("{ended}\n{}", last_lines(text)))
    }

    /// Prints what a reader should know, whatever has passed.
    pub(crate) fn print_notes(&self) {
        let mut notes = String::new();
        let marked = self.run.text.lines().filter_map(|line| line.strip_prefix(MARK));
        for line in marked.filter(|line| !line.ends_with(" begins")) {
            writeln!(notes, "{}: {line}", self.architecture.name).unwrap();
        }
        println!(
            "{notes}{}: from start to power-off {:.1} s",
            self.architecture.name,
            self.run.took.as_secs_f32()
        );
    }
}
