//! Reads files with a limit on their size.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest document that is read, in bytes. Real documents have about ten thousand.
const MAX_LEN: u64 = 16 * 1024 * 1024;

/// Reads a regular file of limited size. A FIFO or a device is refused at once.
///
/// # Errors
/// The file cannot be opened, is not a regular file, or is larger than the limit.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    read_bounded_from(&File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// The same for an open file.
///
/// # Errors
/// It is not a regular file, or is larger than the limit.
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
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
    file.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_LEN {
        return Err(io::Error::other(format!("it has more than {MAX_LEN} bytes")));
    }
    Ok(bytes)
}

/// The same for an optional file; `None` if it is missing.
///
/// # Errors
/// The file exists but cannot be read.
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
