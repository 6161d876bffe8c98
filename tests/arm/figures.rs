//! The time of a container's life in the emulated machine, beside that of a program that does nothing: emulated
//! machines differ in speed, but hardly in this relation.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::parts::MARK;
use crate::root::PROGRAMS;

/// The stage of this program that does nothing.
pub(crate) const NOTHING: &str = "in-guest-nothing";
const ROUNDS: usize = 40;

pub(crate) fn measure() {
    let folder = Path::new("/tmp/figures");
    fs::create_dir_all(folder.join("rootfs")).unwrap();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["/none"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "annotations": { "io.balena.image.class": "overlay" }
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let runtime = || {
        let mut command = Command::new(format!("{PROGRAMS}/balena-extension-runtime"));
        command.arg("--root").arg(folder.join("state"));
        command
    };
    let [mut nothing, mut create, mut life] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        nothing.push(time(Command::new("/proc/self/exe").arg(NOTHING)));
        let created = time(runtime().args(["create", "--bundle"]).arg(folder).arg("x"));
        let rest = time(runtime().args(["start", "x"])) + time(runtime().args(["delete", "x"]));
        create.push(created);
        life.push(created + rest);
    }
    let [nothing, create, life] = [nothing, create, life].map(median);
    let size = |name: &str| fs::metadata(format!("{PROGRAMS}/{name}")).unwrap().len();
    println!(
        "{MARK}figures: runtime {} bytes, manager {} bytes; medians of {ROUNDS}: a program that does nothing {:.2} ms, \
         create {:.2} ms ({:.1} of it), create, start and delete {:.2} ms ({:.1} of it)",
        size("balena-extension-runtime"),
        size("balena-extension-manager"),
        milliseconds(nothing),
        milliseconds(create),
        create.as_secs_f64() / nothing.as_secs_f64(),
        milliseconds(life),
        life.as_secs_f64() / nothing.as_secs_f64(),
    );
}

fn time(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status().unwrap();
    let took = started.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
