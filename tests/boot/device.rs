//! A device: its disk, and its boots one after the other.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;

use crate::bundle::Bundle;
use crate::emulated::packages::{remove, run};
use crate::emulated::qemu::{MachineEnd, last_lines};
use crate::initramfs::{self, Shared};
use crate::kernel::{self, Override};
use crate::machine::{self, Boot};

/// The id of the container, and that of its image.
pub(crate) const CONTAINER: &str =
    "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0";
const IMAGE: &str = "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a";
/// What begins a line of the guest that counts.
const MARK: &str = "@@@ ";

const MIB: u64 = 1 << 20;

/// A partition of the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partition {
    pub(crate) label: &'static str,
    /// In MiB.
    pub(crate) start: u64,
    pub(crate) len: u64,
}

pub(crate) const BOOT: Partition = Partition { label: "resin-boot", start: 1, len: 16 };
const ROOT_A: Partition = Partition { label: "resin-rootA", start: 17, len: 64 };
const ROOT_B: Partition = Partition { label: "resin-rootB", start: 81, len: 64 };
pub(crate) const STATE: Partition = Partition { label: "resin-state", start: 145, len: 16 };
pub(crate) const DATA: Partition = Partition { label: "resin-data", start: 161, len: 128 };
const PARTITIONS: [Partition; 5] = [BOOT, ROOT_A, ROOT_B, STATE, DATA];

impl Partition {
    pub(crate) fn bytes(self) -> std::ops::Range<u64> {
        self.start * MIB..(self.start + self.len) * MIB
    }
}

/// A scenario.
pub(crate) type Scenario = (Override, fn(&Device) -> Result<(), String>);

