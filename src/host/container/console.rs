//! The container's terminal: a pty whose master is sent to the engine over the console socket, and whose slave is the
//! proxy's (runc's terminals.md, "detached"; pty(7), unix(7)).

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the engine may take to make room in its queue of connections. It need not accept ours.
const LIMIT: Duration = Duration::from_secs(5);

/// A failure around the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot create a pty for process.terminal")]
    Create { source: io::Error },
    #[error("cannot send the pty to the console socket {path:?}")]
    Send { path: PathBuf, source: io::Error },
    #[error(
        "cannot send the pty to the console socket {path:?}: its queue of connections has been full for {} s; does \
         the engine still accept any?", LIMIT.as_secs()
    )]
    Full { path: PathBuf },
}

/// Creates a pty of the given size, sends its master to the socket at `path`, and returns the slave.
/// It does not wait for an answer: containerd's shim accepts only after `create` has returned.
pub(crate) fn open(path: &Path, rows: u16, columns: u16) -> Result<OwnedFd, Error> {
    let (master, slave) = pair(rows, columns).map_err(|source| Error::Create { source })?;
    match send(&master, path) {
        Ok(()) => Ok(slave),
        Err(Errno::AGAIN) => Err(Error::Full { path: path.to_owned() }),
        Err(error) => Err(Error::Send { path: path.to_owned(), source: error.into() }),
    }
}

fn pair(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, Mode::empty())?;
    if rows > 0 && columns > 0 {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size)?;
    }
    Ok((master, slave))
}

/// One message with one descriptor; with no byte of data the descriptor would not be delivered. `EAGAIN`
/// means that the limit was over.
fn send(master: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // It limits connect(2) as well (unix(7), socket(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(LIMIT))?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    let descriptors = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let name = [IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(&socket, &name, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Create { source }, Send { path, source }, Full { path },
    }
}
