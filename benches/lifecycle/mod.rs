//! What a container's life costs: create, start and delete of an extension without hooks, beside runc,
//! crun, the runtime of an older commit (`BASELINE`) and the floor, which is four executions of a C
//! program that does nothing (three for the verbs, one for the proxy).
//!
//! State, bundles and logs of all of them are on one tmpfs, as engines keep them on `/run`. Everything is
//! interleaved in one run, in a shuffled order, so that other work on the machine disturbs all alike.
//!
//! `process` starts programs and waits for them; `subject` holds the command lines of a life; `row` takes the
//! times; `probe` looks at one verb at a time from outside: memory, page faults, system calls, instructions.

mod build;
mod probe;
mod process;
mod row;
mod shuffle;
mod subject;

use std::path::Path;

use crate::goal::{self, Goal};
use crate::{Result, prepared, rounds, variable};
use build::Build;
use probe::Observer;
use row::{Row, Subject, measure, print_times, rows, time_goals};
use subject::{Network, Runtime};

/// Medians of fewer rounds than this do not repeat.
const FEWEST_ROUNDS: usize = 200;
/// Containers alive at once when the proxy is weighed: memory that they share does not count as private.
const CROWD: usize = 32;

/// Runs the benchmark, and prints its tables.
pub(crate) fn run() -> Result<()> {
    let dir = prepared("BENCH_DIR")?;
    let rounds = rounds(300)?;
    let (builds, missing) = Build::all(&dir);
    let first = builds.first().ok_or("neither a musl nor a glibc build was made")?;
    let scratch = process::Scratch::new(&prepared("SCRATCH")?)?;
    print_conditions(rounds)?;

    let mut plain = rows(&builds, &dir, scratch.path(), Network::Inherited)?;
    let others = measure(&mut plain, rounds)?;
    println!("\nOne container's life without hooks, medians of {rounds} interleaved rounds, in µs");
    print_times(&plain, others);

    // Apart from the first, because the kernel tears a network namespace down after the fact, at
    // the expense of whatever runs then.
    let mut network = rows(&builds, &dir, scratch.path(), Network::Own)?;
    let others_later = measure(&mut network, rounds)?;
    println!(
        "\nThe same with a network namespace of its own, as Docker requests it, and with a cgroup too"
    );
    print_times(&network, others_later);

    let observer = Observer::new(&dir.join("observe"), scratch.path());
    print_of_each_verb("Peak resident set of each verb, KiB", &plain, |command| {
        observer.peak(command)
    })?;
    print_of_each_verb("Page faults of each verb", &plain, |command| observer.faults(command))?;
    print_system_calls(&plain, scratch.path())?;
    let ours: Vec<_> =
        plain.iter().filter(|row| !matches!(row.subject, Subject::Other(_))).collect();
    print_of_each_verb("Instructions of each verb (of the proxy: none)", ours, |command| {
        observer.steps(command)
    })?;

    let mut goals = print_proxies(&builds, &plain)?;
    println!("\nSize of the programs, bytes");
    for build in &builds {
        goals.extend(build.print_sizes()?);
        goals.extend(time_goals(build, &plain, others));
    }
    if let Some(path) = build::baseline(&dir) {
        println!("{:<28}{:>9}", "baseline", std::fs::metadata(path)?.len());
    }
    goal::print(goals);
    for libc in missing {
        println!("  NOT MEASURED: {}, which this machine cannot build (see above)", libc.name());
    }
    println!("  (runc and crun ran the {} no-op as their container)", first.libc.name());
    scratch.remove()
}