/// Runs a scenario in a directory of its own. If it succeeds, only the consoles remain there.
pub(crate) fn run_scenario(name: &str, (kind, scenario): Scenario) -> Result<(), String> {
    static SHARED: OnceLock<Result<Arc<Shared>, String>> = OnceLock::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot");
    let shared = SHARED.get_or_init(|| initramfs::make(&cache).map(Arc::new)).clone()?;
    let device = Device::new(&cache.join(name), shared, kind)?;
    scenario(&device).map_err(|why| {
        format!("{why}\nThe disk and the consoles are in {}", device.folder.display())
    })?;
    let (boots, seconds) = (device.boots.get(), device.took.get().as_secs_f32());
    println!("{name}: {boots} boots in {seconds:.1} s");
    for entry in fs::read_dir(&device.folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            remove(&path)?;
        } else if path.extension().is_none_or(|extension| extension != "log") {
            fs::remove_file(path).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

pub(crate) struct Device {
    folder: PathBuf,
    shared: Arc<Shared>,
    /// The kernel that the extension brings, and its name.
    pub(crate) image: Vec<u8>,
    pub(crate) abi: String,
    boots: Cell<usize>,
    took: Cell<Duration>,
    /// The events of the history that earlier boots have reported.
    known_events: Cell<usize>,
}

impl Device {
    /// A device with one container, whose image brings a kernel, and which was not created yet.
    fn new(folder: &Path, shared: Arc<Shared>, kind: Override) -> Result<Self, String> {
        remove(folder)?;
        let image = kernel::image(&shared.vmlinuz, kind);
        let device = Self {
            folder: folder.to_owned(),
            abi: kernel::abi(&image),
            image,
            shared,
            boots: Cell::new(0),
            took: Cell::new(Duration::ZERO),
            known_events: Cell::new(0),
        };
        let content = folder.join("content");
        device.write_content(&content).map_err(|error| error.to_string())?;
        device.make_disk(&content)?;
        remove(&content)?;
        Ok(device)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.path("disk.img")
    }

    /// The files of the ext4 partitions, each in a directory of the partition's label.
    fn write_content(&self, content: &Path) -> std::io::Result<()> {
        let write = |path: PathBuf, bytes: &[u8]| {
            fs::create_dir_all(path.parent().unwrap())?;
            fs::write(path, bytes)
        };
        for (root, slot) in [(ROOT_A, "A"), (ROOT_B, "B")] {
            let root = content.join(root.label);
            write(root.join("etc/slot"), slot.as_bytes())?;
            write(root.join("boot/vmlinuz"), &self.shared.vmlinuz)?;
            fs::copy(&self.shared.initramfs, root.join("boot/initramfs"))?;
        }
        fs::create_dir_all(content.join(STATE.label))?;
        let data = content.join(DATA.label);
        write(data.join("remove_me_to_reset"), b"")?;
        // As dockerd writes it: without blanks.
        let record = json!({
            "ID": CONTAINER, "Image": format!("sha256:{IMAGE}"), "Name": "/kernel",
            "State": { "Dead": false, "RemovalInProgress": false },
            "Config": { "Labels": {
                "io.balena.image.class": "overlay", "io.balena.image.kernel-abi-id": self.abi,
            }},
        });
        let record = record.to_string();
        let path = data.join("docker/containers").join(CONTAINER).join("config.v2.json");
        write(path, record.as_bytes())?;
        let bundle = Bundle::new(&data.join("bundles").join(CONTAINER));
        // An engine gives no labels to a runtime.
        bundle.configure(|config| config["annotations"] = json!({}));
        write(bundle.path("rootfs/boot/vmlinuz"), &self.image)?;
        write(bundle.path("rootfs/lib/modules/6.1.0/Module.symvers"), b"")
    }

    /// The disk, made of files: no mount and no loop device are needed.
    fn make_disk(&self, content: &Path) -> Result<(), String> {
        let show = |error: std::io::Error| format!("{}: {error}", self.disk().display());
        let disk = File::create(self.disk()).map_err(show)?;
        // Room for the second copy of the partition table.
        let end = DATA.bytes().end + MIB;
        disk.set_len(end).map_err(show)?;
        let mut table = "label: gpt\n".to_owned();
        for partition in PARTITIONS {
            let Partition { label, start, len } = partition;
            table += &format!("start={start}MiB, size={len}MiB, name={label}\n");
        }
        let script = self.path("table");
        fs::write(&script, table).map_err(show)?;
        let script = File::open(script).map_err(show)?;
        run(Command::new("sfdisk").arg("--quiet").arg(self.disk()).stdin(script))?;
        for partition in PARTITIONS {
            let image = self.path(partition.label);
            let file = File::create(&image).map_err(show)?;
            file.set_len(partition.len * MIB).map_err(show)?;
            if partition.label == BOOT.label {
                run(Command::new("mkfs.vfat").args(["-n", partition.label]).arg(&image))?;
                let mut block = b"# GRUB Environment Block\nresin_root_part=A\n".to_vec();
                block.resize(1024, b'#');
                let path = self.path("bootenv");
                fs::write(&path, block).map_err(show)?;
                run(Command::new("mcopy").arg("-i").arg(&image).arg(path).arg("::bootenv"))?;
            } else {
                let mut mke2fs = Command::new("mke2fs");
                mke2fs.args(["-q", "-t", "ext4", "-L", partition.label, "-d"]);
                run(mke2fs.arg(content.join(partition.label)).arg(&image))?;
            }
            let from = format!("if={}", image.display());
            let to = format!("of={}", self.disk().display());
            let at = format!("seek={}", partition.start);
            run(Command::new("dd").args([&from, &to, "bs=1M", &at, "conv=notrunc,sparse"]))?;
            fs::remove_file(&image).map_err(show)?;
        }
        Ok(())
    }

    /// Boots it, has the OS take these steps, and compares what is reported with `expected`.
    pub(crate) fn boots(&self, steps: &str, expected: &str) -> Result<(), String> {
        self.boots_as(steps, Boot::ToTheEnd, expected)
    }

    pub(crate) fn boots_as(
        &self,
        steps: &str,
        boot: Boot<'_>,
        expected: &str,
    ) -> Result<(), String> {
        let number = self.boots.get() + 1;
        self.boots.set(number);
        let console = self.path(&format!("boot-{number}.log"));
        let run = machine::boot(&self.shared, &self.disk(), steps, boot, &console)?;
        self.took.set(self.took.get() + run.took);
        let fail = |why: &str| {
            Err(format!("boot {number} ({steps}): {why}\nIts console:\n{}", last_lines(&run.text)))
        };
        match (&run.end, boot) {
            (MachineEnd::SwitchedOff, Boot::SwitchedOffAt(_)) => {}
            (MachineEnd::Exited(status), Boot::ToTheEnd | Boot::Recorded(_))
                if status.success() => {}
            (end, _) => return fail(&end.to_string()),
        }
        let reported = self.reported(&run.text);
        let expected: Vec<&str> =
            expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        if reported != expected {
            let (reported, expected) = (reported.join("\n"), expected.join("\n"));
            return fail(&format!("expected:\n{expected}\n\nreported:\n{reported}\n"));
        }
        Ok(())
    }

    /// The next boot reports its whole history.
    pub(crate) fn forget_history(&self) {
        self.known_events.set(0);
    }

    /// The lines of a console that count, with `X` for the kernel of the extension, without times, and without the events
    /// that an earlier boot has reported.
    fn reported(&self, console: &str) -> Vec<String> {
        let plain = |line: &str| {
            let line = line.replace(&self.abi, "X").replace(&self.abi[..12], "X");
            // 2026-01-31T12:00:00Z
            let is_time =
                |word: &&str| word.starts_with("20") && word.trim_end_matches(':').ends_with('Z');
            line.split_whitespace().filter(|word| !is_time(word)).collect::<Vec<_>>().join(" ")
        };
        let mut events = 0;
        let lines = console.lines().filter_map(|line| line.trim().strip_prefix(MARK));
        let lines = lines.filter(|line| {
            let is_event = line.starts_with("history: 20");
            events += usize::from(is_event);
            let is_known = is_event && events <= self.known_events.get();
            !(is_known || line.starts_with("history: TIME "))
        });
        let reported = lines.map(plain).collect();
        self.known_events.set(self.known_events.get().max(events));
        reported
    }
}
