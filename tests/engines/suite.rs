//! The list of tests of one row. Their names start with the row's, so that the same scenario under
//! two generations of engines is told apart.

use std::fmt::Display;

use libtest_mimic::Trial;

use crate::sandbox;

pub(crate) struct Suite {
    row: String,
    trials: Vec<Trial>,
}

impl Suite {
    pub(crate) fn of_this_row() -> Self {
        let row = std::env::var(sandbox::ROW).expect("the sandbox names its row");
        Self { row, trials: Vec::new() }
    }

    /// Adds a test. It fails by panicking.
    pub(crate) fn test(&mut self, name: impl Display, test: impl FnOnce() + Send + 'static) {
        let name = format!("{}::{name}", self.row);
        self.trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }

    pub(crate) fn into_trials(self) -> Vec<Trial> {
        self.trials
    }
}
