//! Running one hook: with exactly its environment, within its limit, its output drained. What it may
//! be called and what its failure means is decided in `model/extension/hook.rs` and `model/container/exit.rs`.

use crate::host::container::attached;
use crate::host::container::guard::{self, Entering, Report};
use crate::host::container::log::{ContainerLog, Stream};
use crate::host::os::process;
use crate::host::os::reaper;
use crate::host::os::spawn::{Program, spawn};
use crate::model::container::exit::{Exit, quote};
use crate::model::container::proxy::PROGRAM;
use crate::model::text::phrase::respell;
use crate::model::text::system_call::{Refusal, explained};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::PipeFlags;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How much longer than the hook's limit its guard may take to kill everything and report.
const GUARD_GRACE: Duration = Duration::from_secs(10);
/// How long a guard that has closed its end of the socket pair may take to be gone.
const DEATH_LIMIT: Duration = Duration::from_millis(100);
/// How much of the output's end is kept for an error.
const KEPT: usize = 8 * 1024;
/// How much is still read when the hook has ended: a child it left behind may print for ever.
const DRAIN_MAX: usize = 4 * 1024 * 1024;

/// A hook to run.
pub(crate) struct Call<'a> {
    /// What messages call it: `hooks/start`, `hooks.prestart[0]`.
    pub(crate) name: &'a str,
    /// The program, absolute.
    pub(crate) path: &'a str,
    /// The whole argument vector.
    pub(crate) arguments: &'a [&'a str],
    /// The whole environment.
    pub(crate) environment: &'a [String],
    pub(crate) folder: &'a str,
    pub(crate) limit: Duration,
    /// What it reads; `/dev/null` if there is nothing.
    pub(crate) input: Option<&'a [u8]>,
    pub(crate) place: Place<'a>,
}

/// The mount namespace in which a hook runs.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// This process's.
    Here,
    /// That of process 1, which is another one.
    Host(Guest<'a>),
}

/// What a hook brings along into the mount namespace of process 1, beside its volumes.
#[derive(Clone, Copy)]
pub(crate) struct Guest<'a> {
    /// The name of its mount point, if it needs one.
    pub(crate) mount_point: &'a str,
    pub(crate) rootfs: Option<BorrowedFd<'a>>,
    /// The mount namespace that has the rootfs, if it is not this process's.
    pub(crate) home: Option<BorrowedFd<'a>>,
}

/// The end of what a hook printed, as it printed it.
pub(crate) type Heard = Vec<u8>;

/// A hook that has not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("hook {name} {exit}{}", said.as_deref().map(|said| format!(": {said}")).unwrap_or_default())]
    Failed { name: String, exit: Exit, said: Option<String> },
    #[error("hook {name} cannot be run: {why}")]
    Unrunnable { name: String, why: String },
    #[error("hook {name} was not run: {refusal}")]
    Refused { name: String, refusal: Refusal },
    #[error("hook {name} was killed: {refusal}")]
    Unwatched { name: String, refusal: Refusal },
    #[error("hook {name} was not run: cannot start its guard process")]
    Guard { name: String, source: io::Error },
    #[error("hook {name} was killed: cannot watch its guard process")]
    Watch { name: String, source: io::Error },
    #[error("hook {name} was killed, because its guard process {how}")]
    GuardLost { name: String, how: String },
    #[error(
        "hook {name} may still run: its guard process {how}, and the processes that it has started cannot be found"
    )]
    Unseen { name: String, how: String, source: io::Error },
}

