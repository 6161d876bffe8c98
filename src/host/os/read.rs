//! Reads files with a limit on their size.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest document that is read, in bytes. Real documents have about ten thousand.
const MAX_LEN: u64 = 16 * 1024 * 1024;

/// Reads a regular file of at most [`MAX_LEN`] bytes. A FIFO or a device is refused at once.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    read_bounded_from(&File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// The same for an open file.
pub(crate) fn read_bounded_from(file: &File) -> io::Result<Vec<u8>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let len = metadata.len();
    if len > MAX_LEN {
        let text = format!("it has {len} bytes, at most {MAX_LEN} are read");
        return Err(io::Error::other(text));
    }
    read_limited(file, len, MAX_LEN)
}

/// Reads a file of any kind to its end. Its length is `expected`, as far as that is known. A file of more than `limit`
/// bytes is an error (`FileTooLarge`), because a truncated one could be mistaken for a whole one.
pub(crate) fn read_limited(file: &File, expected: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    let len = file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(len).is_ok_and(|len| len <= limit) {
        return Ok(bytes);
    }
    let too_large = format!("it has more than {limit} bytes");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, too_large))
}

/// Like [`read_bounded`], but `None` if the file is missing.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_bounded(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                || error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_regular_file_of_sane_size_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let refused = |path: &Path| read_bounded(path).unwrap_err().to_string();
        std::fs::create_dir(&path).unwrap();
        assert!(refused(&path).contains("not a regular file"));
        std::fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(refused(&path).contains("not a regular file"));
        std::fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(MAX_LEN + 1).unwrap();
        assert!(refused(&path).contains("at most 16777216"));
    }
}
