//! What the manager costs beside the engine: `status` and the plans of `cleanup` with 1,000 containers,
//! 200 images and 200 volumes on a real dockerd, a real cleanup of 1,000 failed containers, and all of
//! them with 10,000 containers on a recorded engine.
//!
//! Run it by `make bench-manager`, which gives this program mounts and a network of its own, and all
//! data a tmpfs. `docker` is the real engine and what fills it, `recorded` the other one, `measure` one
//! run of the manager, `http` what speaks to engines and counts requests.

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

mod docker;
mod http;
mod measure;
mod recorded;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use docker::{Docker, Role, role};
use http::{Kinds, each};
use measure::Cost;
use recorded::Recording;
use serde_json::json;

/// Every failure ends the benchmark; nobody branches on one, so a sentence is enough.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CONTAINERS: usize = 1_000;
const MANY: usize = 10_000;
/// How many are removed without the manager, for comparison: over one connection, and over many.
const COMPARED: usize = 250;
const CONNECTIONS: usize = 16;
/// The goals of the house.
const OWN_TIME_AT_MOST: f64 = 0.05;
const PEAK_AT_MOST_KIB: u64 = 16 * 1024;
const RATE_AT_LEAST: f64 = 0.9;

/// What is measured: a name, and the manager's arguments.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("status", &["status"]),
    ("status, JSON", &["status", "--format=json"]),
    ("cleanup --dry-run", &["cleanup", "--dry-run"]),
    ("cleanup --stale-os --dry-run", &["cleanup", "--stale-os", "--dry-run"]),
    ("the same, JSON", &["cleanup", "--stale-os", "--dry-run", "--format=json"]),
];

fn main() -> ExitCode {
    let stage = std::env::var_os(measure::STAGE).is_some();
    match if stage { measure::stage() } else { run() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let dir = PathBuf::from(variable("BENCH_DIR").ok_or("run this by `make bench-manager`")?);
    let rounds = variable("N").map_or(Ok(5), |text| text.parse::<usize>())?.max(1);
    let bench =
        Bench { manager: dir.join("balena-extension-manager"), dir: dir.join("tmpfs"), rounds };
    bench.make_host()?;
    let mut goals = Vec::new();
    let recording = bench.on_a_real_engine(&mut goals)?;
    bench.on_a_recorded_engine(&recording, &mut goals)?;
    println!("\n{:<66}{:>22}  ", "goal", "measured");
    for Goal { what, measured, met } in &goals {
        println!("{what:<66}{measured:>22}  {}", if *met { "met" } else { "NOT MET" });
    }
    Ok(())
}

struct Bench {
    manager: PathBuf,
    dir: PathBuf,
    rounds: usize,
}

struct Goal {
    what: String,
    measured: String,
    met: bool,
}

/// One line of a table.
struct Line<'a> {
    name: &'a str,
    cost: Cost,
    engine: Option<Duration>,
    requests: usize,
}

