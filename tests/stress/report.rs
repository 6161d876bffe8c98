//! The report of a trial: its coverage, its measurements, and every violation. A sweep continues after a
//! violation, because the pattern of several says more than the first.

/// How many violations are printed.
const PRINTED: usize = 40;

#[derive(Default)]
pub(crate) struct Report {
    violations: usize,
}

impl Report {
    /// Prints a line about the coverage or a measurement.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        println!("  {text}");
    }

    /// Prints a violation.
    pub(crate) fn violation(&mut self, text: impl std::fmt::Display) {
        self.violations += 1;
        if self.violations <= PRINTED {
            println!("  VIOLATION {text}");
        }
    }

    /// Prints a violation if the point failed.
    pub(crate) fn judge(&mut self, point: impl std::fmt::Display, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.violation(format_args!("{point}: {why}"));
        }
    }

    /// The last line, and the verdict.
    pub(crate) fn close(&self) -> std::process::ExitCode {
        if self.violations > PRINTED {
            println!("  … and {} violations more", self.violations - PRINTED);
        }
        match self.violations {
            0 => std::process::ExitCode::SUCCESS,
            _ => std::process::ExitCode::FAILURE,
        }
    }
}
