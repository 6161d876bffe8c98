//! Power cuts while an extension is deployed: QEMU records each write of that boot, and the disk is made as it is after
//! a cut at any moment, with any of the unsynced writes lost. On each, the records are read as the next boot reads them,
//! and the next `validate` must come to a state that a boot without a cut could have come to. Two of them are booted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bundle::executable;
use crate::device::{BOOT, DATA, Device, Partition, STATE};
use crate::emulated::packages::{remove, run};
use crate::machine::Boot;
use crate::scenarios::{ARMED, CUT_AFTER_THE_BLOCK, CUT_AFTER_THE_LINK};
use crate::write_log::{self, Write};
use crate::{capture, programs};

/// The partitions that a deploy writes to.
const WRITTEN: [Partition; 3] = [BOOT, STATE, DATA];

/// What a cut has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Nothing,
    /// The link to the kernel, which is not armed.
    Published,
    Armed,
}

pub(crate) fn scenario(device: &Device) -> Result<(), String> {
    let disk = Disk::of(device, "before")?;
    let log = device.path("writes");
    device.boots_as("deploy", Boot::Recorded(&log), ARMED)?;
    let groups = write_log::read(&log)?;
    let mut seen = BTreeMap::new();
    for (number, group) in groups.iter().enumerate() {
        for done in cuts(group) {
            let cut = disk.copied(&device.path("cut"))?;
            cut.write_all(&done)?;
            let left = cut.judge(device).map_err(|why| {
                let done: Vec<_> = done.iter().map(ToString::to_string).collect();
                format!("a cut in group {number} of {}, after {done:?}: {why}", groups.len())
            })?;
            let count = seen.entry(left).or_insert(0);
            *count += 1;
            // The first one of each is booted.
            if *count == 1 && left != Left::Nothing {
                disk.copied(&device.path(&format!("{left:?}")))?.write_all(&done)?;
            }
        }
        disk.write_all(group)?;
    }
    let counts: Vec<_> = seen.iter().map(|(left, count)| format!("{left:?}: {count}")).collect();
    println!(
        "power cuts by what they have left, in {} groups of writes: {}",
        groups.len(),
        counts.join(", ")
    );
    if seen.len() != 3 {
        return Err("some step of arming was not cut".to_owned());
    }
    for (left, steps, expected) in [
        (Left::Published, "validate,deploy", CUT_AFTER_THE_LINK),
        (Left::Armed, "healthy,validate", CUT_AFTER_THE_BLOCK),
    ] {
        Disk(device.path(&format!("{left:?}"))).put_into(device)?;
        device.forget_history();
        device.boots(steps, expected)?;
    }
    Ok(())
}

/// What of a group is done when the power is cut: some writes, or some writes and a part of one to the boot partition.
fn cuts(group: &[Write]) -> Vec<Vec<Write>> {
    let mut cuts: Vec<Vec<Write>> = write_log::survivors(group.len())
        .into_iter()
        .map(|survivors| survivors.into_iter().map(|number| group[number].clone()).collect())
        .collect();
    for (number, write) in group.iter().enumerate() {
        if BOOT.bytes().contains(&write.at) {
            let before = |part| group[..number].iter().cloned().chain([part]).collect();
            cuts.extend(write.torn().into_iter().map(before));
        }
    }
    cuts
}

/// The partitions, each in a file.
struct Disk(PathBuf);

impl Disk {
    /// Those of the device as they are now.
    fn of(device: &Device, name: &str) -> Result<Self, String> {
        let disk = Self(device.path(name));
        fs::create_dir_all(&disk.0).map_err(|error| error.to_string())?;
        for partition in WRITTEN {
            let (from, to) = (device.disk(), disk.partition(partition));
            let part = [format!("skip={}", partition.start), format!("count={}", partition.len)];
            dd(&from, &to, &[&part[0], &part[1], "conv=sparse"])?;
        }
        Ok(disk)
    }

    /// Writes them to the disk of the device.
    fn put_into(&self, device: &Device) -> Result<(), String> {
        for partition in WRITTEN {
            let seek = format!("seek={}", partition.start);
            dd(&self.partition(partition), &device.disk(), &[&seek, "conv=notrunc"])?;
        }
        Ok(())
    }

    fn partition(&self, partition: Partition) -> PathBuf {
        self.0.join(partition.label)
    }

    fn copied(&self, to: &Path) -> Result<Self, String> {
        remove(to)?;
        run(Command::new("cp").args(["--recursive", "--sparse=always"]).arg(&self.0).arg(to))?;
        Ok(Self(to.to_owned()))
    }

