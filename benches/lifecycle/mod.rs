//! What a container's life costs: create, start and delete of an extension without hooks, against
//! runc, crun and the floor, which is four executions of a C program that does nothing (three for
//! the verbs, one for the proxy).
//!
//! Run it by `make bench`: it builds what is measured, and gives this program a mount namespace of
//! its own with a tmpfs for all state, so that no runtime waits for a disk. Everything is interleaved
//! in one run, in a shuffled order, so that what disturbs the machine disturbs all alike.
//!
//! `process` starts and waits; `subject` is what is measured; `probe` looks at one verb at a time
//! from outside: memory, system calls, instructions.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table on the terminal is what a benchmark is for"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the rules on files and the environment are for the runtime; this is scratch data"
)]
#![allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "statistics on samples of known number; a failed expectation ends the benchmark, as it must"
)]

mod probe;
mod process;
mod shuffle;
mod subject;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use subject::{Floor, Life, Network, Runtime};

/// Every failure ends the benchmark; nobody branches on one, so a sentence is enough.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rounds that are run and forgotten, until files are cached and pages are mapped.
const WARM_UP: usize = 5;
/// Fewer rounds than this make medians that do not repeat.
const FEWEST_ROUNDS: usize = 200;
/// Containers alive at once when the proxy is weighed: what they share is then not counted as private.
const CROWD: usize = 32;

/// A C library that the runtime can be linked with, and what is expected of that build.
struct Build {
    libc: &'static str,
    /// Directory with `balena-extension-runtime` and `noop`.
    dir: PathBuf,
    cycle_at_most_floors: f64,
    at_least_times_runc: Option<f64>,
    private_at_most_kib: Option<u64>,
    binary_at_most: u64,
}

/// One thing that is timed, and its samples.
struct Row {
    name: String,
    libc: &'static str,
    timed: Timed,
    samples: Vec<Life>,
}

enum Timed {
    Floor(Floor),
    Runtime(Runtime),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let dir = PathBuf::from(variable("BENCH_DIR").ok_or("run this by `make bench`")?);
    let rounds = match variable("N") {
        Some(text) => text.parse().map_err(|_| format!("N={text}: not a number of rounds"))?,
        None => 300,
    };
    let builds = builds(&dir);
    if builds.is_empty() {
        return Err(format!("{}: holds neither a musl nor a glibc build", dir.display()).into());
    }
    let scratch = process::Scratch::new(&dir.join("tmpfs"))?;

    println!("{}", machine());
    match variable("PIN") {
        Some(cpu) => {
            process::pin(cpu.parse().map_err(|_| format!("PIN={cpu}: not the number of a CPU"))?)?;
            println!("all on CPU {cpu}; state and bundles of all on one tmpfs");
        }
        None => println!(
            "not pinned to a CPU, as engines run it; state and bundles of all on one tmpfs"
        ),
    }
    if rounds < FEWEST_ROUNDS {
        println!(
            "only {rounds} rounds: the medians will not repeat; use N={FEWEST_ROUNDS} or more"
        );
    }

    let mut plain = rows(&builds, scratch.path(), Network::Inherited)?;
    let others = measure(&mut plain, rounds)?;
    println!("\nOne container's life without hooks, medians of {rounds} interleaved rounds, in µs");
    print_times(&plain, others);

    // Apart from the first, because the kernel tears a network namespace down after the fact, at
    // the expense of whatever runs then.
    let mut network = rows(&builds, scratch.path(), Network::Own)?;
    let others_later = measure(&mut network, rounds)?;
    println!("\nThe same with an own network namespace, as Docker asks for, and with a cgroup too");
    print_times(&network, others_later);

    let mut goals = Vec::new();
    let observer = probe::Observer::new(&dir.join("observe"), scratch.path());
    println!("\nPeak resident set of each verb, KiB");
    println!("{:<28}{:>9}{:>9}{:>9}", "", "create", "start", "delete");
    for row in &plain {
        let peaks = match &row.timed {
            Timed::Floor(floor) => vec![observer.peak(floor.noop())?],
            Timed::Runtime(runtime) => observer.verbs(runtime, probe::Observer::peak)?.to_vec(),
        };
        print!("{:<28}", row.name);
        peaks.iter().for_each(|peak| print!("{peak:>9}"));
        println!();
    }

