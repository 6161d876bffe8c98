//! Copies the content of a file without reading it into this process. Holes remain holes.

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;

/// How much one system call copies, so that the caller's question is asked now and then.
const PIECE: usize = 8 * 1024 * 1024;

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    Whole,
    /// The caller wanted it to end.
    InPart,
}

/// The system call that copies.
#[derive(Clone, Copy)]
enum CopyCall {
    /// The filesystem may share blocks or copy by itself. From an overlay to the filesystem below it, the kernel
    /// refuses (EXDEV).
    CopyFileRange,
    Sendfile,
}

/// Copies `from` into the empty file `to`. `is_interrupted` is asked before each piece.
pub(crate) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    is_interrupted: &dyn Fn() -> bool,
) -> io::Result<Copied> {
    let len = u64::try_from(rustix::fs::fstat(from)?.st_size).unwrap_or_default();
    let (mut call, mut at) = (CopyCall::CopyFileRange, 0);
    while let Some((start, end)) = next_data(from, at, len)? {
        at = start;
        while at < end {
            if is_interrupted() {
                return Ok(Copied::InPart);
            }
            let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            at += copy_piece(from, to, at, piece, &mut call)?;
        }
    }
    // A hole at the end.
    rustix::fs::ftruncate(to, len)?;
    Ok(Copied::Whole)
}

/// The next part of a file from `at` on that is not a hole.
fn next_data(file: BorrowedFd<'_>, at: u64, len: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that does not know its holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, len))),
        found => found?,
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok((start < len).then_some((start, end.min(len))))
}

/// Copies up to `len` bytes at the offset `at`; how many.
fn copy_piece(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    at: u64,
    len: usize,
    call: &mut CopyCall,
) -> io::Result<u64> {
    loop {
        let (mut read_at, mut write_at) = (at, at);
        let copied = match call {
            CopyCall::CopyFileRange => {
                rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), len)
            }
            CopyCall::Sendfile => {
                rustix::fs::seek(to, SeekFrom::Start(at))?;
                rustix::fs::sendfile(to, from, Some(&mut read_at), len)
            }
        };
        match (copied, *call) {
            (Err(Errno::INTR), _) => {}
            // Some filesystems return 0 instead of an error. If the reason is another one, the second call has it too.
            (Ok(0) | Err(_), CopyCall::CopyFileRange) => *call = CopyCall::Sendfile,
            (Ok(0), CopyCall::Sendfile) => {
                return Err(io::Error::other("the file became shorter while it was copied"));
            }
            (Err(error), CopyCall::Sendfile) => return Err(error.into()),
            (Ok(copied), _) => return Ok(u64::try_from(copied).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    fn copied(from: &File) -> File {
        let to = tempfile::tempfile().unwrap();
        assert_eq!(copy(from.as_fd(), to.as_fd(), &|| false).unwrap(), Copied::Whole);
        to
    }

    fn read(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_content_is_the_same_and_holes_take_no_space() {
        let mut from = tempfile::tempfile().unwrap();
        let block = vec![7; 3 * 1024 * 1024];
        from.write_all(&block).unwrap();
        from.seek(io::SeekFrom::Start(64 << 20)).unwrap();
        from.write_all(b"middle").unwrap();
        from.set_len(128 << 20).unwrap();
        let to = copied(&from);
        let blocks = |file: &File| file.metadata().unwrap().blocks();
        assert!(blocks(&from) < 10_000, "the filesystem of the test has no holes");
        assert!(blocks(&to) <= blocks(&from) + 64, "{} {}", blocks(&from), blocks(&to));
        assert!(read(to) == read(from));
    }

    #[test]
    fn empty_files_files_of_holes_and_files_of_other_filesystems_are_copied() {
        let empty = tempfile::tempfile().unwrap();
        assert!(read(copied(&empty)).is_empty());
        empty.set_len(100_000).unwrap();
        assert!(read(copied(&empty)) == vec![0; 100_000]);
        let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut memory = File::from(memory);
        memory.write_all(b"in memory").unwrap();
        assert_eq!(read(copied(&memory)), b"in memory");
    }

    #[test]
    fn an_interrupted_copy_says_so() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all(b"x").unwrap();
        let to = tempfile::tempfile().unwrap();
        assert_eq!(copy(from.as_fd(), to.as_fd(), &|| true).unwrap(), Copied::InPart);
    }
}
