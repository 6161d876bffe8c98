//! The cost of the manager beside the engine's: `status` and the plans of `cleanup` with 1,000 containers,
//! 200 images and 200 volumes on a real dockerd, a real cleanup of 1,000 failed containers, and all of
//! them with 10,000 containers on a recorded engine. All data is on a tmpfs.
//!
//! `docker` runs the real engine and fills it, `recorded` is the other engine, `cost` measures one run of
//! the manager, `line` prints it, `http` talks to engines and counts requests.

mod cost;
mod docker;
mod http;
mod line;
mod recorded;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::goal::{self, Goal};
use crate::{Result, prepared, rounds};
use cost::{Cost, medians};
pub(crate) use cost::{MEASURE, measure};
use docker::{Docker, Role, role};
use http::{Kinds, each};
use line::Line;
use recorded::Recording;
use serde_json::json;

const CONTAINERS: usize = 1_000;
const MANY: usize = 10_000;
/// The number of containers that a bare client removes, for comparison: over one connection, and over many.
const COMPARED: usize = 250;
const CONNECTIONS: usize = 16;
const PEAK_AT_MOST_KIB: u64 = 16 * 1024;
const RATE_AT_LEAST: f64 = 0.9;

/// The runs that are measured: a name, and the manager's arguments.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("status", &["status"]),
    ("status, JSON", &["status", "--format=json"]),
    ("cleanup --dry-run", &["cleanup", "--dry-run"]),
    ("cleanup --stale-os --dry-run", &["cleanup", "--stale-os", "--dry-run"]),
    ("the same, JSON", &["cleanup", "--stale-os", "--dry-run", "--format=json"]),
];

/// Runs the benchmark, and prints its tables.
pub(crate) fn run() -> Result<()> {
    let bench = Bench {
        manager: prepared("BENCH_DIR")?.join("balena-extension-manager"),
        dir: prepared("SCRATCH")?,
        rounds: rounds(5)?,
    };
    bench.make_host()?;
    let mut goals = Vec::new();
    let recording = bench.on_a_real_engine(&mut goals)?;
    bench.on_a_recorded_engine(&recording, &mut goals)?;
    goal::print(goals);
    Ok(())
}

struct Bench {
    manager: PathBuf,
    dir: PathBuf,
    rounds: usize,
}

impl Bench {
    /// Makes the files of the host that the manager reads.
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
            fs::create_dir_all(path.parent().ok_or("a path without a directory")?)?;
            fs::write(path, text)?;
        }
        Ok(())
    }

    fn host(&self) -> PathBuf {
        self.dir.join("host")
    }

    fn manage(&self, socket: &Path, words: &[&str]) -> Result<(Cost, String, usize)> {
        let host = format!("--host-root={}", self.host().display());
        cost::of(&self.manager, socket, &[&[host.as_str()], words].concat())
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
            self.measure_question(&docker, name, words, goals)?;
        }
        let recording = Recording::take(&docker.socket())?;
        self.count_requests(&docker, goals)?;
        self.clean_up(&mut docker, goals)?;
        docker.stop()?;
        Ok(recording)
    }

    fn measure_question(
        &self,
        docker: &Docker,
        name: &str,
        words: &[&str],
        goals: &mut Vec<Goal>,
    ) -> Result<()> {
        let socket = docker.socket();
        let mut requests = self.manage(&socket, words)?.2;
        let mut costs = Vec::new();
        // All rounds together, because the kernel counts an engine's time in hundredths of a second.
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
        goals.extend(line.own_time_goal());
        Ok(())
    }

    /// Counts the requests in a run through a relay, which is not timed.
    fn count_requests(&self, docker: &Docker, goals: &mut Vec<Goal>) -> Result<()> {
        let relay = self.dir.join("relay");
        let kinds = http::relay(&relay, docker.socket())?;
        println!("\nrequests by kind, on the real engine");
        for (name, words) in QUESTIONS.iter().filter(|(name, _)| !name.contains("JSON")) {
            self.manage(&relay, words)?;
            let asked = std::mem::take(&mut *kinds.lock().map_err(|_| "a thread panicked")?);
            println!("{name:<32}{}", listed(&asked));
            goals.push(request_goal(name, &asked));
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
        println!("\nremoving: containers per second, and the processors that the engine uses");
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
        // The mean of before and after, because other work on the machine varies.
        let best = (before_it + bare("later", CONNECTIONS)?) / 2.0;
        if !text.contains(&format!("{CONTAINERS} removed, 0 kept, 0 failed")) {
            return Err(format!("the cleanup removed something else: {text}").into());
        }
        Line::title();
        let line = Line { name: "cleanup", cost, engine: Some(engine), requests };
        line.print();
        goals.extend(line.own_time_goal());
        goals.push(Goal::new(
            "cleanup: a ping, two lists; each container inspected, and again right before its removal"
                .to_owned(),
            format!("{requests} requests"),
            requests == 3 + 3 * CONTAINERS,
        ));
        goals.push(Goal::new(
            format!(
                "cleanup: at least {RATE_AT_LEAST} x the rate of {CONNECTIONS} bare connections"
            ),
            format!("{:.2} x", rate / best),
            rate / best >= RATE_AT_LEAST,
        ));
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
            println!("{:<32}{}", "", listed(&asked));
            let peak = costs.iter().map(|cost| cost.peak_kib).max().unwrap_or_default();
            goals.push(Goal::new(
                format!("{name}, {MANY}: peak below {} MiB", PEAK_AT_MOST_KIB / 1024),
                format!("{:.1} MiB", peak as f64 / 1024.0),
                peak < PEAK_AT_MOST_KIB,
            ));
        }
        Ok(())
    }
}

/// Checks the manager's output, so that a run that did something else is not measured.
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

/// The manager must send as many requests as it needs, and no more. It must inspect each extension, because no
/// list says when a container was started, which layers it has, or whether it failed (a container that could not
/// be started again is still `Exited (0)` in it). The sizes of volumes are not in their list either.
fn request_goal(name: &str, asked: &Kinds) -> Goal {
    let count = |wanted: &[Role]| (0..CONTAINERS).filter(|it| wanted.contains(&role(*it))).count();
    let inspections = count(&[Role::Current, Role::Stale]);
    let lists = match name {
        // The second answer names the engine's runtimes.
        "status" => 2,
        // Volumes and containers.
        "cleanup --dry-run" => 2,
        _ => 4,
    };
    let (sent, needed) = (asked.values().sum::<usize>(), 1 + lists + inspections);
    Goal::new(
        format!("{name}: 1 ping, lists (and /info): {lists}, inspections: {inspections}"),
        format!("{sent} requests"),
        sent == needed,
    )
}

fn listed(kinds: &Kinds) -> String {
    let all: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    all.join(", ")
}