    println!("\nThe proxy, KiB; private is what one more container costs beside the kernel's own");
    println!("{:<28}{:>9}{:>9}{:>9}{:>9}", "", "alive", "rss", "pss", "private");
    for build in &builds {
        let runtime = extension(build, scratch.path(), Network::Inherited, "proxy")?;
        for alive in [1, CROWD] {
            let weight = probe::proxy(&runtime, alive)?;
            let probe::Weight { rss, pss, private } = weight;
            println!("{:<28}{alive:>9}{rss:>9}{pss:>9}{private:>9}", build.name());
            if alive == CROWD
                && let Some(limit) = build.private_at_most_kib
            {
                goals.push(Goal::new(
                    format!("{}: proxy at most {limit} KiB private, {CROWD} alive", build.libc),
                    format!("{private} KiB"),
                    private <= limit,
                ));
            }
        }
    }

    println!("\nSystem calls of each verb (of the proxy, until start has ended it)");
    println!("{:<28}{:>9}{:>9}{:>9}{:>9}", "", "create", "proxy", "start", "delete");
    let mut named = Vec::new();
    for row in &plain {
        let Timed::Runtime(runtime) = &row.timed else { continue };
        let calls = probe::system_calls(runtime, scratch.path())?;
        print!("{:<28}", row.name);
        calls.iter().for_each(|calls| print!("{:>9}", calls.total()));
        println!();
        if row.libc != OTHERS {
            named.push((&row.name, calls));
        }
    }
    println!("  (of runc and crun, \"proxy\" is every other process that create starts)");
    for (name, calls) in named {
        println!("  {name}");
        for (verb, calls) in ["create", "proxy", "start", "delete"].iter().zip(calls) {
            println!("    {verb}: {calls}");
        }
    }

    print_instructions(&plain, &observer)?;

    println!("\nSize of the binary");
    for build in &builds {
        let size = std::fs::metadata(build.runtime())?.len();
        println!("{:<28}{size:>9} bytes", build.name());
        goals.push(Goal::new(
            format!("{}: binary at most {} MiB", build.libc, mebibytes(build.binary_at_most)),
            format!("{} MiB", mebibytes(size)),
            size <= build.binary_at_most,
        ));
        goals.extend(time_goals(build, &plain, others));
    }

    println!("\nGoals");
    goals.sort_by(|one, other| one.what.cmp(&other.what));
    for Goal { what, measured, verdict } in &goals {
        let verdict = match verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Unsure => "unsure (busy machine)",
        };
        println!("  {verdict:<7} {what}: {measured}");
    }
    for libc in ["glibc", "musl"] {
        if !builds.iter().any(|build| build.libc == libc) {
            println!("  NOT MEASURED: {libc}, which this machine could not build (see above)");
        }
    }
    scratch.remove()
}

/// The proxy is not followed: its instructions are those of another program.
fn print_instructions(rows: &[Row], observer: &probe::Observer) -> Result<()> {
    println!("\nInstructions of each verb: stepped through, and as callgrind counts them");
    println!("{:<28}{:>9}{:>9}{:>9}", "", "create", "start", "delete");
    for row in rows.iter().filter(|row| row.libc != OTHERS) {
        match &row.timed {
            Timed::Floor(floor) => {
                let callgrind = observer.callgrind(floor.noop())?;
                println!("no-op, {:<21}{:>9}", row.libc, observer.steps(floor.noop())?);
                println!("  callgrind{:<17}{:>9}", "", or_dash(callgrind));
            }
            Timed::Runtime(runtime) => {
                let [create, start, delete] = observer.verbs(runtime, probe::Observer::steps)?;
                println!("{:<28}{create:>9}{start:>9}{delete:>9}", row.name);
                let [create, start, delete] = observer.callgrind_verbs(runtime)?.map(or_dash);
                println!("  callgrind{:<17}{create:>9}{start:>9}{delete:>9}", "");
            }
        }
    }
    println!(
        "  (-: valgrind cannot run it. 3.19 knows neither openat2 nor pidfd_send_signal, and to"
    );
    println!("  a program under it /proc/self/exe is valgrind itself, so that no proxy can start)");
    Ok(())
}

