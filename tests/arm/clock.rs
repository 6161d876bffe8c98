//! A whole life of a container with the machine's clock in the year 2040, which a 32-bit number of seconds since 1970
//! cannot express: every time that is written or printed is of that year.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::{Value, json};

use crate::root::PROGRAMS;

/// 2040-01-01, noon.
const LATE: i64 = 2_209_032_000;
const YEAR: &str = "2040-01-01T12:0";

pub(crate) fn check() {
    let before = clock_gettime(ClockId::Realtime);
    let late = Timespec { tv_sec: LATE, tv_nsec: 0 };
    clock_settime(ClockId::Realtime, late).expect("set the clock");
    for id in ["hooks", "refused"] {
        live(Path::new("/tmp/clock"), id);
    }
    clock_settime(ClockId::Realtime, before).expect("set the clock back");
    println!("the clock was in 2040, and so was every time");
}

fn live(folder: &Path, id: &str) {
    let bundle = folder.join(id);
    fs::create_dir_all(bundle.join("rootfs/hooks")).unwrap();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["/none"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "annotations": { "io.balena.image.class": "overlay" }
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let status = if id == "refused" { 3 } else { 0 };
    for verb in ["create", "start"] {
        let script = format!(
            "#!/bin/sh\necho {verb} runs\nexit $(( {status} * {} ))\n",
            u8::from(verb == "start")
        );
        let hook = bundle.join("rootfs/hooks").join(verb);
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let log = folder.join(format!("{id}.log"));
    let runtime = |words: &[&str]| {
        let mut command = Command::new(format!("{PROGRAMS}/balena-extension-runtime"));
        command.arg("--root").arg(folder.join("state")).arg("--log").arg(&log);
        // A file, because the proxy keeps it open.
        let output = fs::File::create(folder.join("output")).unwrap();
        let errors = output.try_clone().unwrap();
        let status = command.args(["--debug", "--log-format", "json"]).args(words);
        let status = status.stdin(Stdio::null()).stdout(output).stderr(errors).status().unwrap();
        let printed = fs::read_to_string(folder.join("output")).unwrap();
        println!("{} {id}: {status}\n{printed}", words[0]);
        (status.success(), printed)
    };
    assert!(runtime(&["create", "--bundle", bundle.to_str().unwrap(), id]).0);
    let (known, state) = runtime(&["state", id]);
    assert!(known);
    let state: Value = serde_json::from_str(&state).unwrap();
    is_late(&state["created"]);
    let (listed, list) = runtime(&["list", "--format", "json"]);
    assert!(listed);
    let list: Value = serde_json::from_str(&list).unwrap();
    is_late(&list[0]["created"]);
    assert_eq!(runtime(&["start", id]).0, id != "refused");

    let record = format!("/run/balena-extension-runtime-deploys/{id}.json");
    let record = fs::read_to_string(&record).unwrap_or_else(|error| panic!("{record}: {error}"));
    println!("{record}");
    let record: Value = serde_json::from_str(&record).unwrap();
    let calls = all_times(&record);
    assert_eq!(calls.len(), 2, "create and start: {calls:?}");
    let shown =
        printed(Command::new(format!("{PROGRAMS}/balena-extension-manager")).args(["logs", id]));
    assert_eq!(shown.matches(YEAR).count(), 2, "{shown}");
    assert!(shown.contains("start runs"), "{shown}");

    assert!(runtime(&["delete", "--force", id]).0);
    let log = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 2, "{log}");
    lines.iter().for_each(|line| is_late(&line["time"]));
}

#[track_caller]
fn is_late(time: &Value) {
    assert!(time.as_str().is_some_and(|time| time.starts_with(YEAR)), "{time}");
}

/// Every field `time` in a document, each of which is late.
fn all_times(value: &Value) -> Vec<&Value> {
    let mut times = Vec::new();
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "time" {
                    is_late(field);
                    times.push(field);
                }
                times.extend(all_times(field));
            }
        }
        Value::Array(values) => values.iter().for_each(|value| times.extend(all_times(value))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    times
}

fn printed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(status.success(), "{status}: {}", text(&stderr));
    println!("{}", text(&stdout));
    text(&stdout)
}
