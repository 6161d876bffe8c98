//! One boot of the emulated machine.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::emulated::qemu::{self, MachineRun};
use crate::initramfs::Shared;

/// From power-on to power-off. 15 s on an idle host.
const LIMIT: Duration = Duration::from_secs(600);
/// Room for the writes of one boot.
const LOG_LEN: u64 = 256 << 20;

/// How the machine is switched off, and what is recorded.
#[derive(Clone, Copy)]
pub(crate) enum Boot<'a> {
    /// It powers off.
    ToTheEnd,
    /// Somebody switches it off when it has printed this text.
    SwitchedOffAt(&'a str),
    /// It powers off, and each write to the disk is recorded in this file.
    Recorded(&'a Path),
}

/// Boots the machine once. The OS takes the steps.
pub(crate) fn boot(
    shared: &Shared,
    disk: &Path,
    steps: &str,
    boot: Boot<'_>,
    console: &Path,
) -> Result<MachineRun, String> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Not KVM, which is not everywhere, and which cannot run every kernel where it is nested.
    qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"]);
    // A reset ends the program, too: a scenario counts its boots.
    qemu.arg("-no-reboot");
    qemu.arg("-kernel").arg(&shared.vmlinux).arg("-initrd").arg(&shared.initramfs);
    // `earlyprintk` is for what a kernel prints before it is unpacked.
    qemu.args([
        "-append",
        &format!(
            "console=ttyS0 earlyprintk=ttyS0 quiet panic=1 nokaslr balena_stage2 steps={steps}"
        ),
    ]);
    let node = |driver: &str, name: &str, file: &Path| {
        format!("driver={driver},node-name={name},filename={}", file.display())
    };
    qemu.args(["-blockdev", &node("file", "disk", disk)]);
    let mut top = "driver=raw,node-name=top,file=disk";
    if let Boot::Recorded(log) = boot {
        File::create(log)
            .and_then(|file| file.set_len(LOG_LEN))
            .map_err(|error| format!("{}: {error}", log.display()))?;
        qemu.args(["-blockdev", &node("file", "log", log)]);
        qemu.args(["-blockdev", "driver=raw,node-name=plain,file=disk"]);
        top = "driver=blklogwrites,node-name=top,file=plain,log=log,log-sector-size=512";
    }
    qemu.args(["-blockdev", top, "-device", "virtio-blk-pci,drive=top"]);
    let switch_off = match boot {
        Boot::SwitchedOffAt(text) => Some(text),
        Boot::ToTheEnd | Boot::Recorded(_) => None,
    };
    qemu::run(qemu, console, LIMIT, switch_off)
}
