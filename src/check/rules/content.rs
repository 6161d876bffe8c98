//! The facts in a file's bytes: which part of each file is read, and its meaning. The readers of
//! `check/read` pass the bytes in pieces, so that one pass over a stream is enough.

use crate::check::rules::tree::Content;
use crate::model::container::exit::elf_machine;

/// The bytes that are read of every file.
pub(crate) const HEAD_LEN: usize = 4096;
/// The kernel reads 256 bytes of a script, and the line must end there.
const LINE_MAX: usize = 256;
/// The part of an ELF header up to `e_version` (elf(5)): enough for type and machine.
const ELF_KEPT: usize = 20;
/// The type of a program header that names the dynamic loader (elf(5), `PT_INTERP`).
const PT_INTERP: u64 = 3;
/// The type of object files, which kernel modules are (elf(5), `ET_REL`).
const ET_REL: u16 = 1;

/// Whether the file at `path`, which has no leading slash, may be a kernel.
pub(crate) fn may_be_kernel(path: &str) -> bool {
    path.strip_prefix("boot/").is_some_and(|name| !name.contains('/'))
}

/// Whether the file may be a kernel module by its name.
pub(crate) fn may_be_module(path: &str) -> bool {
    path.ends_with(".ko")
}

/// Whether the file may be a kernel module under another name.
pub(crate) fn is_object(head: &[u8]) -> bool {
    elf_type(head) == Some(ET_REL)
}

impl Content {
    /// Reads the first bytes of a file. The reader adds the size and the other facts.
    pub(crate) fn of_head(head: &[u8]) -> Self {
        let head = head.get(..HEAD_LEN).unwrap_or(head);
        if elf_machine(head).is_some() {
            let kept = head.get(..ELF_KEPT).unwrap_or(head).to_vec();
            return Self { head: kept, loader: loader(head), ..Self::default() };
        }
        if !head.starts_with(b"#!") {
            return Self::default();
        }
        let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let has_cr_lf = head.windows(2).any(|pair| pair == b"\r\n");
        // The kernel silently ignores the rest (execve(2)).
        let long_line = line.len() >= LINE_MAX;
        let kept = line.get(..LINE_MAX).unwrap_or(line).to_vec();
        Self { head: kept, has_cr_lf, long_line, ..Self::default() }
    }
}

/// Whether an ELF file is a program or a library. Object files may be for any machine, such as programs for
/// the kernel's virtual machine (BPF).
pub(crate) fn is_linked(head: &[u8]) -> bool {
    matches!(elf_type(head), Some(2 | 3))
}

/// The field `e_type` of elf(5).
fn elf_type(head: &[u8]) -> Option<u16> {
    let pair = <[u8; 2]>::try_from(head.get(16..18)?).ok()?;
    let order = *head.strip_prefix(b"\x7fELF")?.get(1)?;
    Some(if order == 2 { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
}

/// The dynamic loader that an ELF program names, if that is in the first bytes. Linkers put it right after
/// the headers.
fn loader(head: &[u8]) -> Option<String> {
    let wide = *head.get(4)? == 2;
    let big = *head.get(5)? == 2;
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(len)?)?;
        let fold = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
    };
    let size = |value: u64| usize::try_from(value).ok();
    // The fields of elf(5): Elf32_Ehdr and Elf64_Ehdr, Elf32_Phdr and Elf64_Phdr.
    let (table, entry_len, count) = match wide {
        true => (number(32, 8)?, number(54, 2)?, number(56, 2)?),
        false => (number(28, 4)?, number(42, 2)?, number(44, 2)?),
    };
    for index in 0..count {
        let at = size(table.checked_add(index.checked_mul(entry_len)?)?)?;
        if number(at, 4)? != PT_INTERP {
            continue;
        }
        let (offset, len) = match wide {
            true => (number(at.checked_add(8)?, 8)?, number(at.checked_add(32)?, 8)?),
            false => (number(at.checked_add(4)?, 4)?, number(at.checked_add(16)?, 4)?),
        };
        let name = head.get(size(offset)?..size(offset.checked_add(len)?)?)?;
        let name = name.split(|&byte| byte == 0).next()?;
        return Some(String::from_utf8_lossy(name).into_owned());
    }
    None
}

/// Finds the release in a kernel module's bytes, which come in pieces. A module contains the text
/// `vermagic=RELEASE FLAGS`, ended by a NUL.
#[derive(Debug, Default)]
pub(crate) struct ReleaseSearch {
    /// The end of the bytes so far, in which the text may have begun.
    tail: Vec<u8>,
    found: Option<String>,
}