impl Line<'_> {
    fn title() {
        println!(
            "{:<32}{:>10}{:>12}{:>14}{:>10}{:>12}{:>10}{:>12}",
            "",
            "requests",
            "wall, ms",
            "engine, ms",
            "own, ms",
            "(in kernel)",
            "share",
            "peak, KiB"
        );
    }

    fn print(&self) {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let (engine, share) = match self.engine {
            Some(engine) => (ms(engine), format!("{:.1} %", self.share(engine) * 100.0)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let Cost { wall, cpu, system, peak_kib } = self.cost;
        println!(
            "{:<32}{:>10}{:>12}{engine:>14}{:>10}{:>12}{share:>10}{peak_kib:>12}",
            self.name,
            self.requests,
            ms(wall),
            ms(cpu),
            ms(system)
        );
    }

    fn share(&self, engine: Duration) -> f64 {
        self.cost.cpu.as_secs_f64() / engine.as_secs_f64()
    }
}

impl Bench {
    /// What the manager reads of the host.
    fn make_host(&self) -> Result<()> {
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
            ("proc/cmdline", "quiet\n"),
            ("proc/mounts", "/dev/sda2 / ext4 ro 0 0\n"),
            ("proc/stat", "btime 1700000000\n"),
            ("etc/os-release", "VERSION_ID=\"2.113.4\"\n"),
            ("run/placeholder", ""),
        ] {
            let path = self.host().join(path);
            fs::create_dir_all(path.parent().ok_or("a path without a folder")?)?;
            fs::write(path, text)?;
        }
        Ok(())
    }

    fn host(&self) -> PathBuf {
        self.dir.join("host")
    }

    fn manage(&self, socket: &Path, words: &[&str]) -> Result<(Cost, String, usize)> {
        let host = format!("--host-root={}", self.host().display());
        measure::run(&self.manager, socket, &[&[host.as_str()], words].concat())
    }

    fn on_a_real_engine(&self, goals: &mut Vec<Goal>) -> Result<Recording> {
        let mut docker = Docker::start(&self.dir.join("docker"))?;
        docker.fill()?;
        let all = [Role::Current, Role::Stale, Role::Foreign];
        docker.create("container", &all, CONTAINERS)?;
        docker.rewrite(|_, _| {})?;
        println!(
            "{CONTAINERS} containers, {} images, {} volumes on a real dockerd; medians of {} runs",
            docker::IMAGES,
            docker::VOLUMES,
            self.rounds
        );
        Line::title();
        for (name, words) in QUESTIONS {
            self.ask_the_real_engine(&docker, name, words, goals)?;
        }
        let recording = Recording::take(&docker.socket())?;
        self.count_requests(&docker, goals)?;
        self.clean_up(&mut docker, goals)?;
        docker.stop()?;
        Ok(recording)
    }

    fn ask_the_real_engine(
        &self,
        docker: &Docker,
        name: &str,
        words: &[&str],
        goals: &mut Vec<Goal>,
    ) -> Result<()> {
        let socket = docker.socket();
        let mut requests = self.manage(&socket, words)?.2;
        let mut costs = Vec::new();
        // Together: the kernel tells an engine's time in hundredths of a second.
        let before = docker.cpu()?;
        for _ in 0..self.rounds {
            let (cost, text, sent) = self.manage(&socket, words)?;
            expect(name, &text)?;
            (costs, requests) = ([costs, vec![cost]].concat(), sent);
        }
        let rounds = u32::try_from(self.rounds)?;
        let engine = (docker.cpu()? - before) / rounds;
        let line = Line { name, cost: medians(&costs), engine: Some(engine), requests };
        line.print();
        goals.push(Goal {
            what: format!(
                "{name}: own time below {:.0} % of the engine's",
                OWN_TIME_AT_MOST * 100.0
            ),
            measured: format!("{:.1} %", line.share(engine) * 100.0),
            met: line.share(engine) < OWN_TIME_AT_MOST,
        });
        Ok(())
    }

    /// A run through a relay, which is not timed.
    fn count_requests(&self, docker: &Docker, goals: &mut Vec<Goal>) -> Result<()> {
        let relay = self.dir.join("relay");
        let kinds = http::relay(&relay, docker.socket())?;
        println!("\nrequests by kind, on the real engine");
        for (name, words) in QUESTIONS.iter().filter(|(name, _)| !name.contains("JSON")) {
            self.manage(&relay, words)?;
            let asked = std::mem::take(&mut *kinds.lock().map_err(|_| "a thread panicked")?);
            println!("{name:<32}{}", shown(&asked));
            goals.push(forced(name, &asked));
        }
        Ok(())
    }

    fn clean_up(&self, docker: &mut Docker, goals: &mut Vec<Goal>) -> Result<()> {
        let extensions = (0..CONTAINERS).filter(|index| role(*index) != Role::Foreign).count();
        docker.create("more", &[Role::Current], CONTAINERS - extensions)?;
        for prefix in ["one", "many", "later"] {
            docker.create(prefix, &[Role::Foreign], COMPARED)?;
        }
        docker.rewrite(|_, state| {
            state["Error"] = json!("OCI runtime create failed: hook hooks/create: unknown");
            state["ExitCode"] = json!(128);
        })?;
        let socket = docker.socket();
        println!("\nremoving, containers a second; the engine's processors in use");
        let busy = |name: &str, count: usize, began: Instant, before: Duration| -> Result<f64> {
            let wall = began.elapsed().as_secs_f64();
            let rate = count as f64 / wall;
            let used = (docker.cpu()? - before).as_secs_f64() / wall;
            println!("{name:<50}{rate:>10.1}{used:>10.2}");
            Ok(rate)
        };
        // The same requests, by a client that does nothing else.
        let bare = |prefix: &str, connections: usize| -> Result<f64> {
            let (began, before) = (Instant::now(), docker.cpu()?);
            each(&socket, connections, COMPARED, |client, index| {
                let name = format!("/containers/{prefix}-{index}");
                client.call("GET", &format!("{name}/json"), b"")?;
                client.call("DELETE", &format!("{name}?v=true&force=true"), b"").map(drop)
            })?;
            let name = format!("{COMPARED} by a bare client over {connections} connections");
            busy(&name, COMPARED, began, before)
        };
        bare("one", 1)?;
        let before_it = bare("many", CONNECTIONS)?;
        let (began, before) = (Instant::now(), docker.cpu()?);
        let (cost, text, requests) = self.manage(&socket, &["cleanup"])?;
        let rate = busy(&format!("{CONTAINERS} by the manager"), CONTAINERS, began, before)?;
        let engine = docker.cpu()? - before;
        // Other work on the machine comes and goes.
        let best = (before_it + bare("later", CONNECTIONS)?) / 2.0;
        if !text.contains(&format!("{CONTAINERS} removed, 0 kept, 0 failed")) {
            return Err(format!("the cleanup did something else: {text}").into());
        }
        Line::title();
        let line = Line { name: "cleanup", cost, engine: Some(engine), requests };
        line.print();
        goals.push(Goal {
            what: format!(
                "cleanup of {CONTAINERS}: own time below {:.0} % of the engine's",
                OWN_TIME_AT_MOST * 100.0
            ),
            measured: format!("{:.1} %", line.share(engine) * 100.0),
            met: line.share(engine) < OWN_TIME_AT_MOST,
        });
        goals.push(Goal {
            what: format!(
                "cleanup of {CONTAINERS}: a ping, a list; each inspected, and again right before its removal"
            ),
            measured: format!("{requests} requests"),
            met: requests == 2 + 3 * CONTAINERS,
        });
        goals.push(Goal {
            what: format!("cleanup of {CONTAINERS}: at least {RATE_AT_LEAST} x the rate of {CONNECTIONS} bare connections"),
            measured: format!("{:.2} x", rate / best),
            met: rate / best >= RATE_AT_LEAST,
        });
        Ok(())
    }

    fn on_a_recorded_engine(&self, recording: &Recording, goals: &mut Vec<Goal>) -> Result<()> {
        let socket = self.dir.join("recorded");
        let counter = recorded::serve(&socket, recording, MANY, CONTAINERS)?;
        println!("\n{MANY} containers on a recorded engine; medians of {} runs", self.rounds);
        Line::title();
        for (name, words) in QUESTIONS.into_iter().chain([("cleanup", &["cleanup"][..])]) {
            let mut costs = Vec::new();
            let mut requests = 0;
            for _ in 0..self.rounds {
                counter.take();
                let (cost, _, sent) = self.manage(&socket, words)?;
                (costs, requests) = ([costs, vec![cost]].concat(), sent);
            }
            let line = Line { name, cost: medians(&costs), engine: None, requests };
            line.print();
            let asked = counter.take();
            println!("{:<32}{}", "", shown(&asked));
            let peak = costs.iter().map(|cost| cost.peak_kib).max().unwrap_or_default();
            goals.push(Goal {
                what: format!("{name}, {MANY}: peak below {} MiB", PEAK_AT_MOST_KIB / 1024),
                measured: format!("{:.1} MiB", peak as f64 / 1024.0),
                met: peak < PEAK_AT_MOST_KIB,
            });
        }
        Ok(())
    }
}

