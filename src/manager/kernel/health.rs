//! The programs of the OS that a trial calls: the health check `rollback-tests`, and `systemctl reboot`.

use super::super::Session;
use super::Device;
use crate::host::container::hook::{self, Call, HookProgram, Place};
use crate::host::container::log::ContainerLog;
use crate::host::os::clock;
use crate::host::os::host_root::is_absence;
use crate::model::container::exit::Exit;
use crate::model::kernel::abi::Abi;
use crate::model::kernel::history::HistoryEntry;
use crate::model::kernel::records::Slot;
use crate::model::kernel::transition::Health;
use crate::model::text::cause::chain;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where programs of the OS are looked for, and the whole `PATH` that they get.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const CHECK: &str = "rollback-tests";
const REBOOT: &str = "systemctl";
const REBOOT_LIMIT: Duration = Duration::from_secs(60);
/// systemd sends its signal to the check and to this program; it may reach the check first.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// When health checks run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) settle: Duration,
    pub(super) retry: Duration,
    pub(super) attempts: u32,
}

/// Why the health of the running kernel is unknown.
#[derive(Debug, thiserror::Error)]
pub(in crate::manager) enum HealthError {
    #[error(
        "cannot check the health of the running kernel: there is no {CHECK} in {}; no verdict was taken",
        DIRECTORIES.join(", ")
    )]
    NoCheck,
    #[error("cannot look for {path:?}")]
    Find { path: PathBuf, source: io::Error },
    #[error("cannot check the health of the running kernel; no verdict was taken")]
    NotRun { source: hook::Error },
    #[error(
        "the health check was still running when the time was up (--deadline allows more); no verdict was taken"
    )]
    OutOfTime,
    #[error("stopped by a signal during the health check; no verdict was taken")]
    Stopped,
    #[error("cannot reboot: there is no {REBOOT} in {}", DIRECTORIES.join(", "))]
    NoReboot,
    #[error("cannot reboot: {why}")]
    Reboot { why: String },
    #[error("cannot open /dev/null")]
    Null { source: io::Error },
}

impl HealthError {
    /// Whether it is a signal or the time that ended the trial.
    pub(in crate::manager) fn is_interruption(&self) -> bool {
        matches!(self, Self::OutOfTime | Self::Stopped)
    }
}

/// One attempt, for the history.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) health: Health,
    /// How it failed, with the last lines that the check printed.
    pub(super) why: String,
}

impl Attempt {
    pub(super) fn entry(&self, abi: &Abi, slot: Slot) -> HistoryEntry {
        let (event, detail) = match self.health {
            Health::Passed => ("health-passed", format!("health check {} passed", self.number)),
            Health::Failed => {
                ("health-failed", format!("health check {} failed: {}", self.number, self.why))
            }
        };
        HistoryEntry {
            time: clock::now_in_seconds(),
            by: "validate".to_owned(),
            event: event.to_owned(),
            abi: Some(abi.to_string()),
            slot: Some(slot.to_string()),
            detail,
        }
    }
}

/// Checks the health of the running kernel. Only a check that ran and ended otherwise than with status 0 is a failure.
pub(super) fn check(
    device: &Device<'_>,
    schedule: Schedule,
    mut report: impl FnMut(&Attempt),
) -> Result<Health, HealthError> {
    let session = device.session;
    pause(session, schedule.settle)?;
    let check = find_check(session)?;
    let attempts = schedule.attempts.max(1);
    for number in 1..=attempts {
        let left = session.limit.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HealthError::OutOfTime);
        }
        let Err(why) = attempt(device, &check, left)? else {
            report(&Attempt { number, health: Health::Passed, why: String::new() });
            return Ok(Health::Passed);
        };
        session.log.warn(&format!("health check {number} of {attempts} failed: {why}"));
        report(&Attempt { number, health: Health::Failed, why });
        if number < attempts {
            pause(session, schedule.retry)?;
        }
    }
    Ok(Health::Failed)
}

/// The health check that is run.
enum HealthCheck {
    OfTheOs(PathBuf),
    Played(Result<(), String>),
}

fn find_check(session: &Session) -> Result<HealthCheck, HealthError> {
    match &session.play {
        Some(play) => Ok(HealthCheck::Played(play.health_check()?)),
        None => find(session, CHECK)?.map(HealthCheck::OfTheOs).ok_or(HealthError::NoCheck),
    }
}