/// Runs a hook, waits for it, and returns the last lines it printed, on one line. `log` takes all that it
/// prints; `heard` the end of that.
///
/// # Errors
/// The hook has not done its work; nothing that it started is left, unless its guard was lost.
pub(crate) fn run(
    call: &Call<'_>,
    lock: BorrowedFd<'_>,
    log: &mut ContainerLog,
    heard: &mut Heard,
) -> Result<Option<String>, Error> {
    let name = || call.name.to_owned();
    // Should the guard be killed, what it guards comes to this process.
    let failed = |source| Error::Guard { name: name(), source };
    reaper::adopt_orphans().map_err(named("prctl")).map_err(failed)?;
    let mine = reaper::children().map_err(failed)?;
    let mut running =
        Running::start(call, lock).map_err(|source| Error::Guard { name: name(), source })?;
    let report = running.attend(call.limit + GUARD_GRACE, log);
    let (mut how, mut left) = (String::new(), Ok(()));
    if !matches!(report, Ok(Some(_))) {
        how = running.how_the_guard_ended();
        left = reaper::end_children(&mine);
        if let Place::Host(guest) = call.place {
            // What fails here is tried again by the next command on the container.
            let _ = attached::sweep(guest.mount_point);
        }
    }
    running.drain(log);
    log.finish();
    let said = quote(&running.kept);
    *heard = std::mem::take(&mut running.kept);
    match report {
        Ok(Some(Report::Ended(exit))) if exit.is_success() => Ok(said),
        Ok(Some(Report::Ended(exit))) => {
            Err(Error::Failed { name: name(), exit, said: said.as_deref().map(respell) })
        }
        Ok(Some(Report::NotStarted(why))) => Err(Error::Unrunnable { name: name(), why }),
        Ok(Some(Report::Refused(refusal))) => Err(Error::Refused { name: name(), refusal }),
        Ok(Some(Report::Unwatched(refusal))) => Err(Error::Unwatched { name: name(), refusal }),
        Ok(None) => Err(match left {
            Ok(()) => Error::GuardLost { name: name(), how },
            Err(source) => Error::Unseen { name: name(), how, source },
        }),
        Err(source) => Err(Error::Watch { name: name(), source }),
    }
}

/// The error of `call` in the words of [`explained`].
fn named(call: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| match error.raw_os_error() {
        Some(errno) => explained(call, errno),
        None => error,
    }
}

