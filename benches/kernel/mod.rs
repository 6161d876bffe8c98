//! The speed of a kernel's way to the device, beside what everybody has: `kernel activate`, which hashes the kernel in the
//! image and in the volume, and `sha256sum` of both; `kernel fabricate`, which fills the volume and makes each file durable, and `cp` with `sync`. The
//! image is an overlay, as the rootfs of a container is, and everything is on the disk of the checkout.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::goal::{self, Goal};
use crate::{Result, prepared, rounds};

const MIB: u64 = 1 << 20;
/// A large kernel.
const KERNEL: u64 = 64 * MIB;
/// A file of holes, with a MiB of content in each 16.
const SPARSE: u64 = 256 * MIB;
const DEVICE_TREES: usize = 50;
const VOLUME: &str = "ext_bench_0123456789ab_boot";
/// What the manager may need besides: its start, the checks, and the records.
const HASH_AT_MOST: f64 = 1.25;
const FILL_AT_MOST: f64 = 1.25;

struct Bench {
    manager: PathBuf,
    dir: PathBuf,
    version: String,
    abi: String,
}

/// Runs the benchmark, and prints its table.
pub(crate) fn run() -> Result<()> {
    let dir = prepared("BENCH_DIR")?;
    let manager = dir.join("balena-extension-manager");
    let said = Command::new(&manager).arg("--version").output()?.stdout;
    let said = String::from_utf8(said)?;
    let version = said.lines().next().and_then(|line| line.rsplit(' ').next());
    let version = version.ok_or("the manager has no version")?.to_owned();
    let mut bench = Bench { manager, dir: dir.join("device"), version, abi: String::new() };
    bench.make_device()?;
    bench.serve()?;
    let rounds = rounds(9)?;
    let (mut fills, mut copies, mut activations, mut sums) = (vec![], vec![], vec![], vec![]);
    let mut copies_at_once = Vec::new();
    let (mut filled, mut copied) = (0, 0);
    // In turns, because other work on the machine varies.
    for _ in 0..rounds {
        bench.empty_volume()?;
        copies_at_once.push(bench.copy("sync --file-system \"$1\"")?);
        bench.empty_volume()?;
        // As the manager does it.
        copies.push(bench.copy("find \"$1\" -exec sync {} +")?);
        copied = blocks(&bench.volume())?;
        bench.empty_volume()?;
        fills.push(bench.manage("fabricate")?);
        filled = blocks(&bench.volume())?;
        activations.push(bench.manage("activate")?);
        sums.push(bench.sum()?);
    }
    let content = KERNEL + SPARSE / 16 + DEVICE_TREES as u64 * 32 * 1024;
    println!(
        "a kernel of {} MiB, a file of {} MiB with {} MiB of content, {DEVICE_TREES} files of 32 KiB; medians of {rounds} runs",
        KERNEL / MIB,
        SPARSE / MIB,
        SPARSE / MIB / 16
    );
    println!("{:<44}{:>10}{:>10}{:>14}", "", "ms", "MB/s", "disk, MiB");
    let row = |name: &str, times: &[Duration], bytes: u64, disk: Option<u64>| {
        let time = median(times).as_secs_f64();
        let disk = disk.map_or_else(|| "-".to_owned(), |blocks| (blocks * 512 / MIB).to_string());
        println!("{name:<44}{:>10.1}{:>10.0}{disk:>14}", time * 1e3, bytes as f64 / time / 1e6);
        time
    };
    let activation = row("activate (hashes both files)", &activations, 2 * KERNEL, None);
    let sum = row("sha256sum of both files", &sums, 2 * KERNEL, None);
    let fill = row("fabricate (fills the volume)", &fills, content, Some(filled));
    let copy = row("cp --sparse=auto, sync of each file", &copies, content, Some(copied));
    row("cp --sparse=auto, sync of the filesystem", &copies_at_once, content, Some(copied));
    goal::print(vec![
        Goal::new(
            format!("hashing: at most {HASH_AT_MOST} x the time of sha256sum"),
            format!("{:.2} x", activation / sum),
            activation / sum <= HASH_AT_MOST,
        ),
        Goal::new(
            format!("filling: at most {FILL_AT_MOST} x the time of cp and a sync of each file"),
            format!("{:.2} x", fill / copy),
            fill / copy <= FILL_AT_MOST,
        ),
        Goal::new(
            "holes are kept: no more than 1 MiB more on disk than cp takes".to_owned(),
            format!("{} KiB and {} KiB", filled / 2, copied / 2),
            filled * 512 <= copied * 512 + MIB,
        ),
    ]);
    Ok(())
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().ok_or("a path without a directory")?)?;
        Ok(fs::write(path, text)?)
    }

    fn volume(&self) -> PathBuf {
        self.path(&format!("mnt/data/docker/volumes/{VOLUME}/_data"))
    }

    fn image(&self) -> PathBuf {
        self.path("rootfs/boot")
    }

    /// Makes the image and the files of the device that the manager reads.
    fn make_device(&mut self) -> Result<()> {
        for directory in ["mnt/state", "run", "rootfs", "layer/boot", "mnt/data/boot-by-abi"] {
            fs::create_dir_all(self.path(directory))?;
        }
        let state = "/dev/sda4 /mnt/state ext4 rw 0 0\n/dev/sda1 /mnt/boot vfat rw 0 0\n";
        let data = "/dev/sda5 /mnt/data ext4 rw 0 0\n";
        let padding = "#".repeat(999);
        for (name, text) in [
            ("proc/mounts", format!("{state}{data}")),
            ("proc/cmdline", "quiet\n".to_owned()),
            ("mnt/boot/bootenv", format!("# GRUB Environment Block\n{padding}")),
            ("layer/usr/lib/modules/6.1.83/Module.symvers", String::new()),
        ] {
            self.write(name, &text)?;
        }
        let mut random = File::open("/dev/urandom")?;
        let mut bytes = |len: u64| -> Result<Vec<u8>> {
            let mut bytes = vec![0; usize::try_from(len)?];
            random.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        fs::write(self.path("layer/boot/vmlinuz"), bytes(KERNEL)?)?;
        let sparse = File::create(self.path("layer/boot/z-initrd"))?;
        sparse.set_len(SPARSE)?;
        for at in (0..SPARSE).step_by(usize::try_from(16 * MIB)?) {
            sparse.write_all_at(&bytes(MIB)?, at)?;
        }
        fs::create_dir(self.path("layer/boot/dtb"))?;
        for number in 0..DEVICE_TREES {
            fs::write(self.path(&format!("layer/boot/dtb/{number}")), bytes(32 * 1024)?)?;
        }
        let (layer, upper) = (self.path("layer"), "/run/bench/upper");
        fs::create_dir_all(upper)?;
        fs::create_dir_all("/run/bench/work")?;
        let layers =
            format!("lowerdir={},upperdir={upper},workdir=/run/bench/work", layer.display());
        succeed(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o", &layers])
                .arg(self.path("rootfs")),
        )?;
        let sum = Command::new("sha256sum").arg(self.image().join("vmlinuz")).output()?.stdout;
        self.abi = String::from_utf8(sum)?.chars().take(64).collect();
        Ok(())
    }

    /// An engine that knows one volume.
    fn serve(&self) -> Result<()> {
        let listener = UnixListener::bind("/run/bench/engine")?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || drop(answer(&stream)));
            }
        });
        Ok(())
    }

    fn empty_volume(&self) -> Result<()> {
        drop(fs::remove_dir_all(self.volume()));
        Ok(fs::create_dir_all(self.volume())?)
    }

    fn manage(&self, verb: &str) -> Result<Duration> {
        let mut command = Command::new(&self.manager);
        command.args([
            "kernel",
            verb,
            "--container",
            "c",
            "--volume",
            VOLUME,
            "--caller",
            &self.version,
        ]);
        command.arg("--rootfs").arg(self.path("rootfs"));
        command.arg("--docker-root").arg(self.path("mnt/data/docker"));
        command.arg("--label").arg(format!("io.balena.image.kernel-abi-id={}", self.abi));
        command.arg("--host-root").arg(&self.dir).args(["--host", "unix:///run/bench/engine"]);
        succeed(&mut command)
    }

    fn copy(&self, sync: &str) -> Result<Duration> {
        let script = format!("cp --archive --sparse=auto \"$0/.\" \"$1\" && {sync}");
        succeed(Command::new("sh").args(["-c", &script]).arg(self.image()).arg(self.volume()))
    }

    fn sum(&self) -> Result<Duration> {
        let files = [self.image().join("vmlinuz"), self.volume().join("vmlinuz")];
        succeed(Command::new("sha256sum").args(files))
    }
}

/// Runs a command, and says how long it took.
fn succeed(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let output = command.output()?;
    let time = began.elapsed();
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(time)
}

fn answer(mut stream: &UnixStream) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut len) = (String::new(), 0);
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header == "\r\n" {
                break;
            }
            if let Some(number) = header.to_lowercase().strip_prefix("content-length:") {
                len = number.trim().parse()?;
            }
        }
        reader.read_exact(&mut vec![0; len])?;
        let place = format!("/mnt/data/docker/volumes/{VOLUME}/_data");
        let (head, body) = match line.contains("/_ping") {
            true => ("HTTP/1.1 200 OK\r\nApi-Version: 1.41", "OK".to_owned()),
            false => ("HTTP/1.1 201 Created", format!("{{\"Mountpoint\":\"{place}\"}}")),
        };
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
}

/// The blocks of 512 bytes of all files below a directory.
fn blocks(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => blocks(&entry.path())?,
            false => entry.metadata()?.blocks(),
        };
    }
    Ok(sum)
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}
