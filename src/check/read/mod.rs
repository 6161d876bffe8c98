//! Reads the input of `check`: a directory, an archive, the root of a host. `check/rules` decides what a
//! listing means and interprets the documents of an archive.

pub(crate) mod directory;
pub(crate) mod archive;
pub(crate) mod saved;
pub(crate) mod tar_stream;
mod zstd;
mod assemble;

use crate::check::rules::content::{
    HEAD_LEN, ReleaseSearch, is_object, may_be_kernel, may_be_module,
};
use crate::check::rules::tree::Content;
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bounds the memory of a check: the files of one directory or archive.
const ENTRIES_MAX: usize = 1_000_000;
/// Larger files are not hashed or searched: no kernel or module is that large.
const WHOLE_MAX: u64 = 1024 * 1024 * 1024;
/// Bounds the time of a check: the bytes unpacked from one input. gzip packs 1000 bytes into one, and the
/// holes of a sparse file cost nothing.
const READ_MAX: u64 = 8 * WHOLE_MAX;

/// An input that exceeds a limit of `check`. A reader returns it inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverLimit {
    #[error("more than 8 GiB of data")]
    Data,
    #[error("a window of {bytes} bytes, and at most 100 MiB are supported")]
    Window { bytes: u64 },
}

/// The bytes that may still be read from one input and the archives inside it. Clones share them.
#[derive(Clone)]
pub(crate) struct Budget(Rc<Cell<u64>>);

impl Default for Budget {
    fn default() -> Self {
        Self::of(READ_MAX)
    }
}

impl Budget {
    pub(crate) fn of(bytes: u64) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    /// Passes on the bytes of `reader` until the budget is used up.
    fn counted<R: Read>(&self, reader: R) -> Counted<R> {
        Counted { reader, left: Rc::clone(&self.0) }
    }
}

struct Counted<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buffer)?;
        let left = self.left.get().checked_sub(u64::try_from(len).unwrap_or(u64::MAX));
        self.left.set(left.unwrap_or_default());
        left.map(|_| len).ok_or_else(|| io::Error::other(OverLimit::Data))
    }
}

/// Hashes the bytes that are read through it.
struct Hashed<R> {
    reader: R,
    hash: Sha256,
    is_empty: bool,
}

impl<R: Read> Hashed<R> {
    fn new(reader: R) -> Self {
        Self { reader, hash: Sha256::new(), is_empty: true }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buffer)?;
        self.hash.update(buffer.get(..len).unwrap_or_default());
        self.is_empty &= len == 0;
        Ok(len)
    }
}

/// The names that a file can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Only this one: a directory lists every name.
    One,
    /// A hard link further on in the archive may add names after the content has been read, so
    /// everything that a rule may need under any name is computed now.
    Any,
}

/// Reads as much of the file at `path` as the rules need and leaves the rest in `reader`.
fn probe(path: &str, size: u64, names: Names, reader: &mut dyn Read) -> io::Result<Content> {
    let head = read_head(reader, HEAD_LEN)?;
    let mut content = Content { size, ..Content::of_head(&head) };
    let is_any = names == Names::Any;
    let is_kernel = is_any || may_be_kernel(path);
    let is_module = may_be_module(path) || is_any && is_object(&head);
    if size > WHOLE_MAX || !is_kernel && !is_module {
        return Ok(content);
    }
    let mut hash = is_kernel.then(Sha256::new);
    let mut search = is_module.then(ReleaseSearch::default);
    let mut rest = head.as_slice().chain(reader).take(WHOLE_MAX);
    read_to_end(&mut rest, &mut |piece| {
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

/// Reads the first bytes, at most `len`.
fn read_head(reader: &mut dyn Read, len: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(u64::try_from(len).unwrap_or(u64::MAX)).read_to_end(&mut head)?;
    Ok(head)
}

fn read_to_end(reader: &mut dyn Read, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => each(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn skip_to_end(reader: &mut dyn Read) -> io::Result<()> {
    read_to_end(reader, &mut |_| ())
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

#[cfg(test)]
crate::golden_tests::errors! {
    enum OverLimit { Data, Window { bytes } }
}
