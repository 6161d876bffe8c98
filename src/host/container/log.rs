//! The container's own log, which `docker logs` shows: the proxy's standard output and standard error. Writing never
//! blocks: while `create` runs no program reads the engine's pipes, so a hook that prints more than they hold would hang
//! the engine for ever.

use crate::host::os::process::Process;
use crate::host::os::unblocked::Writer;
use rustix::io::Errno;
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use rustix::process::PidfdGetfdFlags;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

/// How many bytes are written at once into a pipe of the usual 64 KiB before it is enlarged.
const HEAD: usize = 16 * 1024;
/// The size asked for when a hook prints more, the most the kernel grants (pipe(7)).
const ENLARGED: usize = 1024 * 1024;
/// How many bytes are written at once into an enlarged pipe. Small writes fill its pages only by half.
const ENLARGED_HEAD: usize = 480 * 1024;
/// How many bytes of the end are kept, to follow the beginning.
const TAIL: usize = 20 * 1024;
/// How many bytes may wait for a slow reader.
const BACKLOG: usize = 1024 * 1024;
/// How long a reader may read nothing of the rest after the hook has exited.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a reader that reads a little at a time may take for all of it. After that only the end is written.
const HASTE: Duration = Duration::from_secs(2);
/// How long it may take in all: the container is locked meanwhile.
const FINISH_LIMIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(1);

/// Both streams.
pub(crate) struct ContainerLog {
    pub(crate) out: LogStream,
    pub(crate) err: LogStream,
}

/// Whether a program reads while a hook prints.
#[derive(Clone, Copy)]
pub(crate) enum Reader {
    /// No program reads before `create` has returned: the beginning and the end of the output are kept.
    Later,
    /// A program reads: all of the output is written.
    Now,
}

/// One stream of the container's log.
pub(crate) struct LogStream {
    writer: Option<Writer>,
    reader: Reader,
    /// The rest of a note that stands for a gap; what is pending follows it.
    note: Vec<u8>,
    pending: VecDeque<u8>,
    /// How many bytes may still be written at once.
    budget: usize,
    /// How many bytes are missing before the pending ones, without a note about them yet.
    dropped: usize,
}

impl ContainerLog {
    /// The log of the container that `create` is making: its own output, or the container's pty.
    pub(crate) fn of_this_process(pty: Option<BorrowedFd<'_>>, reader: Reader) -> Self {
        let stream = |own| LogStream::new(Writer::of(pty.unwrap_or(own)), reader);
        Self { out: stream(io::stdout().as_fd()), err: stream(io::stderr().as_fd()) }
    }

    /// The log of a container whose proxy waits, and why one of its streams cannot be opened, unless the reason is
    /// that no program reads it any more.
    pub(crate) fn of_proxy(proxy: &Process) -> (Self, Option<io::Error>) {
        let mut lost = None;
        let mut stream = |number: i32| {
            let path = format!("/proc/{}/fd/{number}", proxy.pid());
            let duplicate =
                || rustix::process::pidfd_getfd(proxy, number, PidfdGetfdFlags::empty());
            let writer = match Writer::at(&path, duplicate) {
                Ok(writer) => Some(writer),
                // A pipe without a reader, a terminal that was hung up, a proxy that has ended.
                Err(Errno::NXIO | Errno::IO | Errno::NOENT | Errno::SRCH) => None,
                Err(error) => {
                    lost = Some(error.into());
                    None
                }
            };
            LogStream::new(writer, Reader::Now)
        };
        (Self { out: stream(1), err: stream(2) }, lost)
    }

    /// The standard output of this process, for both streams.
    pub(crate) fn of_caller() -> Self {
        let stream = || LogStream::new(Writer::of(io::stdout().as_fd()), Reader::Now);
        Self { out: stream(), err: stream() }
    }

    /// No log: what is written is dropped.
    pub(crate) fn nowhere() -> Self {
        Self { out: LogStream::new(None, Reader::Now), err: LogStream::new(None, Reader::Now) }
    }

