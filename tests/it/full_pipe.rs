//! Streams that are open for reading but never read.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

/// A full pipe whose reader never reads.
pub(crate) struct Full {
    /// Kept open, since a pipe without a reader is broken.
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
}

impl Full {
    pub(crate) fn new() -> Self {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        fill(Path::new(&format!("/proc/self/fd/{}", write.as_raw_fd())));
        Self { read, write }
    }

    pub(crate) fn end(&self) -> Stdio {
        self.write.try_clone().unwrap().into()
    }
}

/// Fills a pipe or a FIFO that is open for reading.
pub(crate) fn fill(path: &Path) {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut file = File::options().write(true).custom_flags(flags).open(path).unwrap();
    while file.write(&[b'.'; 4096]).is_ok() {}
    assert!(file.write(b".").is_err(), "it is full to the last byte");
}
