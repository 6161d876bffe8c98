//! Runs one hook: with exactly its environment, within its limit, its output drained. `model/extension/hook.rs`
//! decides which file is a hook, `model/container/exit.rs` how its failure is worded.

use crate::host::container::attached;
use crate::host::container::guard::{self, Entering, Report};
use crate::host::container::log::{ContainerLog, LogStream};
use crate::host::os::process;
use crate::host::os::reaper;
use crate::host::os::spawn::{Program, spawn};
use crate::model::container::exit::{Exit, quote};
use crate::model::container::proxy::PROGRAM;
use crate::model::text::phrase::respell;
use crate::model::text::system_call::{RefusedCall, explained};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::PipeFlags;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How much longer than the hook's limit its guard may take to kill everything and to report.
const GUARD_GRACE: Duration = Duration::from_secs(10);
/// How long a guard that has closed its end of the socket pair may take to be gone.
const DEATH_LIMIT: Duration = Duration::from_millis(100);
/// How many bytes of the output's end are kept for an error and for the record.
const KEPT: usize = 8 * 1024;
/// How much is still read when the hook has ended: a child it left behind may print for ever.
const DRAIN_MAX: usize = 4 * 1024 * 1024;

/// A hook to run.
pub(crate) struct Call<'a> {
    /// Its name in messages: `hooks/start`, `hooks.prestart[0]`.
    pub(crate) name: &'a str,
    pub(crate) program: HookProgram<'a>,
    /// The whole argument vector.
    pub(crate) arguments: &'a [&'a str],
    /// The whole environment.
    pub(crate) environment: &'a [String],
    pub(crate) working_directory: &'a str,
    pub(crate) limit: Duration,
    /// Its standard input; `/dev/null` if there is none.
    pub(crate) input: Option<&'a [u8]>,
    pub(crate) place: Place<'a>,
    /// The hook is killed when this can be read.
    pub(crate) interrupt: Option<BorrowedFd<'a>>,
}

/// The file that a hook executes.
#[derive(Clone, Copy)]
pub(crate) enum HookProgram<'a> {
    /// An absolute path in the mount namespace in which the hook runs.
    At(&'a str),
    /// Opened in this process's mount namespace; the other one may not have it.
    Open(BorrowedFd<'a>),
}

/// The mount namespace in which a hook runs.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// This process's.
    Here,
    /// That of process 1, which is another one.
    Host(Guest<'a>),
}

/// The mounts that a hook needs in the mount namespace of process 1, in addition to its volumes.
#[derive(Clone, Copy)]
pub(crate) struct Guest<'a> {
    /// The name of its mount point, if it needs one.
    pub(crate) mount_point: &'a str,
    pub(crate) rootfs: Option<BorrowedFd<'a>>,
    /// The mount namespace that has the rootfs, if it is not this process's.
    pub(crate) home: Option<BorrowedFd<'a>>,
}

/// A hook that has run, or could not be run.
#[derive(Debug)]
pub(crate) struct HookRun {
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// The end of what it printed, unchanged.
    pub(crate) output: Vec<u8>,
    pub(crate) result: Result<(), Error>,
}

/// Why a hook did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("hook {name} {exit}{}", said.as_deref().map(|said| format!(": {said}")).unwrap_or_default())]
    Failed { name: String, exit: Exit, said: Option<String> },
    #[error("hook {name} cannot be run: {why}")]
    Unrunnable { name: String, why: String },
    #[error("hook {name} was not run: {refusal}")]
    Refused { name: String, refusal: RefusedCall },
    #[error("hook {name} was killed: {refusal}")]
    Unwatched { name: String, refusal: RefusedCall },
    #[error("hook {name} was not run: cannot start its guard process")]
    Guard { name: String, source: io::Error },
    #[error("hook {name} was killed: cannot watch its guard process")]
    Watch { name: String, source: io::Error },
    #[error("hook {name} was killed: interrupted by a signal")]
    Interrupted { name: String },
    #[error("hook {name} was killed, because its guard process {how}")]
    GuardLost { name: String, how: String },
    #[error(
        "hook {name} may still be running: its guard process {how}, and the processes that it has started cannot be found"
    )]
    Unseen { name: String, how: String, source: io::Error },
}