    fn write(&self, write: &Write) -> Result<(), String> {
        let partition = WRITTEN.into_iter().find(|one| one.bytes().contains(&write.at));
        let partition = partition.ok_or_else(|| format!("a write at {}", write.at))?;
        let path = self.partition(partition);
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&write.bytes, write.at - partition.bytes().start))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    fn write_all<'a>(&self, writes: impl IntoIterator<Item = &'a Write>) -> Result<(), String> {
        writes.into_iter().try_for_each(|write| self.write(write))
    }

    /// Reads the records, and has `validate` decide on a host that is made of them. The initramfs boots what is armed,
    /// and every kernel is healthy.
    fn judge(&self, device: &Device) -> Result<Left, String> {
        let host = self.host()?;
        let abi = &device.abi;
        let old = "resin_root_part=A\n".to_owned();
        let armed = format!("{old}kernel_override_abi={abi}\n");
        let is_armed = match host.block()? {
            block if block == armed => true,
            block if block == old => false,
            other => return Err(format!("the block is neither old nor new: {other:?}")),
        };
        let link = host.0.join("mnt/data/boot-by-abi").join(abi);
        let is_published = link.symlink_metadata().is_ok();
        if is_published {
            let image =
                fs::read(&link).map_err(|error| format!("the published kernel: {error}"))?;
            if image != device.image {
                return Err("the published kernel is not that of the image".to_owned());
            }
        }
        let has_prestate = host.0.join("mnt/state/extension-health-variables").exists();
        let left = match (is_armed, is_published) {
            (true, true) if has_prestate => Left::Armed,
            (true, _) => return Err("armed without the link and the prestate".to_owned()),
            (false, true) => Left::Published,
            (false, false) => Left::Nothing,
        };
        let running =
            if is_armed { format!("quiet balena_kernel_abi={abi}\n") } else { String::new() };
        host.put("proc/cmdline", &running)?;
        let validate = ["validate", "--settle", "0", "--retry", "0", "--attempts", "1"];
        for call in [&validate[..], &["history"], &["override", "status"]] {
            let mut command = Command::new(programs::manager());
            capture::run(command.args(call).arg("--host-root").arg(&host.0)).success()?;
        }
        let expected =
            if is_armed { format!("{armed}kernel_override_abi_committed_A={abi}\n") } else { old };
        let block = host.block()?;
        if block != expected {
            return Err(format!("validate has left the block {block:?}, not {expected:?}"));
        }
        for name in ["override-rejected", "override-block-redo"] {
            if host.0.join("mnt/state").join(name).exists() {
                return Err(format!("validate has left the file {name}"));
            }
        }
        Ok(left)
    }

    /// A directory with what the next boot finds on the partitions, once the kernel has replayed their journals.
    fn host(&self) -> Result<HostDirectory, String> {
        let host = HostDirectory(self.0.join("host"));
        for directory in
            ["mnt/boot", "mnt/state", "mnt/data", "dev/disk/by-label", "usr/bin", "run"]
        {
            fs::create_dir_all(host.0.join(directory)).map_err(|error| error.to_string())?;
        }
        let mut mcopy = Command::new("mcopy");
        run(mcopy
            .arg("-i")
            .arg(self.partition(BOOT))
            .arg("::bootenv")
            .arg(host.0.join("mnt/boot")))?;
        for (partition, directories) in [(STATE, &["/"][..]), (DATA, &["/docker", "/boot-by-abi"])]
        {
            let image = self.partition(partition);
            let check = capture::run(Command::new("e2fsck").arg("-p").arg(&image));
            // 1: it has replayed the journal.
            if check.code() > 1 {
                return Err(format!("{check}"));
            }
            let to = host.0.join("mnt").join(if partition.label == STATE.label {
                "state"
            } else {
                "data"
            });
            for directory in directories {
                let request = format!("rdump {directory} {}", to.display());
                run(Command::new("debugfs").args(["-R", &request]).arg(&image))?;
            }
        }
        host.put("mnt/data/remove_me_to_reset", "")?;
        host.put("dev/vda2", "")?;
        symlink("../../vda2", host.0.join("dev/disk/by-label/resin-rootA"))
            .map_err(|error| error.to_string())?;
        let mounts = ["boot vfat", "state ext4", "data ext4"]
            .map(|mount| format!("/dev/x /mnt/{mount} rw 0 0\n"))
            .concat();
        host.put("proc/mounts", &format!("{mounts}/dev/vda2 /mnt/sysroot/active ext4 ro 0 0\n"))?;
        executable(&host.0.join("usr/bin/rollback-tests"), b"#!/bin/sh\nexit 0\n");
        Ok(host)
    }
}

/// What the manager takes for `/`.
struct HostDirectory(PathBuf);

impl HostDirectory {
    fn put(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.0.join(name);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The lines of the block.
    fn block(&self) -> Result<String, String> {
        let block = fs::read_to_string(self.0.join("mnt/boot/bootenv"));
        let block = block.map_err(|error| format!("the block: {error}"))?;
        let lines =
            block.strip_prefix("# GRUB Environment Block\n").filter(|_| block.len() == 1024);
        let lines = lines.ok_or_else(|| format!("the block is damaged: {block:?}"))?;
        Ok(lines.trim_end_matches('#').to_owned())
    }
}

fn dd(from: &Path, to: &Path, more: &[&str]) -> Result<(), String> {
    let files = [format!("if={}", from.display()), format!("of={}", to.display())];
    run(Command::new("dd").args(files).arg("bs=1M").args(more)).map(drop)
}