/// A hook under way.
struct Running {
    control: OwnedFd,
    guard: rustix::process::Pid,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Running {
    fn start(call: &Call<'_>, lock: BorrowedFd<'_>) -> io::Result<Self> {
        let input = match call.input {
            Some(bytes) => in_memory(bytes)?,
            None => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                rustix::fs::open("/dev/null", flags, Mode::empty())?
            }
        };
        let pipe = || {
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
                .map_err(|error| named("pipe2")(error.into()))
        };
        let ((out, out_end), (err, err_end)) = (pipe()?, pipe()?);
        for read in [&out, &err] {
            let flags = rustix::fs::fcntl_getfl(read)?;
            rustix::fs::fcntl_setfl(read, flags | OFlags::NONBLOCK)?;
        }
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| named("socketpair")(error.into()))?;
        let limit = call.limit.as_millis().to_string();
        let mut descriptors = vec![
            (input.as_fd(), 0),
            (out_end.as_fd(), 1),
            (err_end.as_fd(), 2),
            (theirs.as_fd(), guard::CONTROL),
            (lock, guard::LOCK),
        ];
        let (entering, name) = match call.place {
            Place::Here => (Entering::No, ""),
            Place::Host(Guest { mount_point, rootfs, home }) => {
                descriptors.extend(rootfs.map(|rootfs| (rootfs, guard::ROOTFS)));
                descriptors.extend(home.map(|home| (home, guard::HOME)));
                let entering = match (rootfs, home) {
                    (None, _) => Entering::Alone,
                    (Some(_), None) => Entering::WithRootfs,
                    (Some(_), Some(_)) => Entering::WithRootfsFromHome,
                };
                (entering, mount_point)
            }
        };
        let entering = entering.word();
        let mut arguments =
            vec![PROGRAM, guard::COMMAND, &limit, entering, name, call.folder, call.path];
        arguments.extend(call.arguments);
        // Called by the runtime's name by the manager too, so that `ps` shows all guards alike.
        let guard = spawn(&Program {
            path: "/proc/self/exe",
            arguments: &arguments,
            environment: call.environment,
            descriptors: &descriptors,
            blocked: SigSet::empty(),
        })
        .map_err(named("fork/execve"))?;
        Ok(Self { control, guard, out: Some(out), err: Some(err), kept: Vec::new() })
    }

    /// Moves output until the guard reports; `None` if it never will.
    fn attend(&mut self, limit: Duration, log: &mut ContainerLog) -> io::Result<Option<Report>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reported = self.wait(left, log)?;
            self.read(log);
            log.out.pump();
            log.err.pump();
            if reported {
                return self.report();
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Waits for anything to do; whether the guard has something to say.
    fn wait(&self, limit: Duration, log: &ContainerLog) -> io::Result<bool> {
        let mut descriptors = vec![PollFd::new(&self.control, PollFlags::IN)];
        for read in [&self.out, &self.err].into_iter().flatten() {
            descriptors.push(PollFd::new(read, PollFlags::IN));
        }
        for stream in [&log.out, &log.err] {
            if let Some(write) = stream.descriptor().filter(|_| stream.wants_to_write()) {
                descriptors.push(PollFd::from_borrowed_fd(write, PollFlags::OUT));
            }
        }
        process::poll(&mut descriptors, limit)?;
        Ok(descriptors.first().is_some_and(|control| !control.revents().is_empty()))
    }

    /// Reads once from each stream that has something; whether there was anything.
    fn read(&mut self, log: &mut ContainerLog) -> usize {
        read_one(&mut self.out, &mut log.out, &mut self.kept)
            + read_one(&mut self.err, &mut log.err, &mut self.kept)
    }

    fn report(&self) -> io::Result<Option<Report>> {
        let mut bytes = [0; guard::REPORT_MAX];
        match rustix::net::recv(&self.control, &mut bytes[..], RecvFlags::empty()) {
            Ok((len, _)) => Ok(bytes.get(..len).and_then(Report::parse)),
            Err(Errno::CONNRESET) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// How a guard ended that has not reported, as far as that can be told.
    fn how_the_guard_ended(&self) -> String {
        let deadline = Instant::now() + DEATH_LIMIT;
        loop {
            let flags = rustix::process::WaitOptions::NOHANG;
            let Ok(waited) = rustix::process::waitpid(Some(self.guard), flags) else {
                return "ended without a report".to_owned();
            };
            match waited.map(|(_, status)| (status.exit_status(), status.terminating_signal())) {
                Some((_, Some(signal))) => {
                    return format!("was killed by signal {signal} (see dmesg if nobody sent it)");
                }
                Some((Some(status), _)) => {
                    return format!("ended with status {status} and without a report");
                }
                Some((None, None)) | None => {}
            }
            if Instant::now() >= deadline {
                return "did not report in time".to_owned();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads what the hook left in the pipes. Whoever still holds their other end finds them closed.
    fn drain(&mut self, log: &mut ContainerLog) {
        let mut total = 0;
        while total < DRAIN_MAX {
            match self.read(log) {
                0 => break,
                len => total += len,
            }
        }
        let _ = rustix::process::waitpid(Some(self.guard), rustix::process::WaitOptions::NOHANG);
    }
}

fn read_one(read: &mut Option<OwnedFd>, stream: &mut Stream, kept: &mut Vec<u8>) -> usize {
    let Some(descriptor) = read else { return 0 };
    let mut bytes = [0; 16 * 1024];
    match rustix::io::read(&*descriptor, &mut bytes) {
        Ok(len) if len > 0 => {
            let bytes = bytes.get(..len).unwrap_or_default();
            kept.extend(bytes);
            let excess = kept.len().saturating_sub(KEPT);
            kept.drain(..excess);
            stream.push(bytes);
            len
        }
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Ok(_) | Err(_) => {
            *read = None;
            0
        }
    }
}

/// A file without a name that holds `bytes`: a hook that does not read its input cannot block on it.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("input", MemfdFlags::CLOEXEC)
        .map_err(|error| named("memfd_create")(error.into()))?;
    let mut left = bytes;
    while !left.is_empty() {
        let written = rustix::io::write(&file, left)?;
        left = left.get(written..).unwrap_or_default();
    }
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}

/// `folder`, or `/` when it is gone, as the bundle may be at delete.
pub(crate) fn folder_or_root(folder: &str) -> &str {
    if Path::new(folder).is_dir() { folder } else { "/" }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Failed { name, exit = Exit::Status(7), said }, Unrunnable { name, why },
        Refused { name, refusal = a_refusal() }, Unwatched { name, refusal = a_refusal() },
        Guard { name, source }, Watch { name, source }, GuardLost { name, how },
        Unseen { name, how, source },
    }
}

#[cfg(test)]
fn a_refusal() -> Refusal {
    Refusal { purpose: "PURPOSE".to_owned(), call: "CALL".to_owned(), errno: 7 }
}
