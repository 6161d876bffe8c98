//! Tests of the block's file: real files below a host root, with writes that are torn, and with grub's own tool.

#![allow(clippy::print_stdout, reason = "the tears are counted for whoever reads the output")]

use super::*;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::records::{Committed, Field};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const OPENING: &str = "# GRUB Environment Block\n";

fn named(digit: char) -> Field {
    Field::Abi(Abi::parse(&digit.to_string().repeat(64)).unwrap())
}

fn block(len: usize, lines: &str) -> Vec<u8> {
    let mut bytes = format!("{OPENING}{lines}").into_bytes();
    bytes.resize(len, b'#');
    bytes
}

/// A host with a boot partition and a state partition.
struct Device {
    folder: tempfile::TempDir,
    host: HostRoot,
}

impl Device {
    fn new(block: &[u8]) -> Self {
        Self::below(&std::env::temp_dir(), block)
    }

    fn below(parent: &Path, block: &[u8]) -> Self {
        let folder = tempfile::tempdir_in(parent).unwrap();
        for directory in ["proc", "mnt/boot", "mnt/state"] {
            std::fs::create_dir_all(folder.path().join(directory)).unwrap();
        }
        let device = Self { host: HostRoot::new(folder.path().to_owned()), folder };
        device.put("proc/mounts", b"/dev/sda1 /mnt/boot vfat rw 0 0\n");
        device.put("mnt/boot/bootenv", block);
        device
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        std::io::Write::write_all(&mut File::create(self.path(path)).unwrap(), bytes).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path("mnt/boot/bootenv")).unwrap()
    }

    fn file(&self) -> BlockFile<'_> {
        BlockFile::find(&self.host).unwrap().unwrap()
    }

    fn arm(&self, digit: char) -> Result<BlockWrite, Error> {
        self.file().change(|values| Some(BlockValues { arm: named(digit), ..values.clone() }))
    }

    fn has_record(&self) -> bool {
        self.path("mnt/state/override-block-redo").exists()
    }
}

#[test]
fn a_host_without_a_block_has_none_and_one_that_cannot_be_seen_is_an_error() {
    let device = Device::new(&block(64, "upgrade_available=1\n"));
    assert!(read(&device.host).unwrap().unwrap().can_roll_back());
    device.put("proc/mounts", b"/dev/sda2 /mnt/efi vfat rw 0 0\n");
    assert!(matches!(read(&device.host), Err(Error::NotMounted { .. })));
    std::fs::remove_file(device.path("proc/mounts")).unwrap();
    assert!(matches!(read(&device.host), Err(Error::NotMounted { .. })));
    device.put("proc/mounts", b"/dev/sda1 /mnt/boot vfat rw 0 0\n");
    let path = device.path("mnt/boot/bootenv");
    std::fs::remove_file(&path).unwrap();
    assert!(read(&device.host).unwrap().is_none());
    std::os::unix::fs::symlink("missing", &path).unwrap();
    assert!(matches!(read(&device.host), Err(Error::Dangling { .. })));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(read(&device.host), Err(Error::File(boot_file::Error::Read { .. }))));
    std::fs::remove_dir_all(device.path("mnt/boot")).unwrap();
    device.put("proc/mounts", b"");
    assert!(read(&device.host).unwrap().is_none(), "no boot partition at all");
}

#[test]
fn a_damaged_block_is_an_error_and_nothing_is_written() {
    for (bytes, waits) in [
        (&b""[..], true),
        (b"nonsense", true),
        (b"# GRUB Environment Block\nx", true),
        (b"# GRUB Environment Block\nx\n####", false),
    ] {
        let device = Device::new(bytes);
        let begun = Instant::now();
        assert!(matches!(device.arm('a'), Err(Error::Invalid { .. })), "{bytes:?}");
        assert_eq!(begun.elapsed() >= SETTLING, waits, "{bytes:?}");
        assert_eq!((device.bytes().as_slice(), device.has_record()), (bytes, false));
    }
}

#[test]
fn a_block_that_is_empty_for_a_moment_is_read_again() {
    let device = Device::new(b"");
    let whole = block(1024, "x=1\n");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(3 * PAUSE);
            device.put("mnt/boot/bootenv", &whole);
        });
        assert_eq!(device.file().read().unwrap().to_bytes(), whole);
    });
}

