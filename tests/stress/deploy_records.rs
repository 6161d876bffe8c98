//! Deploy records are optional: every verb works as always if the record cannot be kept.

use crate::container::{Call, Container};
use crate::finished::Finished;
use crate::kind::Kind;
use crate::processes;
use crate::report::Report;
use crate::trial_process;
use crate::trials::Extent;
use nix::sys::stat::Mode;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes it impossible to keep a record.
type Obstacle = fn(&Path, &str) -> Result<(), String>;

/// Every obstacle, with a container that works and one whose hooks fail.
pub(crate) fn obstacles(_: Extent, report: &mut Report) {
    let obstacles: [(&str, Obstacle); 7] = [
        ("/run is read-only", |_, _| mount_over_run("ro")),
        ("/run is full", |_, _| mount_over_run("size=4k,nr_inodes=1")),
        ("a file is where the folder should be", |folder, _| put(folder, "")),
        ("a dangling link is where the folder should be", |folder, _| {
            described(std::os::unix::fs::symlink("/nowhere/at/all", folder))
        }),
        ("the record is a folder", |folder, id| {
            described(fs::create_dir_all(folder.join(format!("{id}.json"))))
        }),
        ("the record is a FIFO", |folder, id| {
            described(fs::create_dir(folder))?;
            let path = folder.join(format!("{id}.json"));
            described(nix::unistd::mkfifo(&path, Mode::S_IRWXU).map_err(std::io::Error::from))
        }),
        ("the record is damaged", |folder, id| {
            described(fs::create_dir(folder))?;
            put(&folder.join(format!("{id}.json")), "[\"not a record\"")
        }),
    ];
    for (what, obstacle) in obstacles {
        for fails in [None, Some("create"), Some("start"), Some("delete")] {
            let outcome = live_with(obstacle, fails);
            report.judge(format_args!("{what}, with {fails:?} failing"), outcome);
        }
    }
    report.note(format_args!(
        "{} obstacles to the record of a deploy, four lives each",
        obstacles.len()
    ));
}

fn live_with(obstacle: Obstacle, fails: Option<&str>) -> Result<(), String> {
    let mut container = Container::new("w", Kind::Hooks);
    if let Some(verb) = fails {
        container.bundle.hook(verb, "echo this hook fails\nexit 1");
    }
    let mounted = crate::container::mounts();
    let outcome = obstacle(&trial_process::records(), &container.id).and_then(|()| {
        container.mounts = crate::container::mounts();
        live(&container, fails)
    });
    if crate::container::mounts() != mounted {
        command("umount", &["/run"])?;
    }
    outcome
}

fn live(container: &Container, fails: Option<&str>) -> Result<(), String> {
    let says = |finished: &Finished| crate::swept_verbs::refused(finished, "this hook fails");
    let created = container.run(Call::Create);
    if fails == Some("create") {
        says(&created)?;
        return container.nothing_was_created();
    }
    created.success()?;
    let started = container.run(Call::Start);
    if fails == Some("start") {
        says(&started)?
    } else {
        started.success().map(|_| ())?
    }
    container.await_stopped()?;
    container.run(Call::Delete).success()?;
    container.nothing_is_left()
}

fn mount_over_run(options: &str) -> Result<(), String> {
    command("mount", &["-t", "tmpfs", "-o", options, "stress", "/run"])
}

fn command(name: &str, arguments: &[&str]) -> Result<(), String> {
    processes::run(Command::new(name).args(arguments)).success().map(|_| ())
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    described(fs::write(path, text))
}

fn described(result: std::io::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("the obstacle itself: {error}"))
}
