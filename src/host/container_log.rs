//! The container's own log, which `docker logs` shows: where the proxy's standard output and error
//! lead. Writing never blocks: while `create` runs nobody reads the engine's pipes, so a hook that
//! prints more than they hold would hang the engine for ever.

use crate::host::process::Process;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::PidfdGetfdFlags;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What is written at once into pipes of the usual 64 KiB before they are enlarged.
const HEAD: usize = 16 * 1024;
/// The size asked for when a hook prints more, the most the kernel grants (pipe(7)).
const ENLARGED: usize = 1024 * 1024;
/// What is written at once into an enlarged pipe. Small writes fill its pages by half only.
const ENLARGED_HEAD: usize = 480 * 1024;
/// What is kept of the end, to follow the head.
const TAIL: usize = 20 * 1024;
/// What may wait for a reader that is there but slow.
const BACKLOG: usize = 1024 * 1024;
/// How long a slow reader may take for the rest when the hook has ended.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// Both streams.
pub(crate) struct ContainerLog {
    pub(crate) out: Stream,
    pub(crate) err: Stream,
}

/// Whether somebody reads while a hook prints.
#[derive(Clone, Copy)]
enum Reader {
    /// Nobody before `create` has returned: the beginning and the end of the output are kept.
    Later,
    /// Yes: all of it goes out.
    Now,
}

/// One stream of the container's log.
pub(crate) struct Stream {
    writer: Option<Writer>,
    reader: Reader,
    pending: VecDeque<u8>,
    /// How many bytes may still be written at once.
    budget: usize,
    dropped: usize,
}

enum Writer {
    /// A description of its own, non-blocking without an effect on the engine's.
    Opened(OwnedFd),
    /// A file shares its position with whoever else writes it, and never blocks.
    File(OwnedFd),
    /// A socket cannot be opened again; its own flag makes each write non-blocking.
    Socket(OwnedFd),
}

impl ContainerLog {
    /// The log of the container that `create` is making: its own output, or the container's pty.
    pub(crate) fn of_this_process(pty: Option<BorrowedFd<'_>>) -> Self {
        let stream = |number: u8, own: BorrowedFd<'_>| {
            let duplicate = || rustix::io::fcntl_dupfd_cloexec(pty.unwrap_or(own), 0);
            let path = match pty {
                Some(pty) => format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pty)),
                None => format!("/proc/self/fd/{number}"),
            };
            Stream::new(open(&path, duplicate), Reader::Later)
        };
        Self { out: stream(1, io::stdout().as_fd()), err: stream(2, io::stderr().as_fd()) }
    }

    /// The log of a container whose proxy waits.
    pub(crate) fn of_proxy(proxy: &Process) -> Self {
        let stream = |number: i32| {
            let path = format!("/proc/{}/fd/{number}", proxy.pid());
            let duplicate =
                || rustix::process::pidfd_getfd(proxy, number, PidfdGetfdFlags::empty());
            Stream::new(open(&path, duplicate), Reader::Now)
        };
        Self { out: stream(1), err: stream(2) }
    }

    /// No log: what is written is dropped.
    pub(crate) fn nowhere() -> Self {
        Self { out: Stream::new(None, Reader::Now), err: Stream::new(None, Reader::Now) }
    }

    /// Writes what is left, with a note where something had to be left out.
    pub(crate) fn finish(&mut self) {
        self.out.finish();
        self.err.finish();
    }
}

fn open(path: &str, duplicate: impl Fn() -> rustix::io::Result<OwnedFd>) -> Option<Writer> {
    match FileType::from_raw_mode(rustix::fs::stat(path).ok()?.st_mode) {
        FileType::RegularFile => Some(Writer::File(duplicate().ok()?)),
        // It cannot be opened again.
        FileType::Socket => Some(Writer::Socket(duplicate().ok()?)),
        FileType::Fifo
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Directory
        | FileType::Symlink
        | FileType::Unknown => {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).ok().map(Writer::Opened)
        }
    }
}

impl Stream {
    fn new(writer: Option<Writer>, reader: Reader) -> Self {
        let budget = match (reader, &writer) {
            // Nobody has to read a file for it to take more.
            (Reader::Now, _) | (Reader::Later, Some(Writer::File(_))) => usize::MAX,
            (Reader::Later, Some(Writer::Opened(_) | Writer::Socket(_)) | None) => HEAD,
        };
        Self { writer, reader, pending: VecDeque::new(), budget, dropped: 0 }
    }