#[test]
fn a_change_keeps_the_size_and_leaves_no_record() {
    for len in [300, 1024, 1025, 65_536] {
        let device = Device::new(&block(len, "bootcount=0 \nkernel_override_trial=2\n"));
        let inode = std::fs::metadata(device.path("mnt/boot/bootenv")).unwrap();
        assert_eq!(device.arm('a').unwrap(), BlockWrite::Done);
        let armed = format!(
            "bootcount=0 \nkernel_override_trial=2\nkernel_override_abi={}\n",
            "a".repeat(64)
        );
        assert_eq!(device.bytes(), block(len, &armed));
        assert!(!device.has_record());
        assert_eq!(device.arm('a').unwrap(), BlockWrite::NotNeeded);
        assert_eq!(device.file().change(|_| None).unwrap(), BlockWrite::NotNeeded);
        let after = std::fs::metadata(device.path("mnt/boot/bootenv")).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(inode.ino(), after.ino(), "it was written in place");
    }
    let device = Device::new(&block(64, ""));
    assert!(matches!(device.arm('a'), Err(Error::NoRoom { .. })));
    assert_eq!((device.bytes(), device.has_record()), (block(64, ""), false));
    let device = Device::new(&block(1024, ""));
    std::fs::remove_dir(device.path("mnt/state")).unwrap();
    assert!(matches!(device.arm('a'), Err(Error::SaveRedo { .. })));
    assert_eq!(device.bytes(), block(1024, ""));
}

/// What a reader takes a block for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    old: usize,
    new: usize,
    error: usize,
    repaired: usize,
    mixture: usize,
    /// The mixtures with an ABI that neither content has.
    invented: usize,
}

/// The contents before and after a change of every value, with the keys where `lines` puts them.
fn change_of_all(lines: &str) -> (Vec<u8>, Vec<u8>) {
    let with = |a: &str, b: &str, trial: &str| {
        let text = lines.replace("AAA", &a.repeat(64)).replace("BBB", &b.repeat(64));
        block(1025, &text.replace("TTT", trial))
    };
    let old = with("a", "b", "kernel_override_trial=2\n");
    let read = Block::parse(&old).unwrap();
    let values = BlockValues {
        arm: named('c'),
        committed: Committed { a: named('d'), b: Field::Empty },
        trial: None,
        ..read.values()
    };
    let new = read.with(&values).unwrap();
    (old, new)
}

/// Counts what readers make of each torn content, with a record and without.
fn count(old: &[u8], new: &[u8], torn: impl Iterator<Item = Vec<u8>>) -> (Counted, Counted) {
    let (mut without, mut with) = (Counted::default(), Counted::default());
    let values = |bytes: &[u8]| Block::parse(bytes).map(|block| block.values());
    let known = [old, new].map(|bytes| values(bytes).unwrap());
    let known: Vec<&Abi> = known.iter().flat_map(BlockValues::named).collect();
    // In memory, where thousands of syncs cost nothing.
    let device = Device::below(Path::new("/dev/shm"), old);
    for found in torn {
        match values(&found) {
            _ if found == old => without.old += 1,
            _ if found == new => without.new += 1,
            Err(_) => without.error += 1,
            Ok(values) => {
                without.mixture += 1;
                without.invented += usize::from(values.named().any(|abi| !known.contains(&abi)));
            }
        }
        BlockRedo::save(&device.host, old, new).unwrap();
        device.put("mnt/boot/bootenv", &found);
        let read = device.file().read().map(|block| block.to_bytes());
        let repair = device.file().repair();
        let after = device.bytes();
        match repair {
            Ok(BlockRepair::RecordRemoved) if after == old => with.old += 1,
            Ok(BlockRepair::RecordRemoved) if after == new => with.new += 1,
            Ok(BlockRepair::Completed) if after == new => with.repaired += 1,
            Err(_) => with.error += 1,
            Ok(_) => with.mixture += 1,
        }
        // One who only reads sees the same.
        assert_eq!(read.unwrap(), after);
        assert!(!device.has_record());
        assert_eq!(device.file().repair().unwrap(), BlockRepair::NotNeeded);
    }
    (without, with)
}

