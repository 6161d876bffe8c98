//! `kernel activate`: the kernel of an image is published and armed, or refused. Each check has its own text, and they
//! are made in a fixed order: first those of the image.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::host::version;
use super::override_device::{Device, X};
use crate::capture;
use crate::finished::Finished;

const VOLUME: &str = "ext_service_0123456789ab_boot";
const DATA: &str = "mnt/data/docker/volumes/ext_service_0123456789ab_boot/_data";
/// Of "kernel" and of "another".
const ABI: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
const REFUSED: i32 = 10;

/// A device with an image that brings a kernel, and its volume.
struct Machine(Device);

impl Machine {
    fn new(lines: &str) -> Self {
        let machine = Self(Device::new(lines));
        let host = &machine.0.0;
        host.write("rootfs/boot/vmlinuz", "a");
        host.write("rootfs/usr/lib/modules/6.1.83-v8/Module.symvers", "");
        host.write(&format!("{DATA}/vmlinuz"), "a");
        machine
    }

    fn remove(&self, name: &str) {
        let path = self.0.path(name);
        match path.is_dir() && !path.is_symlink() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
    }

    fn write(&self, name: &str, text: &str) {
        self.0.0.write(name, text);
    }

    fn command(&self, labels: &[String], volume: &[&str]) -> Command {
        let mut words = vec!["kernel", "activate", "--container", "c"];
        words.extend(volume);
        let mut command = self.0.0.command(&words);
        command.args(["--caller", &version(), "--rootfs"]).arg(self.0.path("rootfs"));
        command.arg("--docker-root").arg(self.0.path("mnt/data/docker"));
        for label in labels {
            command.arg("--label").arg(format!("io.balena.image.{label}"));
        }
        command
    }

    fn activate_with(&self, labels: &[String]) -> Finished {
        capture::run(&mut self.command(labels, &["--volume", VOLUME]))
    }

    /// Adds a volume with another kernel, and returns its ABI.
    fn add_kernel(&self, number: usize) -> String {
        let path = format!("{}/vmlinuz", DATA.replace("service", &format!("s{number}")));
        self.write(&path, &format!("kernel {number}"));
        self.write(&format!("images/{number}/boot/vmlinuz"), &format!("kernel {number}"));
        self.write(&format!("images/{number}/lib/modules/6.1.83/Module.symvers"), "");
        let sum = capture::run(Command::new("sha256sum").arg(self.0.path(&path))).ok();
        sum.out.split(' ').next().unwrap().to_owned()
    }

    fn activate_added(&self, number: usize, abi: &str) -> Finished {
        let volume = VOLUME.replace("service", &format!("s{number}"));
        let rootfs = self.0.path(&format!("images/{number}"));
        let label = format!("io.balena.image.kernel-abi-id={abi}");
        let words = ["kernel", "activate", "--container", "c", "--volume", &volume];
        let mut command = self.0.0.command(&words);
        command.args(["--label", &label, "--caller", &version(), "--rootfs"]).arg(rootfs);
        command.arg("--docker-root").arg(self.0.path("mnt/data/docker"));
        capture::run(&mut command)
    }

    fn activate(&self) -> Finished {
        self.activate_with(&[format!("kernel-abi-id={ABI}")])
    }

    /// Refused by the image's fault: no further attempt can succeed.
    fn refused(&self, texts: &[&str]) {
        self.activate().fails_with(REFUSED).fails(texts);
        self.nothing_is_written();
    }

    /// Not possible on this machine, or not now.
    fn fails(&self, texts: &[&str]) {
        self.activate().fails_with(1).fails(texts);
        self.nothing_is_written();
    }

    fn nothing_is_written(&self) {
        assert_eq!(self.0.published(), [""; 0]);
        assert!(!self.0.has_prestate());
    }
}

