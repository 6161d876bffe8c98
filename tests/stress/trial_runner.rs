//! The outer stage: runs every trial in a process with its own namespaces, two at a time, and afterwards checks
//! the cgroups, which do not end with a namespace.

use crate::leftovers;
use crate::programs;
use crate::trial_process;
use crate::trials::{self, Extent};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{SigSet, Signal};
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

/// A trial ends when its lifeline closes; `None` after an interrupt.
static LIFELINES: Mutex<Option<Vec<(u32, ChildStdin)>>> = Mutex::new(Some(Vec::new()));

pub(crate) fn run_all() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A sweep waits for the kernel and for orphans half of the time.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let endings: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    endings.thread_block().expect("sigprocmask");
    std::thread::spawn(move || {
        let _ = endings.wait();
        // Closes the standard input of every trial, which ends it.
        drop(LIFELINES.lock().unwrap_or_else(PoisonError::into_inner).take());
    });
    let trials = trials::all(Extent::of_this_run())
        .into_iter()
        .map(|(name, _)| Trial::test(name.clone(), move || run(&name)))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit_code()
}

/// Runs one trial and prints its report, also if it succeeds: the figures matter.
fn run(name: &str) -> Result<(), Failed> {
    let prefix = cgroup_prefix(name);
    let mut said = tempfile::tempfile()?;
    let mut child = Command::new("unshare")
        .args(["--fork", "--pid", "--mount", "--mount-proc", "--kill-child", "--"])
        .arg(std::env::current_exe()?)
        .env(trial_process::TRIAL, name)
        // The directories of the tests' hosts, too, are in memory and end with the trial.
        .env("TMPDIR", trial_process::SCRATCH)
        .env(trial_process::RUNTIME, programs::runtime())
        .env(trial_process::CGROUP, &prefix)
        .stdin(Stdio::piped())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        // Ctrl-C only reaches the outer stage, which then ends the trials cleanly.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("unshare (of util-linux): {error}"))?;
    let key = child.id();
    if let (Some(lifelines), Some(stdin)) = (lifelines().as_mut(), child.stdin.take()) {
        lifelines.push((key, stdin));
    }
    let status = child.wait()?;
    let left = remove_cgroups(&prefix);
    let Some(lifelines) = &mut *lifelines() else {
        return Err("interrupted; everything was stopped and removed".into());
    };
    lifelines.retain(|(other, _)| *other != key);
    let mut text = String::new();
    said.rewind()?;
    said.read_to_string(&mut text)?;
    println!("{name}:\n{}", text.trim_end());
    if !status.success() {
        return Err(format!("{name}: see the violations above ({status})").into());
    }
    if !left.is_empty() {
        return Err(format!("{name} left the cgroups {left:?}, now removed").into());
    }
    Ok(())
}

fn lifelines() -> std::sync::MutexGuard<'static, Option<Vec<(u32, ChildStdin)>>> {
    LIFELINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No two trials of the machine share a cgroup.
fn cgroup_prefix(name: &str) -> String {
    format!("stress-{}-{}", std::process::id(), name.replace("::", "-"))
}

/// Removes the cgroups of a trial, and returns those that it left.
fn remove_cgroups(prefix: &str) -> Vec<PathBuf> {
    let left = leftovers::cgroups(prefix);
    for path in &left {
        // Its processes have ended with the namespace.
        for _ in 0..100 {
            if std::fs::remove_dir(path).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    left
}
