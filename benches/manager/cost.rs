//! The cost of one run of the manager. A process of its own measures it and has no other child, so that
//! the kernel's counters of children are those of the manager.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use crate::Result;

/// The first argument of the process that measures.
pub(crate) const MEASURE: &str = "measure";

/// Time and memory of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The part of it in the kernel.
    pub(crate) system: Duration,
    pub(crate) peak_kib: u64,
}

/// Runs the manager. Also returns what it printed, and how many requests it says that it sent.
pub(crate) fn of(manager: &Path, socket: &Path, words: &[&str]) -> Result<(Cost, String, usize)> {
    let output = Command::new(std::env::current_exe()?)
        .arg(MEASURE)
        .arg(manager)
        .arg(format!("--host=unix://{}", socket.display()))
        .args(["--log-level=debug", "--timeout=600"])
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    let out = String::from_utf8(output.stdout)?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = err.lines().last().unwrap_or_default();
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let (true, [wall, cpu, system, peak_kib]) = (output.status.success(), numbers.as_slice())
    else {
        return Err(format!("{words:?} failed: {err}").into());
    };
    let cost = Cost {
        wall: Duration::from_micros(*wall),
        cpu: Duration::from_micros(*cpu),
        system: Duration::from_micros(*system),
        peak_kib: *peak_kib,
    };
    let sent = err.lines().find_map(|line| {
        let (before, _) = line.split_once(" requests sent")?;
        before.rsplit(|found: char| !found.is_ascii_digit()).next()?.parse().ok()
    });
    Ok((cost, out, sent.ok_or("the manager does not say how many requests it sent")?))
}

/// The process that measures: runs the command line `words`, and ends standard error with wall time, processor
/// time and the kernel's part of that in microseconds, and the peak of resident memory in KiB.
pub(crate) fn measure(mut words: impl Iterator<Item = OsString>) -> Result<()> {
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

/// The median of each figure on its own.
pub(crate) fn medians(costs: &[Cost]) -> Cost {
    fn median<T: Ord + Copy>(costs: &[Cost], of: impl Fn(&Cost) -> T) -> T {
        let mut all: Vec<T> = costs.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    }
    Cost {
        wall: median(costs, |cost| cost.wall),
        cpu: median(costs, |cost| cost.cpu),
        system: median(costs, |cost| cost.system),
        peak_kib: median(costs, |cost| cost.peak_kib),
    }
}
