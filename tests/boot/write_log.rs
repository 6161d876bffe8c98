//! The writes of one boot, as QEMU records them: in the format of dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst of the kernel).

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
/// That of the header, of an entry, and of the unit in which both count.
const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// A write to the disk.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Write {
    /// Its first sectors, and its last ones.
    pub(crate) fn torn(&self) -> Vec<Self> {
        let len = usize::try_from(SECTOR).unwrap();
        let sectors = self.bytes.len() / len;
        let part = |from: usize, to: usize| Self {
            at: self.at + u64::try_from(from * len).unwrap(),
            bytes: self.bytes[from * len..to * len].to_vec(),
        };
        (1..sectors).flat_map(|middle| [part(0, middle), part(middle, sectors)]).collect()
    }
}

impl fmt::Display for Write {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes at {}", self.bytes.len(), self.at)
    }
}

/// The writes between two flushes. After a power cut, any of them may be there or not, and those of earlier groups are
/// there.
pub(crate) type Group = Vec<Write>;

/// Reads the record.
pub(crate) fn read(path: &Path) -> Result<Vec<Group>, String> {
    let show = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(show)?;
    let sector = |number: u64| -> Result<[u8; 512], String> {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, number * SECTOR).map_err(show)?;
        Ok(bytes)
    };
    let field = |sector: &[u8], number: usize| {
        u64::from_le_bytes(sector[number * 8..number * 8 + 8].try_into().unwrap())
    };
    let header = sector(0)?;
    if field(&header, 0) != MAGIC {
        return Err(format!("{}: this is not a record of writes", path.display()));
    }
    let (mut groups, mut next) = (vec![Group::new()], 1);
    for _ in 0..field(&header, 2) {
        let entry = sector(next)?;
        next += 1;
        let (at, len, flags) = (field(&entry, 0), field(&entry, 1), field(&entry, 2));
        if flags & FLUSH != 0 {
            groups.push(Group::new());
        }
        if len == 0 || flags & DISCARD != 0 {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(len * SECTOR).unwrap()];
        file.read_exact_at(&mut bytes, next * SECTOR).map_err(show)?;
        next += len;
        groups.last_mut().unwrap().push(Write { at: at * SECTOR, bytes });
        if flags & FUA != 0 {
            groups.push(Group::new());
        }
    }
    groups.retain(|group| !group.is_empty());
    Ok(groups)
}

/// Which writes of a group are there after a power cut: each list has their numbers, in order.
///
/// Of up to `MOST` writes, all combinations; of more, each beginning, each write alone, and all but one.
pub(crate) fn survivors(len: usize) -> Vec<Vec<usize>> {
    const MOST: usize = 5;
    if len <= MOST {
        let has = |set: usize, number: usize| set >> number & 1 == 1;
        return (0..1 << len)
            .map(|set| (0..len).filter(|number| has(set, *number)).collect())
            .collect();
    }
    let beginnings = (0..=len).map(|end| (0..end).collect());
    let alone = (1..len).map(|number| vec![number]);
    let but_one = (0..len - 1).map(|lost| (0..len).filter(|number| *number != lost).collect());
    beginnings.chain(alone).chain(but_one).collect()
}