const NEAR: &str = "kernel_override_abi=AAA\nkernel_override_abi_committed_A=BBB\nTTTx=1\n\
                    kernel_override_abi_committed_B=AAA\n";

fn far() -> String {
    let filler = format!("filler={}\n", "f".repeat(300));
    format!(
        "x=1\nkernel_override_abi=AAA\n{filler}TTT{filler}kernel_override_abi_committed_A=BBB\ny=2\n"
    )
}

/// Where the values are: in one sector, in three, and nowhere yet.
fn layouts() -> [String; 3] {
    [NEAR.to_owned(), far(), "x=1\n".to_owned()]
}

#[test]
fn no_write_that_is_torn_at_any_byte_is_believed() {
    let mut all = Counted::default();
    for lines in layouts() {
        let (old, new) = change_of_all(&lines);
        let torn = (0..=old.len()).map(|at| [&new[..at], &old[at..]].concat());
        let (without, with) = count(&old, &new, torn);
        println!("torn at every byte: without a record {without:?}, with one {with:?}");
        assert_eq!((with.error, with.mixture), (0, 0), "{with:?}");
        assert_eq!((with.old, with.new), (without.old, without.new));
        assert_eq!(with.repaired, without.error + without.mixture);
        all.error += without.error;
        all.mixture += without.mixture;
        all.invented += without.invented;
    }
    assert!(all.error > 0 && all.mixture > 0 && all.invented > 0, "{all:?}");
}

#[test]
fn no_write_of_any_subset_of_its_sectors_is_believed() {
    let mut all = Counted::default();
    for lines in layouts() {
        let (old, new) = change_of_all(&lines);
        let subsets = (0..1 << old.len().div_ceil(512)).map(|subset: usize| {
            let sectors = old.chunks(512).zip(new.chunks(512)).enumerate();
            let pick = |(at, (old, new))| if subset >> at & 1 == 1 { new } else { old };
            sectors.flat_map(|sector| pick(sector).to_vec()).collect()
        });
        let (without, with) = count(&old, &new, subsets);
        println!("torn sectors: without a record {without:?}, with one {with:?}");
        assert_eq!((with.error, with.mixture), (0, 0), "{with:?}");
        assert_eq!(with.repaired, without.error + without.mixture);
        assert_eq!(without.invented, 0, "each of our values lies in one sector");
        all.mixture += without.mixture;
    }
    assert!(all.mixture > 0, "{all:?}");
}

#[test]
fn the_block_of_another_program_wins_over_a_record() {
    let (old, new) = change_of_all(NEAR);
    let other = block(1024, "upgrade_available=1\n");
    let device = Device::new(&other);
    BlockRedo::save(&device.host, &old, &new).unwrap();
    assert!(device.file().read().unwrap().can_roll_back());
    assert_eq!(device.file().repair().unwrap(), BlockRepair::RecordRemoved);
    assert_eq!((device.bytes(), device.has_record()), (other, false));
    // A damaged block keeps the record until it can be read.
    device.put("mnt/boot/bootenv", b"# GRUB Environment Block\nx");
    BlockRedo::save(&device.host, &old, &new).unwrap();
    assert!(matches!(device.file().repair(), Err(Error::Invalid { .. })));
    assert!(device.has_record());
    // A change completes the interrupted one first.
    device.put("mnt/boot/bootenv", &[&new[..600], &old[600..]].concat());
    let seen = device.file().change(|values| {
        assert_eq!(values.arm, named('c'));
        None
    });
    assert_eq!(seen.unwrap(), BlockWrite::NotNeeded);
    assert_eq!((device.bytes(), device.has_record()), (new, false));
    device.put("mnt/state/override-block-redo", b"override-block-redo 1\nhalf");
    assert_eq!(device.file().repair().unwrap(), BlockRepair::RecordRemoved);
    device.put("mnt/state/override-block-redo", b"");
    assert_eq!(device.arm('e').unwrap(), BlockWrite::Done);
    assert!(!device.has_record());
}

#[test]
fn of_changes_that_meet_none_is_lost() {
    let device = Device::new(&block(1025, "x=1\n"));
    let one_more = |values: &BlockValues| {
        Some(BlockValues { trial: Some(values.boots() + 1), ..values.clone() })
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    device.file().change(one_more).unwrap();
                }
            });
        }
    });
    assert_eq!(device.bytes(), block(1025, "x=1\nkernel_override_trial=40\n"));
}