/// The machine, the programs and the circumstances of the figures.
fn print_conditions(rounds: usize) -> Result<()> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let version = |program| {
        let output = std::process::Command::new(program).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or(program).to_owned()
    };
    println!(
        "{}, {} CPUs, Linux {}; {}; {}",
        model.map_or("unknown CPU", |pair| pair.1),
        cpuinfo.matches("processor\t").count(),
        read("/proc/sys/kernel/osrelease").trim(),
        version("runc"),
        version("crun")
    );
    match variable("PIN") {
        Some(cpu) => {
            process::pin(cpu.parse().map_err(|_| format!("PIN={cpu}: not the number of a CPU"))?)?;
            println!("all on CPU {cpu}; state, bundles and logs of all on one tmpfs");
        }
        None => println!(
            "not pinned to a CPU, as engines run it; state, bundles and logs of all on one tmpfs"
        ),
    }
    if rounds < FEWEST_ROUNDS {
        println!(
            "only {rounds} rounds: the medians will not repeat; use N={FEWEST_ROUNDS} or more"
        );
    }
    Ok(())
}

fn print_of_each_verb<'a>(
    title: &str,
    rows: impl IntoIterator<Item = &'a Row>,
    figure: impl Fn(&process::Argv) -> Result<u64>,
) -> Result<()> {
    println!("\n{title}\n{:<28}{:>9}{:>9}{:>9}", "", "create", "start", "delete");
    for row in rows {
        let figures = match &row.subject {
            Subject::Floor(_, floor) => vec![figure(floor.noop())?],
            Subject::Built(_, runtime) | Subject::Baseline(runtime) | Subject::Other(runtime) => {
                probe::of_each_verb(runtime, &figure)?.to_vec()
            }
        };
        print!("{:<28}", row.name);
        figures.iter().for_each(|figure| print!("{figure:>9}"));
        println!();
    }
    Ok(())
}

fn print_system_calls(rows: &[Row], scratch: &Path) -> Result<()> {
    println!("\nSystem calls of each verb (of the proxy, until start has ended it)");
    println!("{:<28}{:>9}{:>9}{:>9}{:>9}", "", "create", "proxy", "start", "delete");
    let mut detailed = Vec::new();
    for row in rows {
        let (runtime, other) = match &row.subject {
            Subject::Floor(..) => continue,
            Subject::Built(_, runtime) | Subject::Baseline(runtime) => (runtime, None),
            Subject::Other(runtime) => (runtime, Some(())),
        };
        let calls = probe::system_calls(runtime, scratch)?;
        print!("{:<28}", row.name);
        calls.iter().for_each(|calls| print!("{:>9}", calls.total()));
        println!();
        if other.is_none() {
            detailed.push((&row.name, calls));
        }
    }
    println!("  (of runc and crun, \"proxy\" is every other process that create starts)");
    for (name, calls) in detailed {
        println!("  {name}");
        for (verb, calls) in ["create", "proxy", "start", "delete"].iter().zip(calls) {
            println!("    {verb}: {calls}");
        }
    }
    Ok(())
}

fn print_proxies(builds: &[Build], rows: &[Row]) -> Result<Vec<Goal>> {
    println!(
        "\nThe proxy, KiB; private is the price of one more container, beside the kernel's own"
    );
    println!("{:<28}{:>9}{:>9}{:>9}{:>9}", "", "alive", "rss", "pss", "private");
    let mut goals = Vec::new();
    for row in rows {
        let runtime: &Runtime = match &row.subject {
            Subject::Built(_, runtime) | Subject::Baseline(runtime) => runtime,
            Subject::Floor(..) | Subject::Other(_) => continue,
        };
        for alive in [1, CROWD] {
            let probe::Weight { rss, pss, private } = probe::proxy(runtime, alive)?;
            println!("{:<28}{alive:>9}{rss:>9}{pss:>9}{private:>9}", row.name);
            let build = builds.iter().find(|build| alive == CROWD && build.name() == row.name);
            if let Some((build, limit)) = build.and_then(|it| Some((it, it.private_at_most_kib?))) {
                let libc = build.libc.name();
                goals.push(Goal::new(
                    format!("{libc}: proxy at most {limit} KiB private, {CROWD} alive"),
                    format!("{private} KiB"),
                    private <= limit,
                ));
            }
        }
    }
    Ok(goals)
}