fn or_dash(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// The rows of runtimes that are not ours, and so belong to no build.
const OTHERS: &str = "";

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The builds that `make bench` managed to make.
fn builds(dir: &Path) -> Vec<Build> {
    let musl = Build {
        libc: "musl",
        dir: dir.join("musl"),
        cycle_at_most_floors: 3.0,
        at_least_times_runc: Some(25.0),
        private_at_most_kib: Some(64),
        binary_at_most: 3 << 19,
    };
    let glibc = Build {
        libc: "glibc",
        dir: dir.join("glibc"),
        cycle_at_most_floors: 1.5,
        at_least_times_runc: None,
        private_at_most_kib: None,
        binary_at_most: 5 << 19,
    };
    [musl, glibc].into_iter().filter(|build| build.runtime().exists()).collect()
}

impl Build {
    fn name(&self) -> String {
        format!("extension runtime, {}", self.libc)
    }

    fn runtime(&self) -> PathBuf {
        self.dir.join("balena-extension-runtime")
    }

    fn noop(&self) -> PathBuf {
        self.dir.join("noop")
    }
}

fn extension(build: &Build, scratch: &Path, network: Network, id: &str) -> Result<Runtime> {
    let bundle = subject::extension_bundle(scratch, network)?;
    Runtime::new(&build.runtime(), scratch, &bundle, &format!("{id}-{}", build.libc))
}

/// Everything that is timed in one interleaved run.
fn rows(builds: &[Build], scratch: &Path, network: Network) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |name: String, libc, timed| {
        rows.push(Row { name, libc, timed, samples: Vec::new() });
    };
    for build in builds {
        let floor = Floor::new(&build.noop())?;
        add(format!("floor: 4 no-ops, {}", build.libc), build.libc, Timed::Floor(floor));
        let runtime = extension(build, scratch, network, "bench")?;
        add(build.name(), build.libc, Timed::Runtime(runtime));
        if network == Network::Own {
            let runtime = extension(build, scratch, Network::OwnAndCgroup, "bench-cgroup")?;
            add("  with a cgroup too".to_owned(), build.libc, Timed::Runtime(runtime));
        }
    }
    // The container is the smallest no-op there is: the first build's, musl where there is one.
    let noop = builds.first().ok_or("nothing to measure")?.noop();
    let bundle = subject::container_bundle(scratch, network, &noop)?;
    for name in ["crun", "runc"] {
        let path = process::find(name)?;
        let runtime = Runtime::new(&path, scratch, &bundle, &format!("bench-{name}"))?;
        add(name.to_owned(), OTHERS, Timed::Runtime(runtime));
    }
    Ok(rows)
}

/// Takes the samples, and returns how much of a CPU other work took meanwhile, as a fraction.
fn measure(rows: &mut [Row], rounds: usize) -> Result<f64> {
    let count = rows.len();
    let begin = (Instant::now(), process::busy()? - process::own()?);
    let mut order: Vec<usize> = (0..count).collect();
    let mut shuffle = shuffle::Shuffle(1);
    for round in 0..WARM_UP + rounds {
        process::interrupted()?;
        shuffle.shuffle(&mut order);
        for &at in &order {
            let row = &mut rows[at];
            let life = match &row.timed {
                Timed::Floor(floor) => floor.life(),
                Timed::Runtime(runtime) => runtime.life(),
            }
            .map_err(|error| format!("{}: {error}", row.name))?;
            if round >= WARM_UP {
                row.samples.push(life);
            }
        }
    }
    process::no_child_left()?;
    let others = process::busy()? - process::own()? - begin.1;
    // Not below nothing: the two clocks count differently.
    Ok((others / begin.0.elapsed().as_secs_f64()).max(0.0))
}

/// Above this, the medians say more about the other work than about what is measured.
const OTHERS_AT_MOST: f64 = 0.15;