#[test]
fn the_kernel_is_published_and_armed() {
    let machine = Machine::new("other=1\nkernel_override_trial=2\n");
    let finished = machine.activate().ok();
    assert!(finished.err.contains(ABI), "{finished}");
    let link = std::fs::read_link(machine.0.path("mnt/data/boot-by-abi").join(ABI)).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("../docker/volumes/{VOLUME}/_data/vmlinuz"));
    assert_eq!(
        machine.0.state("extension-health-variables").unwrap(),
        "BALENAOS_ROLLBACK_VPNONLINE=0\n"
    );
    assert_eq!(machine.0.block(), format!("other=1\nkernel_override_abi={ABI}\n"));
    machine.activate().ok();
    assert_eq!(machine.0.block(), format!("other=1\nkernel_override_abi={ABI}\n"));
}

#[test]
fn the_boots_of_a_trial_are_forgotten_only_for_another_kernel() {
    let same = format!("kernel_override_abi={ABI}\nkernel_override_trial=2\n");
    let machine = Machine::new(&same);
    machine.activate().ok();
    assert_eq!(machine.0.block(), same);
    machine.0.set_block(&format!("kernel_override_abi={X}\nkernel_override_trial=2\n"));
    machine.activate().ok();
    assert_eq!(machine.0.block(), format!("kernel_override_abi={ABI}\n"));
}

#[test]
fn an_image_without_its_kernel_is_refused() {
    let machine = Machine::new("");
    for kind in ["empty", "link", "deep", "fifo", "another"] {
        machine.remove("rootfs/boot");
        machine.write("rootfs/boot/config", "x");
        machine.write("rootfs/kernel", "a");
        let path = machine.0.path("rootfs/boot/vmlinuz");
        match kind {
            "empty" => machine.write("rootfs/boot/vmlinuz", ""),
            "link" => symlink("../kernel", path).unwrap(),
            "deep" => machine.write("rootfs/boot/a/vmlinuz", "a"),
            "fifo" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap(),
            _ => machine.write("rootfs/boot/vmlinuz", "b"),
        }
        machine.refused(&["no regular file directly in /boot", ABI]);
    }
    machine.remove("rootfs/boot");
    machine.refused(&["the image has no /boot"]);
    machine.write("rootfs/boot", "");
    machine.fails(&["cannot list /boot", "names a file"]);
}

#[test]
fn of_two_files_with_the_hash_the_first_is_the_kernel_and_one_that_others_hide_is_found() {
    let machine = Machine::new("");
    for number in 0..10_000 {
        std::fs::write(machine.0.path(&format!("rootfs/boot/{number}")), "x").unwrap();
    }
    machine.write("rootfs/boot/zImage", "a");
    machine.activate().ok();
    let link = std::fs::read_link(machine.0.path("mnt/data/boot-by-abi").join(ABI)).unwrap();
    assert!(link.ends_with("vmlinuz"), "{link:?}");
}

