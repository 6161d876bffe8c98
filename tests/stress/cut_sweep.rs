//! A power cut after every operation of a command that changes the records of kernel overrides, with each disk that it can
//! leave. Whatever is left, no kernel is booted that is not whole and verified, no mixture of two states is believed, and
//! the same command as well as the next boots lead to where they would have led without the cut, or if the command had
//! not been called.

use crate::cut_commands::Cut;
use crate::cut_device::{Case, Named, REDO, named};
use crate::power_cut::{self, Cuts};
use crate::recorder::{Effect, Recording, record};
use crate::report::Report;
use crate::trials::Extent;
use std::collections::BTreeSet;

/// Sweeps a command, and prints a row of the table.
pub(crate) fn sweep((name, make): Cut, extent: Extent, report: &mut Report) {
    let case = make();
    let recording = record(&mut case.command(), &case.top());
    let judged = recording.and_then(|recording| judge(&case, &recording, extent));
    match judged {
        Err(why) => report.violation(format_args!("{name}: {why}")),
        Ok(Judged { cuts: Cuts { points, built, disks }, violations }) => {
            report.note(format_args!(
                "{name:34} {points:4} points {built:6} disks {:5} differ {:5} converge",
                disks.len(),
                disks.len() - violations.len()
            ));
            violations.iter().for_each(|why| report.violation(format_args!("{name}: {why}")));
            // Of nearly every point, something may be lost.
            if built < 4 * points || disks.len() < 3 {
                report.violation(format_args!("{name}: too few disks to have shown anything"));
            }
        }
    }
}

pub(crate) struct Judged {
    pub(crate) cuts: Cuts,
    pub(crate) violations: Vec<String>,
}

/// Tries every disk. The error is that of the command without a cut.
pub(crate) fn judge(case: &Case, recording: &Recording, extent: Extent) -> Result<Judged, String> {
    let finished = &recording.finished;
    if !finished.succeeded() {
        return Err(finished.to_string());
    }
    let (start, end) = (recording.before.tree(), recording.after().tree());
    if start == end {
        return Err("the command changes nothing".to_owned());
    }
    let valid = named_meanwhile(recording);
    let mounts = std::fs::read_to_string(case.device.path("proc/mounts")).unwrap();
    let restore = |tree| {
        case.restore(tree);
        case.device.0.mounts(&mounts);
    };
    restore(&end);
    let complete = case.again()?;
    let mut settled = Vec::new();
    for tree in [&start, &end] {
        restore(tree);
        settled.push(case.boots()?);
    }
    let cuts = power_cut::cuts(recording, extent);
    let mut violations = Vec::new();
    for disk in &cuts.disks {
        let outcome = || -> Result<(), String> {
            restore(&disk.tree);
            case.check_at_rest(&valid, &end)?;
            let again = case.again()?;
            if again != complete {
                return Err(format!("the command again leaves {again:?}, not {complete:?}"));
            }
            restore(&disk.tree);
            let boots = case.boots()?;
            match settled.contains(&boots) {
                true => Ok(()),
                false => Err(format!("the next boots lead to {boots:?}, not {settled:?}")),
            }
        };
        if let Err(why) = outcome() {
            violations.push(format!("{}: {why}", disk.what));
        }
    }
    Ok(Judged { cuts, violations })
}

/// What the block names at any time of the command. One that is torn names nothing.
fn named_meanwhile(recording: &Recording) -> BTreeSet<Named> {
    let mut disk = recording.before.clone();
    let mut seen = BTreeSet::new();
    let block = "boot/bootenv";
    if disk.file(&format!("state/{REDO}")).is_none() {
        seen.insert(named(&disk.file(block).unwrap()));
    }
    for operation in &recording.operations {
        if let Effect::Change(change) = &operation.effect {
            let before = disk.file(block);
            disk.apply(change);
            let after = disk.file(block);
            if before != after {
                seen.insert(named(&after.unwrap()));
            }
        }
    }
    seen
}