fn print_times(rows: &[Row], others: f64) {
    println!(
        "other processes and the kernel's own work took {:.0} % of a CPU meanwhile{}",
        others * 100.0,
        if others > OTHERS_AT_MOST {
            ": DO NOT TRUST these times, measure on an idle machine"
        } else {
            ""
        }
    );
    println!(
        "{:<28}{:>9}{:>9}{:>9}{:>9}{:>9}{:>16}{:>9}{:>9}",
        "", "create", "start", "exit", "delete", "life", "(middle 80 %)", "/floor", "runc/"
    );
    let runc = rows.iter().find(|row| row.name == "runc").map(Row::life);
    for row in rows {
        let part = |part: fn(&Life) -> Duration| row.quantile(part, 0.5);
        let range = format!(
            "({:.0}-{:.0})",
            row.quantile(Life::whole, 0.1),
            row.quantile(Life::whole, 0.9)
        );
        print!("{:<28}", row.name);
        match row.timed {
            Timed::Floor(_) => print!("{:>36}", ""),
            Timed::Runtime(_) => print!(
                "{:>9.0}{:>9.0}{:>9.0}{:>9.0}",
                part(|life| life.create),
                part(|life| life.start),
                part(|life| life.exit),
                part(|life| life.delete)
            ),
        }
        print!("{:>9.0}{range:>16}", row.life());
        match floor_of(row.libc, rows) {
            Some(floor) => print!("{:>9.2}", row.life() / floor),
            None => print!("{:>9}", "-"),
        }
        match runc {
            Some(runc) => println!("{:>9.1}", runc / row.life()),
            None => println!(),
        }
    }
}

impl Row {
    /// The median life, in µs.
    fn life(&self) -> f64 {
        self.quantile(Life::whole, 0.5)
    }

    /// In µs; nearest rank.
    fn quantile(&self, part: fn(&Life) -> Duration, quantile: f64) -> f64 {
        let mut sorted: Vec<Duration> = self.samples.iter().map(part).collect();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted[(last as f64 * quantile).round() as usize].as_secs_f64() * 1e6
    }
}

fn floor_of(libc: &str, rows: &[Row]) -> Option<f64> {
    rows.iter().find(|row| row.libc == libc && matches!(row.timed, Timed::Floor(_))).map(Row::life)
}

/// Something that was promised of a build, and what was measured.
struct Goal {
    what: String,
    measured: String,
    verdict: Verdict,
}

#[derive(Clone, Copy)]
enum Verdict {
    Met,
    Missed,
    /// The machine was busy with something else, so a time proves nothing either way.
    Unsure,
}

impl Goal {
    fn new(what: String, measured: String, met: bool) -> Self {
        let verdict = if met { Verdict::Met } else { Verdict::Missed };
        Self { what, measured, verdict }
    }
}

/// The goals that are times, which other work on the machine makes worthless.
fn time_goals(build: &Build, rows: &[Row], others: f64) -> Vec<Goal> {
    let Some(life) = rows.iter().find(|row| row.name == build.name()).map(Row::life) else {
        return Vec::new();
    };
    let mut goals = Vec::new();
    if let Some(floor) = floor_of(build.libc, rows) {
        let limit = build.cycle_at_most_floors;
        goals.push(Goal::new(
            format!("{}: life at most {limit} x its floor", build.libc),
            format!("{:.2} x", life / floor),
            life / floor <= limit,
        ));
    }
    let runc = rows.iter().find(|row| row.name == "runc").map(Row::life);
    if let (Some(limit), Some(runc)) = (build.at_least_times_runc, runc) {
        goals.push(Goal::new(
            format!("{}: at least {limit} x as fast as runc", build.libc),
            format!("{:.1} x", runc / life),
            runc / life >= limit,
        ));
    }
    if others > OTHERS_AT_MOST {
        goals.iter_mut().for_each(|goal| goal.verdict = Verdict::Unsure);
    }
    goals
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / f64::from(1 << 20))
}

/// What the figures are figures of.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(": ").map(|pair| pair.1))
    };
    let version = |program| {
        let output = std::process::Command::new(program).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or(program).to_owned()
    };
    format!(
        "{}, {} CPUs, Linux {}; {}; {}",
        field("model name").unwrap_or("unknown CPU"),
        cpuinfo.matches("processor\t").count(),
        read("/proc/sys/kernel/osrelease").trim(),
        version("runc"),
        version("crun")
    )
}
