//! One run of the manager, measured: by a process of its own, whose only child it is, so that what the
//! kernel counts of children is of that one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::Result;

/// Set for the process that measures.
pub(crate) const STAGE: &str = "BENCH_MEASURES";

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The part of it in the kernel.
    pub(crate) system: Duration,
    pub(crate) peak_kib: u64,
}

/// Runs the manager; what it printed, and its requests by its own count.
pub(crate) fn run(manager: &Path, socket: &Path, words: &[&str]) -> Result<(Cost, String, usize)> {
    let output = Command::new(std::env::current_exe()?)
        .env(STAGE, "1")
        .arg(manager)
        .arg(format!("--host=unix://{}", socket.display()))
        .args(["--log-level=debug", "--timeout=600"])
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    let (out, told) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    let line = told.lines().last().unwrap_or_default();
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let (true, [wall, cpu, system, peak_kib]) = (output.status.success(), numbers.as_slice())
    else {
        return Err(format!("{words:?} failed: {told}").into());
    };
    let cost = Cost {
        wall: Duration::from_micros(*wall),
        cpu: Duration::from_micros(*cpu),
        system: Duration::from_micros(*system),
        peak_kib: *peak_kib,
    };
    let sent = told.lines().find_map(|line| {
        let (before, _) = line.split_once(" requests sent")?;
        before.rsplit(|found: char| !found.is_ascii_digit()).next()?.parse().ok()
    });
    Ok((cost, out, sent.ok_or("the manager does not say how many requests it sent")?))
}

/// The process that measures: runs its arguments, and ends standard error with wall time, processor
/// time and the kernel's part of that in microseconds, and the peak of resident memory in KiB.
pub(crate) fn stage() -> Result<()> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("nothing to measure")?;
    let began = Instant::now();
    let status = Command::new(&program).args(words).status()?;
    let wall = began.elapsed();
    if !status.success() {
        return Err(format!("{} ended with {status}", Path::new(&program).display()).into());
    }
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let system = micros(used.system_time());
    let cpu = micros(used.user_time()) + system;
    eprintln!("\n{} {cpu} {system} {}", wall.as_micros(), used.max_rss());
    Ok(())
}
