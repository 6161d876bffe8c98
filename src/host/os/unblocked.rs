//! Writes to a stream whose reader may be slow or may never read, with a limit on the wait. `O_NONBLOCK` belongs to
//! the open file, which other processes share, so it is never set on an inherited stream. Instead the stream is opened
//! again if possible.

use crate::host::os::process;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A pipe that poll(2) reports as writable takes this much at once (`PIPE_BUF` of pipe(7)).
const PIPE_BUF: usize = 4096;

/// A stream on which [`Writer::write`] never blocks.
pub(crate) enum Writer {
    /// An open file of our own, so that `O_NONBLOCK` affects nobody else.
    Opened(OwnedFd),
    /// A regular file, which never blocks. It is not opened again, because all writers share its position.
    File(Stream),
    /// A socket cannot be opened again, but send(2) has a flag against blocking.
    Socket(Stream),
    /// A stream that could not be opened again, without `/proc` or permission. It is written in small pieces when
    /// poll(2) reports room.
    Shared(Stream),
}

/// An inherited stream: a duplicate, or standard output or standard error itself.
pub(crate) type Stream = Box<dyn AsFd + Send>;

impl Writer {
    /// A writer for standard output or standard error; `None` if it is closed. The stream is not duplicated, because
    /// there may be no descriptor left.
    pub(crate) fn standard(stream: BorrowedFd<'static>) -> Option<Self> {
        Self::own(stream, || Ok(Box::new(stream)))
    }

    /// A writer for another of this process's streams; `None` if it is closed, or if there is no descriptor left.
    pub(crate) fn of(stream: BorrowedFd<'_>) -> Option<Self> {
        Self::own(stream, || Ok(Box::new(rustix::io::fcntl_dupfd_cloexec(stream, 0)?)))
    }

    fn own(stream: BorrowedFd<'_>, keep: impl Fn() -> rustix::io::Result<Stream>) -> Option<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(stream).ok()?.st_mode);
        Self::by(kind, &format!("/proc/self/fd/{}", stream.as_raw_fd()), keep).ok()
    }

    /// A writer for the stream at `path` below `/proc`; `duplicate` makes another descriptor of it.
    pub(crate) fn at(
        path: &str,
        duplicate: impl Fn() -> rustix::io::Result<OwnedFd>,
    ) -> rustix::io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::stat(path)?.st_mode);
        Self::by(kind, path, || Ok(Box::new(duplicate()?)))
    }

    fn by(
        kind: FileType,
        path: &str,
        keep: impl Fn() -> rustix::io::Result<Stream>,
    ) -> rustix::io::Result<Self> {
        if kind == FileType::RegularFile {
            return keep().map(Self::File);
        }
        if kind == FileType::Socket {
            return keep().map(Self::Socket);
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(own) => Ok(Self::Opened(own)),
            Err(error) => keep().map(Self::Shared).map_err(|_| error),
        }
    }

    /// Writes as much as there is room for. The error is EAGAIN if there is none at all.
    pub(crate) fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Opened(stream) => rustix::io::write(stream, bytes),
            Self::File(stream) => rustix::io::write(stream, bytes),
            Self::Socket(stream) => {
                rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
            Self::Shared(stream) => {
                let mut room = [PollFd::new(stream, PollFlags::OUT)];
                match process::poll(&mut room, Duration::ZERO) {
                    Ok(0) => Err(Errno::AGAIN),
                    Ok(_) => {
                        let piece = bytes.get(..PIPE_BUF).unwrap_or(bytes);
                        rustix::io::write(stream, piece)
                    }
                    Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                }
            }
        }
    }

    /// Writes all of `bytes`. While there is no room it waits, at most for `patience`, and subtracts the time that it
    /// has waited. The error is EAGAIN if the reader has taken too long. After an error part of `bytes` may have been
    /// written.
    pub(crate) fn write_all(&self, bytes: &[u8], patience: &mut Duration) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !patience.is_zero() => self.wait_for_room(patience)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn wait_for_room(&self, patience: &mut Duration) -> io::Result<()> {
        let begun = Instant::now();
        process::poll(&mut [PollFd::new(self, PollFlags::OUT)], *patience)?;
        *patience = patience.saturating_sub(begun.elapsed());
        Ok(())
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Opened(stream) => stream.as_fd(),
            Self::File(stream) | Self::Socket(stream) | Self::Shared(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    const PATIENCE: Duration = Duration::from_millis(100);

    fn is_given_up(writer: &Writer) {
        let (begun, mut patience) = (Instant::now(), PATIENCE);
        let error = writer.write_all(&[b'x'; 4 * 1024 * 1024], &mut patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(patience.is_zero() && begun.elapsed() >= PATIENCE);
        assert!(begun.elapsed() < 50 * PATIENCE, "{:?}", begun.elapsed());
        // No time is left for a second piece.
        assert!(writer.write_all(b"x", &mut patience).is_err());
    }

    #[test]
    fn a_reader_that_never_reads_is_not_waited_for_and_nobody_elses_flags_change() {
        let (_read, pipe) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        is_given_up(&Writer::of(pipe.as_fd()).unwrap());
        assert!(!rustix::fs::fcntl_getfl(&pipe).unwrap().contains(OFlags::NONBLOCK));
        let (_read, pipe) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        is_given_up(&Writer::Shared(Box::new(pipe)));
        let (_peer, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        is_given_up(&Writer::of(socket.as_fd()).unwrap());
    }

    #[test]
    fn a_slow_reader_gets_all_of_it() {
        let (read, pipe) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let reader = std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut std::fs::File::from(read), &mut bytes).unwrap();
            bytes.len()
        });
        let writer = Writer::of(pipe.as_fd()).unwrap();
        drop(pipe);
        writer.write_all(&[b'x'; 300_000], &mut Duration::from_secs(60)).unwrap();
        drop(writer);
        assert_eq!(reader.join().unwrap(), 300_000);
    }
}
