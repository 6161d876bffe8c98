//! A device whose power is cut while a command changes the records of kernel overrides: the command, what may be on the
//! disk, and the boots that follow.

use crate::disk::{self, Leaf};
use crate::finished::Finished;
use crate::processes;
use crate::support::host::BLOCK;
use crate::support::override_device::Device;
use crate::support::recorded_engine::Engine;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

pub(crate) const VOLUME: &str = "ext_service_0123456789ab_boot";
/// Its content, below the partitions.
pub(crate) const CONTENT: &str = "data/docker/volumes/ext_service_0123456789ab_boot/_data";
/// How long the value in the first line of each block is. The next line, the arm, then lies in two sectors.
const FILLER: usize = 427;
const ARM: &str = "kernel_override_abi";
const TRIAL: &str = "kernel_override_trial";
const KEYS: [&str; 4] = [
    ARM,
    "kernel_override_abi_committed_A",
    "kernel_override_abi_committed_B",
    "kernel_override_abi_rejected",
];
/// The record of a write of the block, on the state partition.
pub(crate) const REDO: &str = "override-block-redo";
/// The event of the history that is older than the command, and newer than all others.
const NEWEST: &str = "the newest event before the command";
/// How `override status` shows a value that is no ABI.
const MALFORMED: &str = "malformed";
/// A boot that changes nothing comes before this one, or the device never rests.
const BOOTS: usize = 6;

/// A command that is cut.
pub(crate) struct Case {
    /// Ends before its socket is removed with the device.
    pub(crate) engine: Option<Engine>,
    pub(crate) device: Device,
    pub(crate) words: Vec<String>,
    /// The kernel that runs.
    pub(crate) running: Option<String>,
    /// What the OS does before the next boot.
    pub(crate) before_boot: fn(&Device),
    /// A published kernel that a second call of the command may leave: nothing names it, and an extension claims it.
    pub(crate) harmless: Option<String>,
}

/// The content of partitions.
pub(crate) type Tree = BTreeMap<String, Leaf>;

/// The kernels that the block names, and the boots of a trial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) arm: Option<String>,
    committed: [Option<String>; 2],
    relay: Option<String>,
    trial: u64,
}

/// What remains of a command and what follows it, without times and the order of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    block: BTreeSet<String>,
    published: BTreeSet<String>,
    rejected: BTreeSet<String>,
    /// Whether a write of the block is unfinished.
    redo: bool,
    volume: Tree,
    running: Option<String>,
}

/// The content of a kernel, and its ABI.
pub(crate) fn kernel(name: &str) -> (Vec<u8>, String) {
    // Of several sectors.
    let bytes = format!("kernel {name}\n").repeat(200).into_bytes();
    let abi = hash(&bytes);
    (bytes, abi)
}

