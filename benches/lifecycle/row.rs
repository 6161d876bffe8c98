//! The rows of a table: each is one thing that is timed, and its samples.

use std::path::Path;
use std::time::{Duration, Instant};

use super::build::{Build, Libc, baseline};
use super::process;
use super::shuffle::Shuffle;
use super::subject::{Floor, Life, Network, Runtime, container_bundle, extension_bundle};
use crate::Result;
use crate::goal::{Goal, Verdict};

/// Rounds whose samples are thrown away, until files are cached and pages are mapped.
const WARM_UP: usize = 5;
/// Above this share of a CPU, the medians say more about the other work than about the subjects.
const OTHERS_AT_MOST: f64 = 0.15;
/// A life takes at most this share of the baseline's.
const OF_BASELINE_AT_MOST: f64 = 0.85;

/// One thing that is timed, and its samples.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) subject: Subject,
    samples: Vec<Life>,
}

pub(super) enum Subject {
    Floor(Libc, Floor),
    /// A build of this checkout.
    Built(Libc, Runtime),
    /// The runtime of an older commit.
    Baseline(Runtime),
    /// runc or crun.
    Other(Runtime),
}

/// Everything that is timed in one interleaved run.
pub(super) fn rows(
    builds: &[Build],
    dir: &Path,
    scratch: &Path,
    network: Network,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |name: String, subject| rows.push(Row { name, subject, samples: Vec::new() });
    let extension = |path: &Path, network, id: &str| {
        Runtime::new(path, scratch, &extension_bundle(scratch, network)?, id)
    };
    for build in builds {
        let libc = build.libc.name();
        let floor = Floor::new(&build.noop())?;
        add(format!("floor: 4 no-ops, {libc}"), Subject::Floor(build.libc, floor));
        let runtime = extension(&build.runtime(), network, &format!("bench-{libc}"))?;
        add(build.name(), Subject::Built(build.libc, runtime));
        if network == Network::Own {
            let id = format!("bench-cgroup-{libc}");
            let runtime = extension(&build.runtime(), Network::OwnAndCgroup, &id)?;
            add("  with a cgroup too".to_owned(), Subject::Built(build.libc, runtime));
        }
    }
    if let Some(path) = baseline(dir) {
        let runtime = extension(&path, network, "bench-baseline")?;
        add("baseline".to_owned(), Subject::Baseline(runtime));
    }
    // The container is the smallest no-op: that of the first build, which is musl where there is one.
    let noop = builds.first().ok_or("nothing to measure")?.noop();
    let bundle = container_bundle(scratch, network, &noop)?;
    for name in ["crun", "runc"] {
        let path = process::find(name)?;
        let runtime = Runtime::new(&path, scratch, &bundle, &format!("bench-{name}"))?;
        add(name.to_owned(), Subject::Other(runtime));
    }
    Ok(rows)
}

/// Takes the samples, and returns how much of a CPU other work took meanwhile, as a fraction.
pub(super) fn measure(rows: &mut [Row], rounds: usize) -> Result<f64> {
    let count = rows.len();
    let begin = (Instant::now(), process::busy()? - process::own()?);
    let mut order: Vec<usize> = (0..count).collect();
    let mut shuffle = Shuffle(1);
    for round in 0..WARM_UP + rounds {
        process::interrupted()?;
        shuffle.shuffle(&mut order);
        for &at in &order {
            let row = &mut rows[at];
            let life = match &row.subject {
                Subject::Floor(_, floor) => floor.life(),
                Subject::Built(_, runtime)
                | Subject::Baseline(runtime)
                | Subject::Other(runtime) => runtime.life(),
            }
            .map_err(|error| format!("{}: {error}", row.name))?;
            if round >= WARM_UP {
                row.samples.push(life);
            }
        }
    }
    process::no_child_left()?;
    let others = process::busy()? - process::own()? - begin.1;
    // Never negative: the two clocks count differently.
    Ok((others / begin.0.elapsed().as_secs_f64()).max(0.0))
}

pub(super) fn print_times(rows: &[Row], others: f64) {
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
        "{:<28}{:>8}{:>8}{:>8}{:>8}{:>8}{:>15}{:>8}{:>8}{:>8}",
        "",
        "create",
        "start",
        "exit",
        "delete",
        "life",
        "(middle 80 %)",
        "/floor",
        "runc/",
        "base/"
    );
    for row in rows {
        let part = |part: fn(&Life) -> Duration| row.quantile(part, 0.5);
        print!("{:<28}", row.name);
        match row.subject {
            Subject::Floor(..) => print!("{:>32}", ""),
            Subject::Built(..) | Subject::Baseline(_) | Subject::Other(_) => print!(
                "{:>8.0}{:>8.0}{:>8.0}{:>8.0}",
                part(|life| life.create),
                part(|life| life.start),
                part(|life| life.exit),
                part(|life| life.delete)
            ),
        }
        let range = format!(
            "({:.0}-{:.0})",
            row.quantile(Life::whole, 0.1),
            row.quantile(Life::whole, 0.9)
        );
        print!("{:>8.0}{range:>15}", row.life());
        let ratio = |ratio: Option<f64>| {
            ratio.map_or_else(|| format!("{:>8}", "-"), |ratio| format!("{ratio:>8.2}"))
        };
        println!(
            "{}{}{}",
            ratio(row.floor(rows).map(|floor| row.life() / floor)),
            ratio(runc(rows).map(|runc| runc / row.life())),
            ratio(of_baseline(rows).map(|baseline| baseline / row.life()))
        );
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

    /// The median life of the floor with the same C library, in µs.
    fn floor(&self, rows: &[Row]) -> Option<f64> {
        let (Subject::Floor(own, _) | Subject::Built(own, _)) = self.subject else { return None };
        rows.iter()
            .find(|row| matches!(row.subject, Subject::Floor(libc, _) if libc == own))
            .map(Row::life)
    }
}

fn runc(rows: &[Row]) -> Option<f64> {
    rows.iter().find(|row| row.name == "runc").map(Row::life)
}

fn of_baseline(rows: &[Row]) -> Option<f64> {
    rows.iter().find(|row| matches!(row.subject, Subject::Baseline(_))).map(Row::life)
}

/// The goals that are times, which other work on the machine makes worthless.
pub(super) fn time_goals(build: &Build, rows: &[Row], others: f64) -> Vec<Goal> {
    let Some(row) = rows.iter().find(|row| row.name == build.name()) else {
        return Vec::new();
    };
    let (libc, life) = (build.libc.name(), row.life());
    let mut goals = Vec::new();
    if let Some(floor) = row.floor(rows) {
        let limit = build.life_at_most_floors;
        goals.push(Goal::new(
            format!("{libc}: life at most {limit} x its floor"),
            format!("{:.2} x", life / floor),
            life / floor <= limit,
        ));
    }
    if let (Some(limit), Some(runc)) = (build.at_least_times_runc, runc(rows)) {
        goals.push(Goal::new(
            format!("{libc}: at least {limit} x as fast as runc"),
            format!("{:.1} x", runc / life),
            runc / life >= limit,
        ));
    }
    if let (Libc::Musl, Some(baseline)) = (build.libc, of_baseline(rows)) {
        goals.push(Goal::new(
            format!("{libc}: life at most {:.0} % of the baseline's", OF_BASELINE_AT_MOST * 100.0),
            format!("{:.1} %", life / baseline * 100.0),
            life / baseline <= OF_BASELINE_AT_MOST,
        ));
    }
    if others > OTHERS_AT_MOST {
        goals.iter_mut().for_each(|goal| goal.verdict = Verdict::Unsure);
    }
    goals
}