    /// Writes a line of the runtime itself for the readers of the container's log.
    pub(crate) fn say(&mut self, line: &str) {
        self.err.push(format!("{line}\n").as_bytes());
        self.finish();
    }

    /// Writes the rest, with a note where output had to be left out. A reader has limited time, even if it reads a
    /// little now and then.
    pub(crate) fn finish(&mut self) {
        let begun = Instant::now();
        let mut progress = begun;
        let Self { out, err } = self;
        let patience = match (out.reader, err.reader) {
            (Reader::Later, Reader::Later) => Duration::ZERO,
            (Reader::Now, _) | (_, Reader::Now) => PATIENCE,
        };
        while out.has_more() || err.has_more() {
            // Both, neither waits for the other.
            let written = [out.write_some(), err.write_some()];
            let now = Instant::now();
            if written.iter().flatten().any(|&bytes| bytes > 0) {
                progress = now;
            } else if now >= progress + patience {
                break;
            } else {
                std::thread::sleep(PAUSE);
            }
            if now >= begun + FINISH_LIMIT {
                break;
            }
            if now >= begun + HASTE {
                out.keep(TAIL);
                err.keep(TAIL);
            }
        }
        out.forget();
        err.forget();
    }
}

impl LogStream {
    fn new(writer: Option<Writer>, reader: Reader) -> Self {
        let budget = match (reader, &writer) {
            // A file takes any number of bytes without a reader.
            (Reader::Now, _) | (_, Some(Writer::File(_))) => usize::MAX,
            (Reader::Later, _) => HEAD,
        };
        Self { writer, reader, note: Vec::new(), pending: VecDeque::new(), budget, dropped: 0 }
    }

