//! `simulate`: what it refuses, and that every power cut during a command leads to the same end. What it prints is
//! recorded in tests/golden/simulate.

use std::path::Path;

use tempfile::TempDir;

use super::host::bare;
use crate::capture::run;
use crate::finished::Finished;

/// Plays these words on a new device, or on the one that is there.
fn simulate(device: &Path, words: &str) -> Finished {
    let mut command = bare(&["simulate"]);
    run(command.args(words.split_whitespace()).arg("--host-root").arg(device))
}

fn device() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The lines of the block in the order of their names, the links, and the rejected kernels.
fn records(device: &Path) -> (Vec<String>, Vec<String>, String) {
    let block = std::fs::read_to_string(device.join("mnt/boot/bootenv")).unwrap();
    let mut lines: Vec<String> = block.trim_end_matches('#').lines().map(str::to_owned).collect();
    lines.sort();
    let links = std::fs::read_dir(device.join("mnt/data/boot-by-abi")).unwrap();
    let mut links: Vec<String> =
        links.map(|link| link.unwrap().file_name().into_string().unwrap()).collect();
    links.sort();
    let rejected = std::fs::read_to_string(device.join("mnt/state/override-rejected"));
    (lines, links, rejected.unwrap_or_default())
}

/// Cuts power after each step of `word`, and once after all of them, and continues with `rest`: the records must be those
/// of a run without the cut. Returns how many steps the word has.
fn cut_everywhere(before: &str, word: &str, rest: &str) -> u32 {
    let whole = device();
    simulate(whole.path(), &format!("{before} {word} boot {rest}")).ok();
    let expected = records(whole.path());
    for steps in 0.. {
        let cut = device();
        let finished = simulate(cut.path(), &format!("{before} cut={steps} {word}")).ok();
        assert!(finished.out.contains("=> running: off"), "{finished}");
        let is_complete = finished.out.contains("power is cut after all");
        let again = match is_complete {
            true => format!("boot {rest}"),
            false => format!("boot {word} boot {rest}"),
        };
        let again = simulate(cut.path(), &again).ok();
        assert_eq!(records(cut.path()), expected, "{word} cut after {steps}: {finished}{again}");
        if is_complete {
            return steps;
        }
    }
    unreachable!()
}

#[test]
fn a_power_cut_at_any_step_of_a_deploy_is_repaired_by_the_next_one() {
    assert_eq!(cut_everywhere("", "deploy=k", "healthy"), 3);
}

#[test]
fn a_power_cut_at_any_step_of_a_verdict_leads_to_the_same_verdict() {
    assert_eq!(cut_everywhere("deploy=k boot", "healthy", "healthy"), 2);
    assert_eq!(cut_everywhere("deploy=k boot", "unhealthy", "boot unhealthy boot healthy"), 6);
    let failed = "deploy=k boot-fails boot-fails boot-fails boot";
    assert_eq!(cut_everywhere(failed, "healthy", "healthy"), 5);
    assert_eq!(cut_everywhere("deploy=k boot healthy remove=k", "healthy", "healthy"), 3);
}

#[test]
fn a_kernel_that_passes_after_a_cut_off_rejection_stays_rejected() {
    for steps in 1..6 {
        let device = device();
        let words = format!("deploy=k boot cut={steps} unhealthy boot healthy boot healthy");
        let finished = simulate(device.path(), &words).ok();
        let last = finished.out.lines().last().unwrap();
        assert!(last.ends_with("committed: A stock, B stock; rejected: k"), "{steps}: {finished}");
    }
}

#[test]
fn a_power_cut_while_an_update_ends_is_repaired_by_the_next_attempt() {
    let update = "deploy=k boot healthy update-begins deploy=n boot";
    assert_eq!(cut_everywhere(update, "update-commits", "healthy"), 2);
    let update = "deploy=k boot healthy update-begins boot";
    assert_eq!(cut_everywhere(update, "update-rolls-back", "boot healthy"), 3);
}

#[test]
fn the_machine_that_runs_it_is_refused() {
    for words in
        [&["simulate", "boot"][..], &["simulate", "--host-root", "/proc/self/root", "boot"]]
    {
        let finished = run(&mut bare(words));
        assert_eq!(finished.code(), 1, "{finished}");
        assert!(finished.err.contains("is the root directory of this machine"), "{finished}");
        assert!(finished.out.is_empty(), "{finished}");
    }
}

#[test]
fn another_word_is_named_with_the_list_of_words_and_nothing_is_played() {
    let device = device();
    let finished = simulate(device.path(), "boot frob");
    assert_eq!(finished.code(), 2, "{finished}");
    assert!(finished.err.contains("'frob'") && finished.err.contains("boot-fails"), "{finished}");
    assert!(std::fs::read_dir(device.path()).unwrap().next().is_none());
}

#[test]
fn a_word_that_cannot_happen_ends_the_script() {
    for (words, why) in [
        ("boot-fails healthy", "cannot play healthy: the device is off"),
        ("remove=k", "there is no such extension"),
        ("update-commits", "no OS update has begun"),
        ("update-begins update-begins", "an OS update has begun before"),
        ("update-begins update-commits", "the update is not in slot A, which runs"),
    ] {
        let device = device();
        let finished = simulate(device.path(), &format!("{words} boot"));
        assert_eq!(finished.code(), 1, "{finished}");
        assert!(finished.err.contains(why), "{finished}");
        assert!(!finished.out.ends_with("slot A boots"), "{finished}");
    }
    // A directory that is no device is not made one.
    let other = device();
    std::fs::write(other.path().join("file"), "").unwrap();
    let finished = simulate(other.path(), "boot");
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.err.contains("no boot environment block"), "{finished}");
}

#[test]
fn a_copy_of_a_disk_is_a_device_that_is_off() {
    let device = device();
    simulate(device.path(), "deploy=k boot healthy").ok();
    for live in ["proc", "dev", "run"] {
        std::fs::remove_dir_all(device.path().join(live)).unwrap();
    }
    let finished = simulate(device.path(), "boot healthy").ok();
    assert!(finished.out.contains("running: off"), "{finished}");
    assert!(finished.out.contains("running: k in slot A"), "{finished}");
}
