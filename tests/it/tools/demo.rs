//! `tools/demo`, as `make demo` calls it: every check of it passes on the programs under test, and nothing is left behind.

use std::process::Command;

use crate::finished::Finished;
use crate::{capture, programs};

fn demo(kernel: &str) -> Finished {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/demo"));
    command.env("RUNTIME_UNDER_TEST", programs::runtime());
    command.env("MANAGER_UNDER_TEST", programs::manager());
    command.env("INSTALL_PACKAGES", "no").env("KERNEL", kernel).env_remove("ENGINE");
    capture::run(&mut command)
}

// One test: both demos use the same directory.
#[test]
fn the_demos_pass_and_another_one_is_refused() {
    for (kernel, steps, checks) in [("", 8, 21), ("1", 6, 46)] {
        let finished = demo(kernel).ok();
        assert!(finished.out.contains(&format!("\n{steps}. ")), "{finished}");
        assert!(finished.out.contains(&format!("All {checks} checks passed.")), "{finished}");
        assert!(finished.out.ends_with("DEMO PASSED\n"), "{finished}");
        assert_eq!(finished.out.matches("  ok    ").count(), checks, "{finished}");
    }
    demo("2").fails_with(1).fails(&["there is no demo for KERNEL=2"]);
}