const VERMAGIC: &[u8] = b"vermagic=";
/// A release has at most 64 characters (uname(2)).
const RELEASE_MAX: usize = 65;

impl ReleaseSearch {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        if self.found.is_some() {
            return;
        }
        self.tail.extend_from_slice(piece);
        self.look(RELEASE_MAX);
        let keep = VERMAGIC.len() + RELEASE_MAX;
        if self.tail.len() > keep {
            self.tail.drain(..self.tail.len() - keep);
        }
    }

    /// Finds only a text that at least `room` bytes follow.
    fn look(&mut self, room: usize) {
        let starts = self.tail.windows(VERMAGIC.len() + room);
        let place = starts.into_iter().position(|window| window.starts_with(VERMAGIC));
        let Some(rest) = place.and_then(|at| self.tail.get(at + VERMAGIC.len()..)) else { return };
        let word = rest.split(|&byte| byte == b' ' || byte == 0).next().unwrap_or_default();
        self.found = Some(String::from_utf8_lossy(word).into_owned());
    }

    pub(crate) fn finish(mut self) -> Option<String> {
        if self.found.is_none() {
            self.look(0);
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dynamically linked 64-bit little-endian program header with one `PT_INTERP`.
    pub(crate) fn dynamic_elf(machine: u16, loader: &str) -> Vec<u8> {
        let mut head = vec![0_u8; 64 + 56];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[16] = 3;
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head[32] = 64;
        head[54] = 56;
        head[56] = 1;
        head[64] = 3;
        head[72] = 120;
        head[96] = u8::try_from(loader.len() + 1).unwrap();
        head.extend(loader.bytes());
        head.push(0);
        head
    }

    #[test]
    fn kernels_and_modules_are_known_by_their_paths_and_modules_by_their_type_too() {
        assert!(may_be_kernel("boot/bzImage") && may_be_kernel("boot/a.ko"));
        assert!(!may_be_kernel("boot/grub/grubenv") && !may_be_kernel("usr/bin/x"));
        assert!(may_be_module("lib/modules/6.1.0/a.ko") && may_be_module("boot/a.ko"));
        assert!(!may_be_module("usr/bin/x"));
        assert!(is_object(&[&b"\x7fELF\x02\x01"[..], &[0; 10], &[1, 0, 62, 0]].concat()));
        for head in [&b""[..], b"\x7fELF", b"#!/bin/sh with more bytes"] {
            assert!(!is_object(head));
        }
    }

    #[test]
    fn the_loader_of_a_program_is_found_and_nonsense_is_survived() {
        let head = dynamic_elf(62, "/lib64/ld-linux-x86-64.so.2");
        let content = Content::of_head(&head);
        assert_eq!(content.loader.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(content.head.len(), ELF_KEPT);
        assert!(is_linked(&content.head));
        for len in 0..head.len() {
            let _ = Content::of_head(&head[..len]);
        }
        let mut wild = head;
        wild[32..40].fill(0xff);
        assert_eq!(Content::of_head(&wild).loader, None);
    }

    #[test]
    fn a_script_keeps_its_first_line_and_how_its_lines_end() {
        let content = Content::of_head(b"#!/bin/sh -e\necho\n");
        assert_eq!(content.head, b"#!/bin/sh -e");
        assert!(!content.has_cr_lf);
        let content = Content::of_head(b"#!/bin/sh\necho\r\n");
        assert!(content.has_cr_lf);
        assert_eq!(Content::of_head(b"plain\r\n"), Content::default());
        let line = |len: usize| [&b"#!/bin/sh "[..], &vec![b'x'; len - 10], b"\n"].concat();
        assert!(!Content::of_head(&line(255)).long_line);
        assert!(Content::of_head(&line(256)).long_line);
    }

    #[test]
    fn the_release_of_a_module_is_found_wherever_the_pieces_are_cut() {
        let bytes = b"\0license=GPL\0vermagic=6.1.83-yocto SMP preempt mod_unload \0name=x\0";
        for cut in 0..bytes.len() {
            for padding in [0, 100, 5000] {
                let mut search = ReleaseSearch::default();
                search.add(&vec![b'x'; padding]);
                search.add(&bytes[..cut]);
                search.add(&bytes[cut..]);
                search.add(&vec![0; padding]);
                assert_eq!(search.finish().as_deref(), Some("6.1.83-yocto"), "{cut} {padding}");
            }
        }
        let mut search = ReleaseSearch::default();
        search.add(b"nothing");
        assert_eq!(search.finish(), None);
        let mut search = ReleaseSearch::default();
        search.add(b"vermagic=5.10.1");
        assert_eq!(search.finish().as_deref(), Some("5.10.1"));
    }
}
