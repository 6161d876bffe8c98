//! What a trial has to say: what it covered, what it measured, and every violation it saw. A sweep
//! goes on after a violation, because the pattern of several says more than the first.

/// How many violations are told in full.
const TOLD: usize = 40;

#[derive(Default)]
pub(crate) struct Report {
    violations: usize,
}

impl Report {
    /// Tells what was covered or measured.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        println!("  {text}");
    }

    /// Tells a property that did not hold.
    pub(crate) fn violation(&mut self, text: impl std::fmt::Display) {
        self.violations += 1;
        if self.violations <= TOLD {
            println!("  VIOLATION {text}");
        }
    }

    /// Tells the outcome of one point.
    pub(crate) fn judge(&mut self, point: impl std::fmt::Display, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.violation(format_args!("{point}: {why}"));
        }
    }

    /// The last line, and the verdict.
    pub(crate) fn close(&self) -> std::process::ExitCode {
        if self.violations > TOLD {
            println!("  … and {} violations more", self.violations - TOLD);
        }
        match self.violations {
            0 => std::process::ExitCode::SUCCESS,
            _ => std::process::ExitCode::FAILURE,
        }
    }
}
