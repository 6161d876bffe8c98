//! Running programs: with a limit, and without trusting them to close their output.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing an engine is asked here takes longer, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// What the engines under test need, and the Debian package each comes with.
const PROGRAMS: [(&str, &str); 12] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io (docker-cli since Debian 13)"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("ip", "iproute2"),
    ("python3", "python3-grpcio"),
    ("nsenter", "util-linux"),
    ("sha256sum", "coreutils"),
    ("tar", "tar"),
];

/// Fails, naming them all, when programs are missing.
pub(crate) fn require_programs() {
    let path = std::env::var("PATH").unwrap();
    let is_missing = |program: &str| {
        !path.split(':').any(|dir| std::path::Path::new(dir).join(program).exists())
    };
    let missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(program, _)| is_missing(program))
        .map(|(program, package)| format!("{program} (apt-get install {package})"))
        .collect();
    assert!(missing.is_empty(), "missing in {path}: {}", missing.join(", "));
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) what: String,
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Finished {
    /// The exit status; 128 + signal for a program that was killed.
    pub(crate) fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Everything it printed.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Fails the test unless the program failed with `code`.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> Self {
        assert!(self.code() == code, "exit status {code} was expected of {self}");
        self
    }

    /// Fails the test unless `wanted` is somewhere in the output.
    #[track_caller]
    pub(crate) fn says(self, wanted: &str) -> Self {
        assert!(self.text().contains(wanted), "{wanted:?} was expected of {self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, status, out, err } = self;
        write!(f, "{what}\n{status}\nstdout: {out}\nstderr: {err}")
    }
}

/// Runs `command` to its end.
///
/// Its output goes to files, not to pipes: a child that it leaves behind with its output open must
/// be noticed by the engine under test, and not hang this program instead.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    run_within(LIMIT, command)
}

/// Runs `command` as part of a clean-up, which must neither fail nor hang the test.
pub(crate) fn attempt(command: &mut Command) {
    let limit = Duration::from_secs(20);
    if let Err(reason) = start(command).await_end(limit) {
        eprintln!("while cleaning up: {reason}");
    }
}

/// [`run`], but fails the test when the command takes longer than `limit`.
#[track_caller]
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Finished {
    start(command).finish_within(limit)
}

/// Starts `command` and leaves it running.
#[track_caller]
pub(crate) fn start(command: &mut Command) -> Started {
    let what = describe(command);
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    Started { what, child, out, err }
}

/// A program that has not ended yet.
pub(crate) struct Started {
    what: String,
    child: std::process::Child,
    out: File,
    err: File,
}

impl Started {
    /// What it did, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<Finished> {
        let status = self.child.try_wait().unwrap()?;
        let (out, err) = (read(&mut self.out), read(&mut self.err));
        Some(Finished { what: self.what.clone(), status, out, err })
    }

    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        self.finish_within(LIMIT)
    }

    #[track_caller]
    pub(crate) fn finish_within(self, limit: Duration) -> Finished {
        self.await_end(limit).unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn await_end(mut self, limit: Duration) -> Result<Finished, String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(finished) = self.ended() {
                return Ok(finished);
            }
            if Instant::now() > deadline {
                drop(self.child.kill());
                drop(self.child.wait());
                return Err(format!("{} hangs: no end within {limit:?}", self.what));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Waits until `look` sees something; fails the test, saying `what`, when it never does.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