/// Runs a hook and waits for it. `log` takes everything that it prints. If the hook does not succeed, no process
/// that it started is left, unless its guard was lost.
pub(crate) fn run(call: &Call<'_>, lock: BorrowedFd<'_>, log: &mut ContainerLog) -> HookRun {
    let (begun, mut output) = (Instant::now(), Vec::new());
    let result = run_guarded(call, lock, log, &mut output);
    HookRun { name: call.name.to_owned(), took: begun.elapsed(), output, result }
}

fn run_guarded(
    call: &Call<'_>,
    lock: BorrowedFd<'_>,
    log: &mut ContainerLog,
    output: &mut Vec<u8>,
) -> Result<(), Error> {
    let name = || call.name.to_owned();
    let failed = |source| Error::Guard { name: name(), source };
    // If the guard is killed, the processes that it guards become children of this one.
    reaper::adopt_orphans().map_err(named("prctl")).map_err(failed)?;
    let mine = reaper::children().map_err(failed)?;
    let mut running = RunningHook::start(call, lock).map_err(failed)?;
    let seen = running.attend(call, log);
    let (mut how, mut left) = (String::new(), Ok(()));
    if !matches!(seen, Ok(Attended::Report(_))) {
        how = running.how_the_guard_ended();
        left = reaper::end_children(&mine);
        if let Place::Host(guest) = call.place {
            // If this fails, the next command on the container tries again.
            let _ = attached::sweep(guest.mount_point);
        }
    }
    running.drain(log);
    log.finish();
    *output = std::mem::take(&mut running.kept);
    match (seen, left) {
        (Ok(Attended::Report(Report::Ended(exit))), _) if exit.is_success() => Ok(()),
        (Ok(Attended::Report(Report::Ended(exit))), _) => {
            Err(Error::Failed { name: name(), exit, said: quote(output).as_deref().map(respell) })
        }
        (Ok(Attended::Report(Report::NotStarted(why))), _) => {
            Err(Error::Unrunnable { name: name(), why })
        }
        (Ok(Attended::Report(Report::Refused(refusal))), _) => {
            Err(Error::Refused { name: name(), refusal })
        }
        (Ok(Attended::Report(Report::Unwatched(refusal))), _) => {
            Err(Error::Unwatched { name: name(), refusal })
        }
        (Ok(Attended::Interrupt), Ok(())) => Err(Error::Interrupted { name: name() }),
        (Ok(Attended::NoReport), Ok(())) => Err(Error::GuardLost { name: name(), how }),
        (Ok(Attended::Interrupt | Attended::NoReport), Err(source)) => {
            Err(Error::Unseen { name: name(), how, source })
        }
        (Err(source), _) => Err(Error::Watch { name: name(), source }),
    }
}

/// How waiting for a guard came to its end.
enum Attended {
    Report(Report),
    /// The guard has ended, or takes too long.
    NoReport,
    Interrupt,
}

/// The error of `call` in the words of [`explained`].
fn named(call: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| match error.raw_os_error() {
        Some(errno) => explained(call, errno),
        None => error,
    }
}