/// Runs Debian's `grub-editenv` (package grub-common).
fn grub(path: &Path, arguments: &[&str]) -> String {
    let output = Command::new("grub-editenv").arg(path).args(arguments).output();
    let output = output.expect("grub-editenv is installed (package grub-common)");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn grub_editenv_reads_what_is_written_here_and_the_other_way_round() {
    let device = Device::new(b"");
    let path = device.path("mnt/boot/bootenv");
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    grub(&path, &["create"]);
    grub(&path, &["set", r"menu=a\b\\c", "bootcount=0 ", "empty="]);
    device.arm('a').unwrap();
    let lines = |path: &Path| grub(path, &["list"]).lines().map(str::to_owned).collect::<Vec<_>>();
    let armed = format!("kernel_override_abi={a}");
    assert_eq!(lines(&path), [r"menu=a\b\\c", "bootcount=0 ", "empty=", &armed]);
    assert_eq!(device.file().read().unwrap().value("menu").unwrap(), r"a\b\\c");
    let warning = device.bytes();
    let warning = String::from_utf8_lossy(&warning);
    assert!(warning.starts_with(&format!("{OPENING}# WARNING: Do not edit")), "{warning}");

    let trial = |count: &str| format!("kernel_override_trial={count}");
    let committed = format!("kernel_override_abi_committed_B={b}");
    grub(&path, &["set", &trial("1"), &committed, "upgrade_available=1"]);
    grub(&path, &["unset", "menu"]);
    let read = device.file().read().unwrap().values();
    let expected = BlockValues {
        arm: named('a'),
        committed: Committed { a: Field::Empty, b: named('b') },
        trial: Some(1),
        relay: Field::Empty,
        update_window: true,
    };
    assert_eq!(read, expected);
    let wanted = BlockValues { trial: None, relay: named('a'), arm: Field::Empty, ..expected };
    device.file().change(|_| Some(wanted)).unwrap();
    let relay = format!("kernel_override_abi_rejected={a}");
    assert_eq!(lines(&path), ["bootcount=0 ", "empty=", &committed, "upgrade_available=1", &relay]);
    assert_eq!(device.bytes().len(), 1024);
    // grub can still write it, until no padding is left.
    grub(&path, &["set", "last=1"]);
    let full = format!("{OPENING}kernel_override_abi={a}\n");
    device.put("mnt/boot/bootenv", full.as_bytes());
    assert_eq!(lines(&path), [armed]);
    assert_eq!(device.file().read().unwrap().values().arm, named('a'));
}

/// grub-editenv takes no lock: it reads the block, truncates it, and writes it. A change that is made between its
/// reading and its writing is lost, but nobody sees half of one.
#[test]
fn beside_grub_editenv_nobody_sees_half_a_block() {
    let device = Device::new(b"");
    let path = device.path("mnt/boot/bootenv");
    grub(&path, &["create"]);
    grub(&path, &["set", "foreign=kept"]);
    let done = AtomicBool::new(false);
    let (reads, writes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_enough = |made: &AtomicUsize| made.load(Ordering::Relaxed) >= 20;
    let begun = Instant::now();
    let mut count = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let block = device.file().read().unwrap();
                assert_eq!(block.value("foreign").as_deref(), Some("kept"));
                assert!([Field::Empty, named('a'), named('b')].contains(&block.values().arm));
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            for digit in ['a', 'b'].into_iter().cycle() {
                assert!(matches!(device.arm(digit), Ok(BlockWrite::Done | BlockWrite::NotNeeded)));
                writes.fetch_add(1, Ordering::Relaxed);
                if done.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while begun.elapsed() < Duration::from_secs(60) {
            count += 1;
            grub(&path, &["set", &format!("kernel_override_trial={count}")]);
            if count >= 100 && is_enough(&reads) && is_enough(&writes) {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("{reads:?} reads and {writes:?} changes beside {count} of grub-editenv");
    assert!(is_enough(&reads) && is_enough(&writes));
    assert!(!device.has_record());
    assert_eq!(device.bytes().len(), 1024);
    // The last write of either may have undone that of the other.
    assert!((1..=count).contains(&device.file().read().unwrap().values().boots()));
}
