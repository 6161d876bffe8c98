//! The record of a deploy is a courtesy: where it cannot be kept, every verb does its work as always.

use crate::container::{Call, World};
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

/// What stands in the way of a record.
type Obstacle = fn(&Path, &str) -> Result<(), String>;

/// Every obstacle, with a container that works and one whose hooks fail.
pub(crate) fn obstacles(_: Extent, report: &mut Report) {
    let obstacles: [(&str, Obstacle); 7] = [
        ("/run is read-only", |_, _| mount_over_run("ro")),
        ("/run is full", |_, _| mount_over_run("size=4k,nr_inodes=1")),
        ("a file is where the folder should be", |folder, _| put(folder, "")),
        ("a dangling link is where the folder should be", |folder, _| {
            told(std::os::unix::fs::symlink("/nowhere/at/all", folder))
        }),
        ("the record is a folder", |folder, id| {
            told(fs::create_dir_all(folder.join(format!("{id}.json"))))
        }),
        ("the record is a FIFO", |folder, id| {
            told(fs::create_dir(folder))?;
            let path = folder.join(format!("{id}.json"));
            told(nix::unistd::mkfifo(&path, Mode::S_IRWXU).map_err(std::io::Error::from))
        }),
        ("the record is damaged", |folder, id| {
            told(fs::create_dir(folder))?;
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
    let mut world = World::new("w", Kind::Hooks);
    if let Some(verb) = fails {
        world.bundle.hook(verb, "echo this hook fails\nexit 1");
    }
    let mounted = crate::container::mounts();
    let outcome = obstacle(&trial_process::records(), &world.id).and_then(|()| {
        world.mounts = crate::container::mounts();
        live(&world, fails)
    });
    if crate::container::mounts() != mounted {
        command("umount", &["/run"])?;
    }
    outcome
}

fn live(world: &World, fails: Option<&str>) -> Result<(), String> {
    let says = |finished: &Finished| crate::swept_verbs::refused(finished, "this hook fails");
    let created = world.run(Call::Create);
    if fails == Some("create") {
        says(&created)?;
        return world.was_never_there();
    }
    created.success()?;
    let started = world.run(Call::Start);
    if fails == Some("start") {
        says(&started)?
    } else {
        started.success().map(|_| ())?
    }
    world.becomes_stopped()?;
    world.run(Call::Delete).success()?;
    world.nothing_is_left()
}

fn mount_over_run(options: &str) -> Result<(), String> {
    command("mount", &["-t", "tmpfs", "-o", options, "stress", "/run"])
}

fn command(name: &str, arguments: &[&str]) -> Result<(), String> {
    processes::run(Command::new(name).args(arguments)).success().map(|_| ())
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    told(fs::write(path, text))
}

fn told(result: std::io::Result<()>) -> Result<(), String> {
    result.map_err(|error| format!("the obstacle itself: {error}"))
}