fn hash(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// A line of another program.
fn filler() -> String {
    format!("x={}\n", "x".repeat(FILLER))
}

/// So many events of a history, of which the last one is [`NEWEST`].
pub(crate) fn history(events: usize) -> String {
    let event = |number: usize| {
        let detail = if number == events { NEWEST } else { "an older event, which may be removed" };
        let event = json!({ "time": "2026-01-01T00:00:00Z", "by": "validate", "event": "committed",
            "abi": hash(b""), "slot": "A", "detail": detail });
        format!("{event}\n")
    };
    (1..=events).map(event).collect()
}

/// Stops a write of the block that puts one kernel in place of another at the end of the first sector, and records it as
/// the manager does.
pub(crate) fn tear_block(device: &Device, old: &str, new: &str) {
    let path = device.path("mnt/boot/bootenv");
    let before = std::fs::read_to_string(&path).unwrap();
    let after = before.replacen(old, new, 1);
    let (before, after) = (before.as_bytes(), after.as_bytes());
    let checksum: [u8; 32] =
        Sha256::new().chain_update(before).chain_update(after).finalize().into();
    let record = [b"override-block-redo 1\n", &checksum[..], before, after].concat();
    std::fs::write(device.path("mnt/state").join(REDO), record).unwrap();
    std::fs::write(path, [&after[..512], &before[512..]].concat()).unwrap();
}

/// A device with these lines in its block, on which these kernels are published, each with the file that its link leads
/// to; deployed extensions claim them.
pub(crate) fn device(lines: &str, published: &[&str]) -> Device {
    let device = Device::new(&format!("{}{lines}", filler()));
    device.0.write("mnt/state/override-history.jsonl", &history(2));
    for name in published {
        let (bytes, abi) = kernel(name);
        let path = device.path(&format!("mnt/data/docker/volumes/{name}/_data/vmlinuz"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        let target = format!("../docker/volumes/{name}/_data/vmlinuz");
        device.link(&target, &format!("mnt/data/boot-by-abi/{abi}"));
        device.claim(name, &abi);
    }
    device
}

impl Case {
    pub(crate) fn new(device: Device, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let (running, harmless, engine) = (None, None, None);
        Self { engine, device, words, running, before_boot: |_| {}, harmless }
    }

    /// The partitions are below it.
    pub(crate) fn top(&self) -> PathBuf {
        self.device.path("mnt")
    }

    pub(crate) fn command(&self) -> Command {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.device.boot(self.running.as_deref());
        self.device.0.command(&words)
    }

    /// Puts `tree` on the partitions.
    pub(crate) fn restore(&self, tree: &Tree) {
        disk::write(tree, &self.top());
    }

    /// Checks a disk as the initramfs and the manager see it, before anything is written.
    pub(crate) fn check_at_rest(&self, valid: &BTreeSet<Named>, end: &Tree) -> Result<(), String> {
        self.bootable(&named(&self.block()).arm)?;
        let status = self.run(&["override", "status", "--format", "json"]).success()?;
        let seen = named_in_status(&status);
        if !valid.contains(&seen) {
            return Err(format!("a mixture is believed: {seen:?}"));
        }
        for abi in [&seen.arm, &seen.committed[0], &seen.committed[1]].into_iter().flatten() {
            if abi != MALFORMED && !self.is_published(abi)? {
                return Err(format!("the block names {abi}, which is not published"));
            }
        }
        let history = self.run(&["history", "--format", "json"]).success()?;
        if !history.out.contains(NEWEST) {
            return Err(format!("the history has lost an older event: {history}"));
        }
        let now = volume(&disk::Disk::load(&self.top()).tree());
        let is_marked = now.contains_key(".fabricating");
        match now.is_empty() || is_marked || now == volume(end) {
            true => Ok(()),
            false => Err(format!("the volume counts as filled, with {:?}", now.keys())),
        }
    }

    /// Calls the command again.
    pub(crate) fn again(&self) -> Result<Remains, String> {
        let finished = processes::run(&mut self.command());
        // What was done before the cut is not found again by a person's command.
        let is_done = ["nothing is recorded about", "is not on the list of rejected"];
        if !finished.succeeded() && !is_done.iter().any(|text| finished.err.contains(text)) {
            return Err(format!("again: {finished}"));
        }
        let mut remains = self.remains();
        remains.published.retain(|abi| Some(abi) != self.harmless.as_ref());
        Ok(remains)
    }

    /// Boots, with `validate` in each boot, until nothing changes any more.
    pub(crate) fn boots(&self) -> Result<Remains, String> {
        (self.before_boot)(&self.device);
        let mut last = None;
        for _ in 0..BOOTS {
            self.boot()?;
            let words = ["validate", "--settle", "0", "--retry", "0", "--attempts", "1"];
            self.run(&words).success()?;
            // Only another call of the command fills a volume.
            let mut remains = Remains { volume: Tree::new(), ..self.remains() };
            let block = named(&self.block());
            let is_named = |abi: &String| {
                [&block.arm, &block.committed[0], &block.committed[1]].contains(&&Some(abi.clone()))
            };
            if let Some(abi) = remains.rejected.iter().find(|abi| is_named(abi)) {
                return Err(format!("{abi} is rejected, and the block names it"));
            }
            // A link that nothing names boots nothing. A later sweep removes it with its extension.
            let claimed = self.claimed();
            remains.published.retain(|abi| is_named(abi) || !claimed.contains(abi));
            if last.as_ref() == Some(&remains) {
                return Ok(remains);
            }
            last = Some(remains);
        }
        Err(format!("every boot changes something: {last:?}"))
    }

    /// The next boot, as the initramfs decides it. Slot A runs, or as `before_boot` has set it.
    fn boot(&self) -> Result<(), String> {
        let block = named(&self.block());
        let arm = self.bootable(&block.arm)?.filter(|_| block.trial < 3);
        if let Some(arm) = &arm {
            let mounts = std::fs::read_to_string(self.device.path("proc/mounts")).unwrap();
            let slot = usize::from(mounts.contains("/dev/sda3 /mnt/sysroot/active"));
            if block.committed[slot].as_ref() != Some(arm) {
                let lines = self.device.block();
                let others = lines.lines().filter(|line| !line.starts_with(TRIAL));
                let lines: String = others.map(|line| format!("{line}\n")).collect();
                self.device.set_block(&format!("{lines}{TRIAL}={}\n", block.trial + 1));
            }
        }
        self.device.boot(arm.as_deref());
        Ok(())
    }

    /// The kernel, if the initramfs would boot it; an error if that is another one than its name says.
    fn bootable(&self, abi: &Option<String>) -> Result<Option<String>, String> {
        let Some(abi) = abi.as_ref().filter(|abi| *abi != MALFORMED) else { return Ok(None) };
        let boots = self.is_published(abi)? && self.claimed().contains(abi);
        Ok(boots.then(|| abi.clone()))
    }

    fn is_published(&self, abi: &str) -> Result<bool, String> {
        match std::fs::read(self.device.path("mnt/data/boot-by-abi").join(abi)) {
            Ok(bytes) if hash(&bytes) == *abi => Ok(true),
            Ok(bytes) => Err(format!("{abi} would boot {} bytes with another hash", bytes.len())),
            Err(_) => Ok(false),
        }
    }

    fn claimed(&self) -> BTreeSet<String> {
        let containers = self.device.path("mnt/data/docker/containers");
        let records = std::fs::read_dir(containers).unwrap().map(|entry| {
            let text = std::fs::read(entry.unwrap().path().join("config.v2.json")).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let abi = &record["Config"]["Labels"]["io.balena.image.kernel-abi-id"];
            abi.as_str().unwrap().to_owned()
        });
        records.collect()
    }

    /// The names in the directory of the links, which may be missing.
    fn published(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.device.path("mnt/data/boot-by-abi"));
        let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    fn block(&self) -> Vec<u8> {
        std::fs::read(self.device.path("mnt/boot/bootenv")).unwrap()
    }

    fn run(&self, words: &[&str]) -> Finished {
        processes::run(&mut self.device.0.command(words))
    }

    pub(crate) fn remains(&self) -> Remains {
        let rejected = self.device.state("override-rejected").unwrap_or_default();
        let cmdline = std::fs::read_to_string(self.device.path("proc/cmdline")).unwrap();
        Remains {
            block: self.device.block().replace(&filler(), "").lines().map(str::to_owned).collect(),
            published: self.published(),
            rejected: rejected.lines().filter(|line| is_abi(line)).map(str::to_owned).collect(),
            redo: self.device.path("mnt/state").join(REDO).exists(),
            volume: volume(&disk::Disk::load(&self.top()).tree()),
            running: cmdline.split_once("balena_kernel_abi=").map(|(_, abi)| abi.trim().to_owned()),
        }
    }
}

/// The content of the volume that a command may fill.
fn volume(tree: &Tree) -> Tree {
    let below = |path: &str| Some(path.strip_prefix(CONTENT)?.strip_prefix('/')?.to_owned());
    tree.iter().filter_map(|(path, leaf)| Some((below(path)?, leaf.clone()))).collect()
}

fn is_abi(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(is_digit)
}

/// What a block names, read as the initramfs reads it.
pub(crate) fn named(block: &[u8]) -> Named {
    let text = String::from_utf8_lossy(block);
    let lines = text.strip_prefix(BLOCK).unwrap_or_default();
    let value = |key: &str| {
        let value = lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.filter(|value| !value.is_empty())
    };
    let [arm, a, b, relay] = KEYS.map(|key| {
        value(key).map(|abi| match is_abi(abi) {
            true => abi.to_owned(),
            false => MALFORMED.to_owned(),
        })
    });
    let trial = value(TRIAL).and_then(|count| count.parse().ok()).unwrap_or_default();
    Named { arm, committed: [a, b], relay, trial }
}

fn named_in_status(status: &Finished) -> Named {
    let document: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Named {
        arm: text(&document["armed"]),
        committed: ["a", "b"].map(|slot| text(&document["committed"][slot])),
        relay: text(&document["toForget"]),
        trial: document["trialBoots"].as_u64().unwrap(),
    }
}
