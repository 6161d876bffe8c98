//! Readers of what `check` is given: a folder, an archive, the root of a host. They list; what the
//! listing means is decided in `check/rules`, and what an archive's documents say in `check/rules/image_documents.rs`.

pub(crate) mod folder;
pub(crate) mod archive;
pub(crate) mod saved;
pub(crate) mod tar_stream;
mod zstd;
mod assemble;

use crate::check::rules::content::{HEAD_LEN, ReleaseSearch, Wanted, wanted, wanted_by_any_name};
use crate::check::rules::tree::Content;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// How many files one rootfs or archive may have. It bounds the memory that a check takes.
const ENTRIES_MAX: usize = 1_000_000;
/// A larger file is not read whole: no kernel and no module is that large.
const WHOLE_MAX: u64 = 1024 * 1024 * 1024;
/// How much is read, or unpacked, of one image: gzip makes a thousand bytes of one, an archive of
/// archives a million, and holes in a file come for nothing.
const READ_MAX: u64 = 8 * WHOLE_MAX;
/// How much is read at a time.
const PIECE: usize = 64 * 1024;

/// Which names a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// The one it is read by; a folder has others as files of their own.
    One,
    /// Also those of hard links that come later, when its bytes have gone by. All that a rule may ask
    /// of it under such a name is looked for; that is bounded by what is unpacked.
    Any,
}

/// Reads as much of the file at `path` as the rules need. What is left stays in `reader`.
fn probe(path: &str, size: u64, names: Names, reader: &mut dyn Read) -> io::Result<Content> {
    let head = read_head(reader, HEAD_LEN)?;
    let mut content = Content { size, ..Content::of_head(&head) };
    let wanted = match names {
        _ if size > WHOLE_MAX => Wanted::default(),
        Names::One => wanted(path),
        Names::Any => wanted_by_any_name(path, &head),
    };
    if !wanted.is_whole() {
        return Ok(content);
    }
    let mut hash = wanted.sha256.then(Sha256::new);
    let mut search = wanted.module_release.then(ReleaseSearch::default);
    let mut rest = head.as_slice().chain(reader).take(WHOLE_MAX);
    pieces(&mut rest, &mut |piece| {
        if let Some(hash) = &mut hash {
            hash.update(piece);
        }
        if let Some(search) = &mut search {
            search.add(piece);
        }
    })?;
    content.sha256 = hash.map(|hash| hash.finalize().into());
    content.module_release = search.and_then(ReleaseSearch::finish);
    Ok(content)
}

/// The first bytes, at most `len`.
fn read_head(reader: &mut dyn Read, len: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(u64::try_from(len).unwrap_or(u64::MAX)).read_to_end(&mut head)?;
    Ok(head)
}

fn pieces(reader: &mut dyn Read, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => each(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_hashed_whole_and_a_module_searched_whole() {
        let bytes = vec![7_u8; 200_000];
        let one = |path: &str, size: u64, mut bytes: &[u8]| {
            probe(path, size, Names::One, &mut bytes).unwrap()
        };
        let expected: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(one("boot/bzImage", 200_000, &bytes).sha256, Some(expected));
        assert_eq!(one("usr/bzImage", 200_000, &bytes).sha256, None);
        let any = probe("usr/x", 200_000, Names::Any, &mut bytes.as_slice()).unwrap();
        assert_eq!(any.sha256, Some(expected));
        let huge = probe("boot/x", WHOLE_MAX + 1, Names::Any, &mut bytes.as_slice()).unwrap();
        assert_eq!(huge.sha256, None);
        let mut module = bytes;
        module.extend(b"vermagic=6.1.0 SMP\0");
        let content = one("lib/modules/6.1.0/a.ko", 0, &module);
        assert_eq!(content.module_release.as_deref(), Some("6.1.0"));
        assert_eq!(content.sha256, None);
    }
}