/// A hook under way.
struct RunningHook {
    control: OwnedFd,
    guard: rustix::process::Pid,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl RunningHook {
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
            rustix::io::ioctl_fionbio(read, true)?;
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
        let path = match call.program {
            HookProgram::At(path) => path,
            HookProgram::Open(file) => {
                descriptors.push((file, guard::PROGRAM));
                guard::BY_DESCRIPTOR
            }
        };
        let entering = entering.word();
        let mut arguments =
            vec![PROGRAM, guard::COMMAND, &limit, entering, name, call.working_directory, path];
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

    /// Moves output until the guard reports, or something else ends the wait.
    fn attend(&mut self, call: &Call<'_>, log: &mut ContainerLog) -> io::Result<Attended> {
        let deadline = Instant::now() + call.limit + GUARD_GRACE;
        loop {
            let (reported, interrupted) = self.wait(deadline, call.interrupt, log)?;
            self.read(log);
            log.out.pump();
            log.err.pump();
            if reported {
                return Ok(self.report()?.map_or(Attended::NoReport, Attended::Report));
            }
            if interrupted {
                return Ok(Attended::Interrupt);
            }
            if Instant::now() >= deadline {
                return Ok(Attended::NoReport);
            }
        }
    }

    /// Waits until there is something to do; whether the guard has reported, and whether it is an interrupt.
    fn wait(
        &self,
        deadline: Instant,
        interrupt: Option<BorrowedFd<'_>>,
        log: &ContainerLog,
    ) -> io::Result<(bool, bool)> {
        let mut descriptors = vec![PollFd::new(&self.control, PollFlags::IN)];
        let interrupt = interrupt.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN));
        let interrupt_at = interrupt.is_some().then_some(descriptors.len());
        descriptors.extend(interrupt);
        for read in [&self.out, &self.err].into_iter().flatten() {
            descriptors.push(PollFd::new(read, PollFlags::IN));
        }
        for stream in [&log.out, &log.err] {
            if let Some(write) = stream.descriptor().filter(|_| stream.wants_to_write()) {
                descriptors.push(PollFd::from_borrowed_fd(write, PollFlags::OUT));
            }
        }
        process::poll(&mut descriptors, deadline.saturating_duration_since(Instant::now()))?;
        let has_come = |at: usize| descriptors.get(at).is_some_and(|it| !it.revents().is_empty());
        Ok((has_come(0), interrupt_at.is_some_and(has_come)))
    }

    /// Reads once from each stream that has something; how many bytes that were.
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

    /// How a guard without a report ended, as far as that can be determined.
    fn how_the_guard_ended(&self) -> String {
        match reaper::wait(self.guard, DEATH_LIMIT) {
            Ok(Some(exit @ Exit::Signal(_))) => format!("{exit} (see dmesg if nobody sent it)"),
            Ok(Some(exit)) => format!("{exit} without a report"),
            Ok(None) => "did not report in time".to_owned(),
            Err(_) => "ended without a report".to_owned(),
        }
    }

    /// Reads what the hook left in the pipes. A process that still holds their other end finds them closed.
    fn drain(&mut self, log: &mut ContainerLog) {
        let mut total = 0;
        while total < DRAIN_MAX {
            match self.read(log) {
                0 => break,
                len => total += len,
            }
        }
        let _ = reaper::wait(self.guard, Duration::ZERO);
    }
}

fn read_one(read: &mut Option<OwnedFd>, stream: &mut LogStream, kept: &mut Vec<u8>) -> usize {
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

/// A file in memory that holds `bytes`: unlike a pipe, it does not block the writer if a hook never reads it.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("input", MemfdFlags::CLOEXEC);
    let mut file = File::from(file.map_err(|error| named("memfd_create")(error.into()))?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// `directory`, or `/` if it is missing, as the bundle may be at delete.
pub(crate) fn directory_or_root(directory: &str) -> &str {
    if Path::new(directory).is_dir() { directory } else { "/" }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Error {
        Failed { name, exit = Exit::Status(7), said }, Unrunnable { name, why },
        Refused { name, refusal = a_refusal() }, Unwatched { name, refusal = a_refusal() },
        Guard { name, source }, Watch { name, source }, Interrupted { name }, GuardLost { name, how },
        Unseen { name, how, source },
    }
}

#[cfg(test)]
fn a_refusal() -> RefusedCall {
    RefusedCall { purpose: "PURPOSE".to_owned(), call: "CALL".to_owned(), errno: 7 }
}