/// A file that cannot be read may be the kernel, but the others decide: the image is the same on every machine.
#[test]
fn a_file_in_boot_that_cannot_be_read_is_skipped_with_a_warning() {
    let machine = Machine::new("");
    machine.write("rootfs/boot/a", "x");
    for (unread, is_found) in [("a", true), ("vmlinuz", false)] {
        let warning = format!(r#"cannot read \"{unread}\" in /boot: "#);
        let folder = machine.0.path("rootfs/boot");
        let command = machine.command(&[format!("kernel-abi-id={ABI}")], &["--volume", VOLUME]);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(folder.join(unread));
        strace.args(["-e", "inject=read:error=EIO"]).arg(command.get_program());
        let finished = capture::run(strace.args(command.get_args()));
        assert!(finished.err.contains(&warning), "{finished}");
        if is_found {
            finished.ok();
            assert_eq!(machine.0.block(), format!("kernel_override_abi={ABI}\n"));
        } else {
            finished.fails_with(REFUSED).fails(&["no regular file directly in /boot"]);
        }
    }
}

#[test]
fn an_image_without_the_symbols_of_its_kernel_is_refused() {
    let machine = Machine::new("");
    machine.remove("rootfs/usr/lib/modules/6.1.83-v8/Module.symvers");
    machine.refused(&["Module.symvers"]);
    symlink("/boot/vmlinuz", machine.0.path("rootfs/usr/lib/modules/6.1.83-v8/Module.symvers"))
        .unwrap();
    machine.refused(&["Module.symvers"]);
    machine.write("rootfs/lib/modules/6.1.83-v8/Module.symvers", "");
    machine.activate().ok();
}

#[test]
fn the_label_with_the_version_is_that_of_the_modules() {
    let machine = Machine::new("");
    let with = |version: &str| {
        machine
            .activate_with(&[format!("kernel-abi-id={ABI}"), format!("kernel-version={version}")])
    };
    for version in ["6.1.84", "6.1.83-v8", "6.1"] {
        let finished = with(version).fails_with(REFUSED);
        finished.fails(&[&format!("{version:?}"), "modules are for 6.1.83-v8"]);
        machine.nothing_is_written();
    }
    for version in ["6.1.83", "", " "] {
        with(version).ok();
    }
}

#[test]
fn a_malformed_abi_is_refused() {
    let machine = Machine::new("");
    for abi in ["", "00", &ABI.to_uppercase(), &format!(" {ABI}"), &format!("sha256:{ABI}")] {
        let finished = machine.activate_with(&[format!("kernel-abi-id={abi}")]);
        finished.fails_with(REFUSED).fails(&["not 64 lowercase hex digits"]);
    }
    machine.nothing_is_written();
}

#[test]
fn a_rejected_kernel_is_refused_with_the_way_out() {
    let machine = Machine::new("");
    machine.write("mnt/state/override-rejected", &format!("{X}\n{ABI}\n"));
    machine.refused(&["was tried and rejected", &format!("override retry {ABI}")]);
    // Also where a condition of the machine fails as well.
    machine.remove(DATA);
    machine.remove("mnt/boot");
    machine.refused(&["was tried and rejected"]);
    machine.remove("mnt/state/override-rejected");
    std::fs::create_dir(machine.0.path("mnt/state/override-rejected")).unwrap();
    machine.fails(&["cannot read the list of rejected kernels"]);
}

#[test]
fn without_the_state_partition_nothing_is_tried() {
    let machine = Machine::new("");
    machine.0.0.mounts("/dev/sda1 /mnt/boot vfat rw 0 0\n");
    machine.fails(&["the state partition is not mounted at", "mnt/state"]);
    machine.remove("proc/mounts");
    machine.fails(&["cannot determine whether the state partition is mounted"]);
    // The image's fault comes first, so that it is the same verdict on every machine.
    machine.remove("rootfs/boot/vmlinuz");
    machine.refused(&["no regular file directly in /boot"]);
}

#[test]
fn the_volume_must_have_the_very_kernel_of_the_image() {
    let machine = Machine::new("");
    machine.write(&format!("{DATA}/.fabricating"), "");
    machine.fails(&["was not filled to its end", VOLUME]);
    machine.remove(&format!("{DATA}/.fabricating"));
    machine.write(&format!("{DATA}/vmlinuz"), "b");
    machine.fails(&["is not the kernel of the image", VOLUME, "vmlinuz", "3e23e816003959"]);
    machine.remove(&format!("{DATA}/vmlinuz"));
    machine.fails(&[r#"the file "vmlinuz" is missing in the volume"#, VOLUME]);
    symlink("../../../../../../rootfs/boot/vmlinuz", machine.0.path(&format!("{DATA}/vmlinuz")))
        .unwrap();
    machine.fails(&[r#"the file "vmlinuz" is missing in the volume"#]);
    machine.remove(DATA);
    machine.fails(&["cannot open the volume", VOLUME]);
    let label = [format!("kernel-abi-id={ABI}")];
    let finished = capture::run(&mut machine.command(&label, &[])).fails_with(1);
    finished.fails(&["no volume with its kernel", "create it again"]);
    let finished = capture::run(&mut machine.command(&label, &["--volume", "x"])).fails_with(1);
    finished.fails(&[r#""x" is not the name"#]);
}

/// Of two engines on one machine, the boot sees the volumes of one.
#[test]
fn the_volume_of_an_engine_that_the_boot_does_not_see_is_not_published() {
    let machine = Machine::new("");
    let other = DATA.replace("mnt/data/docker", "other");
    machine.write(&format!("{other}/vmlinuz"), "a");
    let label = [format!("kernel-abi-id={ABI}")];
    for there in [true, false] {
        let mut command = machine.command(&label, &["--volume", VOLUME]);
        let words: Vec<_> = command.get_args().map(|word| word.to_owned()).collect();
        let root = words.iter().position(|word| word == "--docker-root").unwrap();
        command = Command::new(command.get_program());
        command.args(&words[..=root]).arg(machine.0.path("other")).args(&words[root + 2..]);
        let finished = capture::run(&mut command).fails_with(1);
        finished.fails(&["is not below /mnt/data/docker", "other"]);
        if there {
            machine.remove(DATA);
        }
    }
    machine.nothing_is_written();
}

#[test]
fn the_boot_environment_is_looked_at_before_the_first_record_is_written() {
    let machine = Machine::new("");
    machine.write("mnt/boot/bootenv", "nonsense");
    machine.fails(&["boot environment", "bootenv"]);
    machine.0.set_block(&format!("x={}\n", "a".repeat(950)));
    machine.fails(&["the boot environment cannot name the kernel"]);
    machine.remove("mnt/boot/bootenv");
    machine.fails(&["no boot environment block"]);
    machine.0.0.mounts("/dev/sda4 /mnt/state ext4 rw 0 0\n");
    machine.fails(&["the boot partition is not mounted"]);
}

#[test]
fn a_block_of_any_size_with_room_is_armed_in_its_size() {
    const SIGNATURE: &str = "# GRUB Environment Block\n";
    let arm = format!("kernel_override_abi={ABI}\n");
    for (len, has_room) in [
        (SIGNATURE.len(), false),
        (SIGNATURE.len() + arm.len(), false),
        (SIGNATURE.len() + arm.len() + 1, true),
        (1025, true),
        (65_536, true),
    ] {
        let machine = Machine::new("");
        let padded = |text: &str| {
            let mut block = text.to_owned().into_bytes();
            block.resize(len, b'#');
            block
        };
        let path = machine.0.path("mnt/boot/bootenv");
        let empty = padded(SIGNATURE);
        std::fs::write(&path, &empty).unwrap();
        if has_room {
            machine.activate().ok();
            assert!(std::fs::read(path).unwrap() == padded(&format!("{SIGNATURE}{arm}")), "{len}");
        } else {
            machine.fails(&["the boot environment cannot name the kernel"]);
            assert!(std::fs::read(path).unwrap() == empty, "{len}");
        }
    }
}

#[test]
fn what_stands_in_the_place_of_the_link_is_replaced_unless_it_is_a_directory() {
    type Make<'a> = &'a dyn Fn(PathBuf);
    let outside = tempfile::NamedTempFile::new().unwrap();
    let cases: [(&str, Make<'_>); 5] = [
        ("a dangling link", &|path| symlink("../none", path).unwrap()),
        ("a link out of the device", &|path| symlink(outside.path(), path).unwrap()),
        ("a link to a directory", &|path| symlink("../docker", path).unwrap()),
        ("a file", &|path| std::fs::write(path, "x").unwrap()),
        ("a directory", &|path| std::fs::create_dir(path).unwrap()),
    ];
    for (name, make) in cases {
        for suffix in ["", ".new"] {
            let machine = Machine::new("");
            let links = machine.0.path("mnt/data/boot-by-abi");
            make(links.join(format!("{ABI}{suffix}")));
            let finished = machine.activate();
            if name == "a directory" {
                finished.fails_with(1).fails(&["cannot publish the kernel as", ABI]);
                assert_eq!((machine.0.block(), machine.0.has_prestate()), (String::new(), false));
                assert!(links.join(format!("{ABI}{suffix}")).is_dir());
            } else {
                finished.ok();
                assert_eq!(machine.0.published(), [ABI], "{name}{suffix}");
                let link = std::fs::read_link(links.join(ABI)).unwrap();
                assert!(link.ends_with(format!("{VOLUME}/_data/vmlinuz")), "{name}{suffix}");
            }
        }
    }
    assert_eq!(std::fs::read_to_string(outside.path()).unwrap(), "");
}

#[test]
fn of_calls_that_meet_each_publishes_its_kernel_and_one_is_armed() {
    let machine = Machine::new("other=1\n");
    let abis: Vec<String> = (0..10).map(|number| machine.add_kernel(number)).collect();
    std::thread::scope(|scope| {
        for (number, abi) in abis.iter().enumerate() {
            let machine = &machine;
            scope.spawn(move || machine.activate_added(number, abi).ok());
        }
    });
    let mut sorted = abis.clone();
    sorted.sort();
    assert_eq!(machine.0.published(), sorted);
    let block = machine.0.block();
    let arm = block.strip_prefix("other=1\nkernel_override_abi=").unwrap();
    assert!(abis.iter().any(|abi| arm == format!("{abi}\n")), "{block}");
    assert!(machine.0.has_prestate());
    assert!(!machine.0.path("mnt/state/override-block-redo").exists());
}

/// The disk becomes full, or fails, at each system call that changes a record.
#[test]
fn a_call_that_fails_at_any_step_says_so_and_the_next_completes_it() {
    let mut failed = 0;
    for call in ["symlinkat", "renameat", "write", "fsync", "pwrite64", "unlinkat", "flock"] {
        for count in 1.. {
            let machine = Machine::new("");
            let command = machine.command(&[format!("kernel-abi-id={ABI}")], &["--volume", VOLUME]);
            let (finished, trace) = inject(&machine, &command, call, count);
            if !trace.contains("INJECTED") {
                break;
            }
            let armed = machine.0.block().contains("kernel_override_abi=");
            if armed {
                assert_eq!(machine.0.published(), [ABI], "{call} {count}");
                assert!(machine.0.has_prestate(), "{call} {count}");
            } else {
                assert!(!finished.err.contains("armed the kernel"), "{call} {count}: {finished}");
            }
            match finished.code() {
                // The history, which no verdict depends on, or what the log prints.
                0 => assert!(armed, "{call} {count}: {trace}"),
                code => assert_eq!(code, 1, "{call} {count}: {finished}"),
            }
            failed += usize::from(finished.code() != 0);
            machine.activate().ok();
            assert_eq!(machine.0.published(), [ABI], "{call} {count}");
            assert_eq!(machine.0.block(), format!("kernel_override_abi={ABI}\n"));
            assert!(!machine.0.path("mnt/state/override-block-redo").exists(), "{call} {count}");
        }
    }
    assert!(failed > 8, "{failed}");
}

/// Runs `command` with ENOSPC in place of the system call with this number; the trace is returned, too.
fn inject(machine: &Machine, command: &Command, call: &str, count: usize) -> (Finished, String) {
    let trace = machine.0.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&trace);
    strace.args(["-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:error=ENOSPC:when={count}")]);
    strace.arg(command.get_program()).args(command.get_args());
    let finished = capture::run(&mut strace);
    (finished, std::fs::read_to_string(trace).unwrap())
}

/// Kills it at each system call that changes a record; the next call completes it.
#[test]
fn a_call_that_is_killed_at_any_step_is_completed_by_the_next() {
    let mut killed = 0;
    for call in ["symlinkat", "renameat", "fsync", "fdatasync", "pwrite64", "unlinkat", "fchmod"] {
        for count in 1.. {
            let machine = Machine::new("");
            let command = machine.command(&[format!("kernel-abi-id={ABI}")], &["--volume", VOLUME]);
            let inject = format!("inject={call}:signal=KILL:when={count}");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]).arg(command.get_program());
            if capture::run(strace.args(command.get_args())).succeeded() {
                break;
            }
            killed += 1;
            if machine.0.block().contains("kernel_override_abi=") {
                assert_eq!(machine.0.published(), [ABI], "{call} {count}");
                assert!(machine.0.has_prestate(), "{call} {count}");
            }
            machine.activate().ok();
            assert_eq!(machine.0.published(), [ABI], "{call} {count}");
            assert_eq!(machine.0.block(), format!("kernel_override_abi={ABI}\n"));
        }
    }
    assert!(killed > 8, "{killed}");
}
