//! Readers of what `check` is given: a folder, an archive, the root of a host. They list; what the
//! listing means is decided in `model/check`, and what an archive's documents say in `model/image.rs`.

pub(crate) mod archive;
pub(crate) mod folder;
pub(crate) mod stream;

use crate::model::check::content::{HEAD_LEN, ReleaseSearch, Wanted, wanted};
use crate::model::check::tree::Content;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
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

/// Reads as much of the file at `path` as the rules need. What is left stays in `reader`.
fn probe(path: &str, size: u64, reader: &mut dyn Read) -> io::Result<Content> {
    let head = read_head(reader, HEAD_LEN)?;
    let mut content = Content { size, ..Content::of_head(&head) };
    let mut rest = head.as_slice().chain(reader).take(WHOLE_MAX);
    match wanted_whole(path, size) {
        Wanted::Head => {}
        Wanted::Sha256 => {
            let mut hash = Sha256::new();
            pieces(&mut rest, &mut |piece| hash.update(piece))?;
            let mut text = String::new();
            for byte in hash.finalize() {
                // A formatter into a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            content.sha256 = Some(text);
        }
        Wanted::ModuleRelease => {
            let mut search = ReleaseSearch::default();
            pieces(&mut rest, &mut |piece| search.add(piece))?;
            content.module_release = search.finish();
        }
    }
    Ok(content)
}

/// What is wanted of a file of this size.
fn wanted_whole(path: &str, size: u64) -> Wanted {
    if size > WHOLE_MAX { Wanted::Head } else { wanted(path) }
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
        let content = probe("boot/bzImage", 200_000, &mut bytes.as_slice()).unwrap();
        // sha256sum of 200,000 bytes of 7.
        let expected = {
            let digest = Sha256::digest(&bytes);
            digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(content.sha256.unwrap(), expected);
        let empty = probe("boot/x", 0, &mut &b""[..]).unwrap().sha256.unwrap();
        assert_eq!(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let mut module = bytes;
        module.extend(b"vermagic=6.1.0 SMP\0");
        let content = probe("lib/modules/6.1.0/a.ko", 0, &mut module.as_slice()).unwrap();
        assert_eq!(content.module_release.as_deref(), Some("6.1.0"));
        assert_eq!(content.sha256, None);
    }
}