/// Runs the check once: why it failed, if it did.
fn attempt(
    device: &Device<'_>,
    check: &HealthCheck,
    limit: Duration,
) -> Result<Result<(), String>, HealthError> {
    let path = match check {
        HealthCheck::OfTheOs(path) => path,
        HealthCheck::Played(result) => return Ok(result.clone()),
    };
    let session = device.session;
    let variables = device.store.prestate_path();
    let environment =
        [path_variable(), format!("ROLLBACK_HEALTH_VARIABLES={}", variables.display())];
    match run(session, CHECK, path, &[], &environment, limit)? {
        Ok(()) => Ok(Ok(())),
        Err(hook::Error::Failed { exit: Exit::OverLimit(_), .. }) => Err(HealthError::OutOfTime),
        Err(hook::Error::Interrupted { .. }) => Err(HealthError::Stopped),
        Err(hook::Error::Failed { exit, said, .. }) => match session.limit.stop.pause(STOP_GRACE) {
            true => Err(HealthError::Stopped),
            false => {
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                Ok(Err(format!("{CHECK} {exit}{said}")))
            }
        },
        Err(
            source @ (hook::Error::Unrunnable { .. }
            | hook::Error::Refused { .. }
            | hook::Error::Unwatched { .. }
            | hook::Error::Guard { .. }
            | hook::Error::Watch { .. }
            | hook::Error::GuardLost { .. }
            | hook::Error::Unseen { .. }),
        ) => {
            // The signal that stops the unit may reach the guard of the check first.
            if session.limit.stop.pause(STOP_GRACE) {
                return Err(HealthError::Stopped);
            }
            Err(HealthError::NotRun { source })
        }
    }
}

/// Asks systemd to reboot; the exit status of `systemctl reboot`.
pub(super) fn reboot(session: &Session) -> Result<u8, HealthError> {
    let path = find(session, REBOOT)?.ok_or(HealthError::NoReboot)?;
    let environment = [path_variable()];
    match run(session, "systemctl reboot", &path, &["reboot"], &environment, REBOOT_LIMIT)? {
        Ok(()) => Ok(0),
        Err(hook::Error::Failed { exit: Exit::Status(status), said, .. }) => {
            if let Some(said) = said {
                session.log.error(&format!("systemctl reboot exited with status {status}: {said}"));
            }
            Ok(u8::try_from(status).unwrap_or(1))
        }
        Err(error) => Err(HealthError::Reboot { why: chain(&error) }),
    }
}

fn pause(session: &Session, time: Duration) -> Result<(), HealthError> {
    let left = session.limit.deadline.saturating_duration_since(Instant::now());
    if session.limit.stop.pause(time.min(left)) {
        return Err(HealthError::Stopped);
    }
    if time >= left { Err(HealthError::OutOfTime) } else { Ok(()) }
}

fn path_variable() -> String {
    format!("PATH={}", DIRECTORIES.join(":"))
}

/// The path of a program of the OS; `None` if it is missing.
fn find(session: &Session, program: &str) -> Result<Option<PathBuf>, HealthError> {
    for directory in DIRECTORIES {
        let path = format!("{directory}/{program}");
        match session.host.find(&path) {
            Ok(found) => return Ok(Some(found)),
            Err(error) if is_absence(&error) => {}
            Err(source) => {
                return Err(HealthError::Find { path: session.host.display_path(&path), source });
            }
        }
    }
    Ok(None)
}

/// Runs a program as a hook is run, so that nothing of it is left when it fails. Its output goes to this program's.
fn run(
    session: &Session,
    name: &str,
    path: &std::path::Path,
    arguments: &[&str],
    environment: &[String],
    limit: Duration,
) -> Result<Result<(), hook::Error>, HealthError> {
    let path = path.to_string_lossy();
    let mut words = vec![path.as_ref()];
    words.extend(arguments);
    // The guard keeps a lock open for its caller. Here is none.
    let null = File::open("/dev/null").map_err(|source| HealthError::Null { source })?;
    let call = Call {
        name,
        program: HookProgram::At(&path),
        arguments: &words,
        environment,
        working_directory: "/",
        limit,
        input: None,
        place: Place::Here,
        interrupt: Some(session.limit.stop.as_fd()),
    };
    Ok(hook::run(&call, null.as_fd(), &mut ContainerLog::of_caller()).result)
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum HealthError {
        NoCheck, Find { path, source }, NotRun { source }, OutOfTime, Stopped, NoReboot, Reboot { why },
        Null { source },
    }
}