/// What each answer must have, so that nothing is measured but the real thing.
fn expect(name: &str, text: &str) -> Result<()> {
    let count = |wanted: &[Role]| (0..CONTAINERS).filter(|it| wanted.contains(&role(*it))).count();
    let extensions = count(&[Role::Current, Role::Stale]);
    let expected = match name {
        "status" => (text.matches(" exited ").count(), extensions),
        "status, JSON" => (text.matches("\"verdict\":").count(), extensions),
        "cleanup --dry-run" => (usize::from(text.starts_with("0 would be removed")), 1),
        // Containers, and all their images and volumes.
        "cleanup --stale-os --dry-run" => {
            (text.matches("remove   ").count(), count(&[Role::Stale]) + 20 + 20)
        }
        _ => (text.matches("\"action\": \"remove\"").count(), count(&[Role::Stale]) + 20 + 20),
    };
    match expected {
        (found, wanted) if found == wanted => Ok(()),
        (found, wanted) => {
            let head: String = text.chars().take(2000).collect();
            Err(format!("{name}: {found} found, {wanted} expected in {head}").into())
        }
    }
}

/// No list says when a container was started, which layers it has, or whether it failed (one that could
/// not be started again stays `Exited (0)` there): each has to be inspected. Sizes of volumes are in no
/// list either.
fn forced(name: &str, asked: &Kinds) -> Goal {
    let count = |wanted: &[Role]| (0..CONTAINERS).filter(|it| wanted.contains(&role(*it))).count();
    let inspections = count(&[Role::Current, Role::Stale]);
    let lists = match name {
        "status" | "cleanup --dry-run" => 1,
        _ => 4,
    };
    let (sent, needed) = (asked.values().sum::<usize>(), 1 + lists + inspections);
    Goal {
        what: format!("{name}: 1 ping, lists: {lists}, inspections: {inspections}"),
        measured: format!("{sent} requests"),
        met: sent == needed,
    }
}

fn shown(kinds: &Kinds) -> String {
    let all: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    all.join(", ")
}

fn medians(costs: &[Cost]) -> Cost {
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