    /// Whether [`Self::pump`] would write as soon as there is room. A caller that polls for room without writing never
    /// sleeps.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.has_more() && self.may_write() && self.budget > 0
    }

    /// Whether there is anything left to write, and somewhere to write it.
    fn has_more(&self) -> bool {
        let anything = !self.pending.is_empty() || !self.note.is_empty() || self.dropped > 0;
        self.writer.is_some() && anything
    }

    /// Whether the pending output may be written before the hook has exited. After a gap that no reader could prevent,
    /// only the end of the output follows, which `finish` writes.
    fn may_write(&self) -> bool {
        match self.reader {
            Reader::Later => self.dropped == 0,
            Reader::Now => true,
        }
    }

    /// The descriptor to poll for writing.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.writer.as_ref().map(Writer::as_fd)
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
        self.keep(room);
    }

    /// Drops the pending output except its last `room` bytes.
    fn keep(&mut self, room: usize) {
        let excess = self.pending.len().saturating_sub(room);
        self.pending.drain(..excess);
        self.dropped += excess;
    }

    fn forget(&mut self) {
        self.note.clear();
        self.pending.clear();
        self.dropped = 0;
    }

    /// Writes what can be written now.
    pub(crate) fn pump(&mut self) {
        while self.has_more() && self.may_write() {
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
        let Some(Writer::Opened(pipe)) = &self.writer else { return false };
        let is_small = fcntl_getpipe_size(pipe).is_ok_and(|size| size < ENLARGED);
        let is_enlarged = is_small && fcntl_setpipe_size(pipe, ENLARGED).is_ok();
        if is_enlarged {
            self.budget = ENLARGED_HEAD;
        }
        is_enlarged
    }

    /// The number of bytes written; `None` when nothing can be written now or ever.
    fn write_some(&mut self) -> Option<usize> {
        let writer = self.writer.as_ref()?;
        // A note counts what is missing at the moment when there is room for it.
        let is_new = self.note.is_empty() && self.dropped > 0;
        if is_new {
            self.note = format!("\n[{} bytes of output left out]\n", self.dropped).into_bytes();
        }
        let is_note = !self.note.is_empty();
        let (front, _) = self.pending.as_slices();
        let chunk = front.get(..front.len().min(self.budget.max(TAIL)))?;
        let bytes = if is_note { self.note.as_slice() } else { chunk };
        if bytes.is_empty() {
            return None;
        }
        match writer.write(bytes) {
            Ok(written) => {
                if is_new {
                    self.dropped = 0;
                }
                if is_note {
                    self.note.drain(..written);
                } else {
                    self.pending.drain(..written);
                }
                Some(written)
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                if is_new {
                    self.note.clear();
                }
                None
            }
            Err(_) => {
                // The reader has closed it.
                self.writer = None;
                self.forget();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn pipe(reader: Reader) -> (std::fs::File, LogStream) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stream = LogStream::new(Writer::of(write.as_fd()), reader);
        drop(write);
        (read.into(), stream)
    }

    fn finish(stream: LogStream) -> LogStream {
        let mut log = ContainerLog { out: stream, err: LogStream::new(None, Reader::Now) };
        log.finish();
        log.out
    }

    fn read_all(mut read: std::fs::File, stream: LogStream) -> Vec<u8> {
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
        assert_eq!(read_all(read, finish(stream)), b"one\ntwo\n");
    }

    #[test]
    fn of_megabytes_that_nobody_reads_the_beginning_and_the_end_are_kept_without_blocking() {
        for chunk in [1, 100, 65_536] {
            let (read, mut stream) = pipe(Reader::Later);
            let output: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
            let output = &output[..2_000_000];
            output.chunks(chunk).for_each(|chunk| stream.push(chunk));
            let seen = read_all(read, finish(stream));
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
        drop(finish(stream));
        assert!(reader.join().unwrap() == expected);
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_error() {
        let (read, mut stream) = pipe(Reader::Now);
        drop(read);
        stream.push(b"x");
        stream.push(b"y");
        assert!(!finish(stream).wants_to_write());
    }

    #[test]
    fn behind_a_gap_output_goes_on_with_a_note_as_soon_as_there_is_room() {
        let (mut read, mut stream) = pipe(Reader::Now);
        stream.push(&vec![b'x'; 3 * BACKLOG]);
        let mut seen = Vec::new();
        let mut make_room = || {
            let mut bytes = [0; 4096];
            read.read_exact(&mut bytes).unwrap();
            seen.extend(bytes);
        };
        // The reader gets a note about the gap, and the output after it, before the hook has exited.
        while stream.wants_to_write() {
            make_room();
            stream.pump();
        }
        make_room();
        stream.push(b"after\n");
        assert!(!stream.wants_to_write(), "there is nothing to wait for any more");
        seen.extend(read_all(read, stream));
        let text = String::from_utf8(seen).unwrap();
        assert!(text.ends_with("xafter\n"));
        assert_eq!(text.matches("bytes of output left out]\n").count(), 1);
        let note = text.lines().nth(1).unwrap();
        let missing: usize =
            note.trim_start_matches('[').split(' ').next().unwrap().parse().unwrap();
        let arrived = text.bytes().filter(|&byte| byte == b'x').count();
        assert_eq!(arrived + missing, 3 * BACKLOG, "{note}");
    }

    #[test]
    fn a_stream_that_nobody_reads_yet_is_not_waited_for() {
        let (_read, mut stream) = pipe(Reader::Later);
        // A pipe that was nearly full before, or a terminal, holds less than what is written at once.
        stream.pending.extend(vec![b'x'; TAIL]);
        stream.keep(TAIL - 1);
        assert!(!stream.wants_to_write());
    }

    #[test]
    fn a_reader_that_takes_a_little_at_a_time_gets_the_end() {
        let (read, mut stream) = pipe(Reader::Now);
        stream.push(&vec![b'x'; BACKLOG]);
        stream.push(b"the end\n");
        let reader = std::thread::spawn(move || {
            let (mut read, mut seen, mut bytes) = (read, Vec::new(), [0; 4096]);
            loop {
                match read.read(&mut bytes).unwrap() {
                    0 => return String::from_utf8(seen).unwrap(),
                    len => seen.extend(&bytes[..len]),
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let begun = Instant::now();
        drop(finish(stream));
        assert!(begun.elapsed() < FINISH_LIMIT + PATIENCE, "{:?}", begun.elapsed());
        let seen = reader.join().unwrap();
        assert!(seen.ends_with("the end\n") && seen.contains("bytes of output left out]"));
    }
}
