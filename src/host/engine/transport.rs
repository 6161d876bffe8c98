//! The unix socket over which ureq speaks HTTP. Every wait ends at the request's deadline, and at once when a
//! signal comes.

use crate::host::os::signals::Stop;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
    socket_with,
};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// Pause between two attempts to connect to an engine whose queue of connections is full.
const PAUSE: Duration = Duration::from_millis(20);

/// A unix socket needs no address.
#[derive(Debug)]
pub(super) struct NoNames;

impl Resolver for NoNames {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Opens connections to the engine's socket.
#[derive(Debug)]
pub(super) struct UnixConnector {
    pub(super) socket: PathBuf,
    pub(super) stop: Arc<Stop>,
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<UnixTransport>, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(io::Error::from)?;
        let address = SocketAddrUnix::new(&self.socket).map_err(io::Error::from)?;
        let deadline = deadline(details.timeout);
        loop {
            match connect(&stream, &address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                // The queue is full (unix(7)): the engine is starting up, or hangs.
                Err(Errno::AGAIN) if Instant::now() < deadline => {
                    if self.stop.pause(PAUSE) {
                        return Err(stopped());
                    }
                }
                Err(Errno::AGAIN) => return Err(Error::Timeout(details.timeout.reason)),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        let stop = Arc::clone(&self.stop);
        Ok(Some(UnixTransport { stream, buffers, stop, asked: false }))
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct UnixTransport {
    stream: OwnedFd,
    buffers: LazyBuffers,
    stop: Arc<Stop>,
    /// Nothing has been read since a request was sent, so the answer cannot have arrived yet.
    asked: bool,
}

impl UnixTransport {
    /// Waits until the stream is ready for `what`.
    fn wait(&self, what: PollFlags, deadline: Instant, timeout: NextTimeout) -> Result<(), Error> {
        let mut descriptors =
            [PollFd::new(&self.stream, what), PollFd::new(&*self.stop, PollFlags::IN)];
        let left = deadline.saturating_duration_since(Instant::now());
        crate::host::os::process::poll(&mut descriptors, left)?;
        let [stream, stop] = &descriptors;
        if !stop.revents().is_empty() {
            return Err(stopped());
        }
        if stream.revents().is_empty() {
            return Err(Error::Timeout(timeout.reason));
        }
        Ok(())
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let deadline = deadline(timeout);
        self.asked = true;
        let mut sent = 0;
        while sent < amount {
            let rest = self.buffers.output().get(sent..amount).unwrap_or_default();
            match rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(len) => sent += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline, timeout)?,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let deadline = deadline(timeout);
        if std::mem::take(&mut self.asked) {
            self.wait(PollFlags::IN, deadline, timeout)?;
        }
        loop {
            let room = self.buffers.input_append_buf();
            match rustix::net::recv(&self.stream, room, RecvFlags::empty()) {
                Ok((len, _)) => {
                    self.buffers.input_appended(len);
                    return Ok(len > 0);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline, timeout)?,
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Whether the engine has kept the idle connection. A connection with unexpected bytes counts as closed.
    fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let peeked = rustix::net::recv(&self.stream, &mut byte[..], RecvFlags::PEEK);
        matches!(peeked, Err(Errno::AGAIN))
    }
}

/// The error of a request during which a signal came.
fn stopped() -> Error {
    io::Error::from(io::ErrorKind::Interrupted).into()
}

fn deadline(timeout: NextTimeout) -> Instant {
    /// For ureq's "never".
    const LONG: Duration = Duration::from_secs(24 * 60 * 60);
    Instant::now() + (*timeout.after).min(LONG)
}
