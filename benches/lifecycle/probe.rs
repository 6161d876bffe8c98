//! One verb at a time, from outside: memory, page faults, system calls, instructions. A probe slows its
//! subject down, so none of this is part of the timing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process::{Argv, find, interrupted, wait};
use super::subject::Runtime;
use crate::Result;

/// `observe.c`, compiled, and the directory for its results.
pub(crate) struct Observer {
    program: PathBuf,
    scratch: PathBuf,
}

impl Observer {
    pub(crate) fn new(program: &Path, scratch: &Path) -> Self {
        Self { program: program.to_owned(), scratch: scratch.to_owned() }
    }

    /// The peak resident set of a command, in KiB.
    pub(crate) fn peak(&self, command: &Argv) -> Result<u64> {
        self.observe("peak", command)
    }

    /// The page faults of a command, none of which waited for a disk.
    pub(crate) fn faults(&self, command: &Argv) -> Result<u64> {
        self.observe("faults", command)
    }

    /// The instructions that a command executes.
    pub(crate) fn steps(&self, command: &Argv) -> Result<u64> {
        self.observe("steps", command)
    }

    fn observe(&self, what: &str, command: &Argv) -> Result<u64> {
        interrupted()?;
        let out = self.scratch.join("observed");
        let wrapper = [&self.program.to_string_lossy(), what, &out.to_string_lossy()];
        command.under(&wrapper)?.run()?;
        Ok(std::fs::read_to_string(&out)?.parse()?)
    }
}

/// One figure for each of create, start and delete.
pub(crate) fn of_each_verb(
    runtime: &Runtime,
    figure: impl Fn(&Argv) -> Result<u64>,
) -> Result<[u64; 3]> {
    runtime.or_abandon((|| {
        let create = figure(&runtime.create)?;
        let pid = runtime.pid()?;
        let start = figure(&runtime.start)?;
        wait(pid)?;
        Ok([create, start, figure(&runtime.delete)?])
    })())
}

/// The memory of one container's process, in KiB.
pub(crate) struct Weight {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
    pub(crate) private: u64,
}

/// Weighs the proxy while `alive` of them are waiting.
pub(crate) fn proxy(runtime: &Runtime, alive: usize) -> Result<Weight> {
    let crowd: Vec<Runtime> =
        (0..alive).map(|number| runtime.sibling(number)).collect::<Result<_>>()?;
    let outcome = weigh(&crowd);
    crowd.iter().fold(outcome, |outcome, member| member.or_abandon(outcome))
}

fn weigh(crowd: &[Runtime]) -> Result<Weight> {
    for member in crowd {
        member.create.run()?;
    }
    let pid = crowd.first().ok_or("an empty crowd")?.pid()?;
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    for member in crowd {
        let pid = member.pid()?;
        member.start.run()?;
        wait(pid)?;
        member.delete.run()?;
    }
    let field = |name: &str| -> Result<u64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let line = line.ok_or_else(|| format!("smaps_rollup has no {name}"))?;
        Ok(line.trim_end_matches("kB").trim().parse()?)
    };
    Ok(Weight {
        rss: field("Rss:")?,
        pss: field("Pss:")?,
        private: field("Private_Clean:")? + field("Private_Dirty:")?,
    })
}

/// The number of calls of each system call.
#[derive(Default)]
pub(crate) struct Calls(BTreeMap<String, usize>);

impl Calls {
    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }

    fn add(&mut self, trace: &str) {
        for line in trace.lines() {
            let Some((name, _)) = line.split_once('(') else { continue };
            // Not the lines about signals and exits, which begin with "---" and "+++".
            if name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
                *self.0.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
}

impl std::fmt::Display for Calls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut calls: Vec<_> = self.0.iter().collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let words: Vec<_> = calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        out.write_str(&words.join(", "))
    }
}

/// The system calls of create, of the processes it starts, of start and of delete.
pub(crate) fn system_calls(runtime: &Runtime, scratch: &Path) -> Result<[Calls; 4]> {
    runtime.or_abandon(try_system_calls(runtime, scratch))
}

fn try_system_calls(runtime: &Runtime, scratch: &Path) -> Result<[Calls; 4]> {
    let dir = scratch.join("strace");
    let _of_the_last_run = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir)?;

    let strace = find("strace")?;
    let traced = |command: &Argv, verb: &str| {
        let out = dir.join(verb);
        command.under(&[&strace.to_string_lossy(), "-ff", "-o", &out.to_string_lossy()])
    };
    // strace of create runs for as long as the container's process lives, so `start` runs at the same time.
    let create = traced(&runtime.create, "create")?.spawn()?;
    until_exited(&dir, "create")?;
    let pid = runtime.pid()?;
    traced(&runtime.start, "start")?.run()?;
    wait(create)?;
    wait(pid)?;
    traced(&runtime.delete, "delete")?.run()?;

    let own_and_others = |verb: &str| -> Result<(Calls, Calls)> {
        let (mut own, mut others) = (Calls::default(), Calls::default());
        for (_, trace) in traces(&dir, verb)? {
            if is_first(&trace) { own.add(&trace) } else { others.add(&trace) }
        }
        Ok((own, others))
    };
    let (create, proxy) = own_and_others("create")?;
    let whole = |verb| {
        own_and_others(verb).map(|(mut own, others)| {
            for (name, count) in others.0 {
                *own.0.entry(name).or_default() += count;
            }
            own
        })
    };
    Ok([create, proxy, whole("start")?, whole("delete")?])
}

/// Whether a trace is that of the process that strace itself started: it begins with its execve.
fn is_first(trace: &str) -> bool {
    trace.starts_with("execve(")
}

/// The traces of one command: one file for each process.
fn traces(dir: &Path, verb: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut traces = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == verb) {
            let trace = std::fs::read_to_string(&path)?;
            traces.push((path, trace));
        }
    }
    Ok(traces)
}

fn until_exited(dir: &Path, verb: &str) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        let done = |trace: &str| is_first(trace) && trace.trim_end().ends_with("+++");
        if traces(dir, verb)?.iter().any(|(_, trace)| done(trace)) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("{verb} under strace did not end within 30 s").into())
}