    /// Whether output waits for a reader that is there.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.writer.is_some() && !self.pending.is_empty() && self.budget > 0
    }

    /// The descriptor to poll for writing.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self.writer.as_ref()? {
            Writer::Opened(descriptor) | Writer::File(descriptor) | Writer::Socket(descriptor) => {
                Some(descriptor.as_fd())
            }
        }
    }

    /// Takes output and writes what can be written now.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.writer.is_none() {
            return;
        }
        self.pending.extend(bytes);
        self.pump();
        let room = match self.reader {
            Reader::Later => TAIL,
            Reader::Now => BACKLOG,
        };
        let excess = self.pending.len().saturating_sub(room);
        self.pending.drain(..excess);
        self.dropped += excess;
    }

    /// Writes what can be written now.
    pub(crate) fn pump(&mut self) {
        // Behind a gap, only the end of the output follows: `finish` writes it.
        while !self.pending.is_empty() && self.dropped == 0 {
            if self.budget == 0 && !self.enlarge() {
                return;
            }
            match self.write_some() {
                Some(written) if written > 0 => self.budget -= written.min(self.budget),
                _ => return,
            }
        }
    }

    /// Makes room once for more than the pipe's usual size.
    fn enlarge(&mut self) -> bool {
        let Some(Writer::Opened(descriptor)) = &self.writer else { return false };
        let size = rustix::pipe::fcntl_getpipe_size(descriptor);
        if size.is_ok_and(|size| size < ENLARGED)
            && rustix::pipe::fcntl_setpipe_size(descriptor, ENLARGED).is_ok()
        {
            self.budget = ENLARGED_HEAD;
            return true;
        }
        false
    }

    /// The number of bytes written; `None` when nothing can be written now or ever.
    fn write_some(&mut self) -> Option<usize> {
        let (front, _) = self.pending.as_slices();
        let chunk = front.get(..front.len().min(self.budget.max(TAIL)))?;
        let result = match self.writer.as_ref()? {
            Writer::Opened(descriptor) | Writer::File(descriptor) => {
                rustix::io::write(descriptor, chunk)
            }
            Writer::Socket(descriptor) => {
                rustix::net::send(descriptor, chunk, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
        };
        match result {
            Ok(written) => {
                self.pending.drain(..written);
                Some(written)
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(_) => {
                // The reader has gone away.
                self.writer = None;
                self.pending.clear();
                None
            }
        }
    }

    fn finish(&mut self) {
        if self.dropped > 0 {
            let note = format!("\n[{} bytes of output left out]\n", self.dropped);
            for byte in note.into_bytes().into_iter().rev() {
                self.pending.push_front(byte);
            }
            self.dropped = 0;
        }
        let patience = match self.reader {
            Reader::Later => Duration::ZERO,
            Reader::Now => PATIENCE,
        };
        let mut deadline = Instant::now() + patience;
        while self.writer.is_some() && !self.pending.is_empty() {
            if self.write_some().is_some() {
                deadline = Instant::now() + patience;
            } else if Instant::now() >= deadline {
                break;
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn pipe(reader: Reader) -> (std::fs::File, Stream) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write));
        let stream = Stream::new(open(&path, || Err(Errno::NXIO)), reader);
        drop(write);
        (read.into(), stream)
    }

    fn read_all(mut read: std::fs::File, stream: Stream) -> Vec<u8> {
        drop(stream);
        let mut bytes = Vec::new();
        read.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_little_output_arrives_as_it_is() {
        let (read, mut stream) = pipe(Reader::Later);
        stream.push(b"one\n");
        stream.push(b"two\n");
        stream.finish();
        assert_eq!(read_all(read, stream), b"one\ntwo\n");
    }

    #[test]
    fn of_megabytes_that_nobody_reads_the_beginning_and_the_end_are_kept_without_blocking() {
        for chunk in [1, 100, 65_536] {
            let (read, mut stream) = pipe(Reader::Later);
            let output: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
            let output = &output[..2_000_000];
            output.chunks(chunk).for_each(|chunk| stream.push(chunk));
            stream.finish();
            let seen = read_all(read, stream);
            assert!(seen.starts_with(&output[..HEAD]), "chunks of {chunk}");
            assert!(seen.ends_with(&output[output.len() - TAIL..]), "chunks of {chunk}");
            let text = String::from_utf8_lossy(&seen);
            assert!(text.contains("bytes of output left out]"), "chunks of {chunk}");
        }
    }

    #[test]
    fn with_a_reader_nothing_is_left_out() {
        let (read, mut stream) = pipe(Reader::Now);
        let output: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let expected = output.clone();
        let reader = std::thread::spawn(move || {
            let (mut read, mut bytes) = (read, Vec::new());
            read.read_to_end(&mut bytes).map(|_| bytes).unwrap()
        });
        output.chunks(10_000).for_each(|chunk| stream.push(chunk));
        stream.finish();
        drop(stream);
        assert!(reader.join().unwrap() == expected);
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_error() {
        let (read, mut stream) = pipe(Reader::Now);
        drop(read);
        stream.push(b"x");
        stream.push(b"y");
        stream.finish();
        assert!(!stream.wants_to_write());
    }
}
