//! The tests of one row. Their names begin with the row, so that a scenario has another name in each generation
//! of engines.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;

use crate::sandbox;

pub(crate) struct Suite {
    row: String,
    trials: Vec<Trial>,
    passed: Passed,
}

/// The names of the tests that passed, from which docs/engines.md is generated.
pub(crate) type Passed = Arc<Mutex<BTreeSet<String>>>;

impl Suite {
    pub(crate) fn of_this_row() -> Self {
        let row = std::env::var(sandbox::ROW).expect("the sandbox names its row");
        Self { row, trials: Vec::new(), passed: Passed::default() }
    }

    /// Adds a test. It fails by panicking.
    pub(crate) fn test(&mut self, name: impl Display, test: impl FnOnce() + Send + 'static) {
        let name = format!("{}::{name}", self.row);
        let (passed, own) = (Arc::clone(&self.passed), name.clone());
        self.trials.push(Trial::test(name, move || {
            test();
            passed.lock().unwrap().insert(own);
            Ok(())
        }));
    }

    pub(crate) fn passed(&self) -> Passed {
        Arc::clone(&self.passed)
    }

    pub(crate) fn into_trials(self) -> Vec<Trial> {
        self.trials
    }
}
