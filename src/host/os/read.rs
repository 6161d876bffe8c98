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
    read_limited(file, metadata.len(), MAX_LEN)
}

/// Reads a file of any kind to its end. Its length is `expected`, as far as that is known. A file of more than `limit`
/// bytes is an error (`FileTooLarge`), because a truncated one could be mistaken for a whole one. If that is known
/// beforehand, nothing is read.
pub(crate) fn read_limited(file: &File, expected: u64, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = |text: String| io::Error::new(io::ErrorKind::FileTooLarge, text);
    if expected > limit {
        return Err(too_large(format!("it has {expected} bytes, at most {limit} are read")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    let len = file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(len).is_ok_and(|len| len <= limit) {
        return Ok(bytes);
    }
    Err(too_large(format!("it has more than {limit} bytes")))
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
    use std::io::Seek as _;

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

    #[test]
    fn nothing_of_a_file_that_is_too_large_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let file = File::create_new(&path).unwrap();
        let limited = |expected: u64| {
            let file = File::open(&path).unwrap();
            let error = read_limited(&file, expected, 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
            (&file).stream_position().unwrap()
        };
        file.set_len(1000).unwrap();
        assert_eq!(limited(1000), 0);
        // One that grows meanwhile.
        assert_eq!(limited(5), 11);
    }
}
