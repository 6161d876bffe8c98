//! Faults that are planted into the recordings: what the commands would do if a call that makes something durable were
//! missing, or if two writes were in the other order. The sweep must find each of them.

use crate::cut_commands::{
    activate, fabricate, validate_completes_a_write, validate_rejects_after_three_boots,
    validate_sweeps,
};
use crate::cut_device::{Case, kernel};
use crate::cut_sweep::judge;
use crate::recorder::{Operation, record};
use crate::report::Report;
use crate::trials::Extent;

struct Fault {
    name: &'static str,
    make: fn() -> Case,
    plant: fn(&mut Vec<Operation>),
    /// What the sweep says of it.
    found: &'static str,
}

const FAULTS: [Fault; 12] = [
    Fault {
        name: "the directory of the links is not synced before the kernel is armed",
        make: activate,
        plant: |operations| drop_call(operations, "fsync", "boot-by-abi"),
        found: "is not published",
    },
    Fault {
        name: "the new directory of the links is not synced",
        make: activate,
        plant: |operations| drop_call(operations, "fsync", "(data)"),
        found: "is not published",
    },
    Fault {
        name: "the kernel is armed before it is published",
        make: activate,
        plant: |operations| move_before(operations, BLOCK, "mkdirat", "boot-by-abi"),
        found: "is not published",
    },
    Fault {
        name: "the copy of the kernel is not synced",
        make: fabricate,
        plant: |operations| drop_call(operations, "fsync", "_data/vmlinuz"),
        found: "the volume counts as filled",
    },
    Fault {
        name: "the directory with the copy of a file is not synced",
        make: fabricate,
        plant: |operations| drop_call(operations, "fsync", "_data/dtb/a)"),
        found: "the volume counts as filled",
    },
    Fault {
        name: "the marker is removed before the last file is copied",
        make: fabricate,
        plant: |operations| {
            move_before(operations, ("unlinkat", ".fabricating", 1), "openat", "board.dtb");
        },
        found: "the volume counts as filled",
    },
    Fault {
        name: "the marker's directory is not synced",
        make: fabricate,
        plant: |operations| drop_call(operations, "fsync", "_data)"),
        found: "the volume counts as filled",
    },
    Fault {
        name: "the record of a write of the block is not synced",
        make: validate_rejects_after_three_boots,
        plant: |operations| {
            drop_call(operations, "fsync", "override-block-redo.new");
        },
        found: "a mixture is believed",
    },
    Fault {
        name: "a write of the block that is completed is not synced",
        make: validate_completes_a_write,
        plant: |operations| drop_call(operations, "fsync", "bootenv"),
        found: "a mixture is believed",
    },
    Fault {
        name: "the shortened history is not synced",
        make: validate_sweeps,
        plant: |operations| drop_call(operations, "fsync", "override-history.jsonl.new"),
        found: "the history has lost an older event",
    },
    Fault {
        name: "the block is written before the rejection is recorded",
        make: validate_rejects_after_three_boots,
        plant: |operations| move_before(operations, BLOCK, "openat", "override-rejected"),
        found: "the command again leaves",
    },
    Fault {
        name: "the links are removed before the block is written",
        make: validate_sweeps,
        plant: |operations| {
            let link = kernel("z").1;
            move_before(operations, ("unlinkat", &link, 2), "pwrite64", "bootenv");
        },
        found: "is not published",
    },
];

/// The write of the block, with its fsync.
const BLOCK: (&str, &str, usize) = ("pwrite64", "", 2);

pub(crate) fn are_found(_: Extent, report: &mut Report) {
    for Fault { name, make, plant, found } in FAULTS {
        let case = make();
        let violations = record(&mut case.command(), &case.top()).and_then(|mut recording| {
            plant(&mut recording.operations);
            Ok(judge(&case, &recording, Extent::Short)?.violations)
        });
        match violations {
            Err(why) => report.violation(format_args!("{name}: {why}")),
            Ok(violations) => match violations.iter().any(|why| why.contains(found)) {
                true => report.note(format_args!("{name}: found, {} disks", violations.len())),
                false => report.violation(format_args!("{name}: not found in {violations:?}")),
            },
        }
    }
}

fn find(operations: &[Operation], call: &str, target: &str) -> usize {
    let is_it = |operation: &Operation| {
        operation.call.starts_with(&format!("{call}(")) && operation.call.contains(target)
    };
    let calls = || operations.iter().map(|operation| &operation.call).collect::<Vec<_>>();
    let found = operations.iter().position(is_it);
    found.unwrap_or_else(|| panic!("no {call} of {target} in {:?}", calls()))
}

fn drop_call(operations: &mut Vec<Operation>, call: &str, target: &str) {
    operations.remove(find(operations, call, target));
}

/// Moves some calls, of which the first is named, before another one.
fn move_before(
    operations: &mut Vec<Operation>,
    (call, target, len): (&str, &str, usize),
    before: &str,
    of: &str,
) {
    let from = find(operations, call, target);
    let moved: Vec<Operation> = operations.drain(from..from + len).collect();
    let to = find(operations, before, of);
    operations.splice(to..to, moved);
}
