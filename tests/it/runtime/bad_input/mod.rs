//! THE table of bad input. Each row spoils one thing and calls the runtime, which must exit with a
//! failure and one error, on standard error and in the log, that names the thing, the cause and the
//! mend, in no words that engines react to; and nothing half-done is left.
//!
//! Command lines that are wrong are in `command_line.rs`, stores in `labels.rs`, hooks that hang for a
//! minute in `aborted_after_timeout.rs`, those that print or leave children and *succeed* in `hook_output.rs`.

mod bundle;
mod caller_and_paths;
mod config;
mod hook;
mod state;

use crate::container::Container;
use crate::finished::Finished;

/// One thing that is wrong.
struct Row {
    what: &'static str,
    /// Spoils a good container that is not created yet, and calls the runtime.
    call: fn(&Container) -> Finished,
    /// What the error must have whichever runtime is tested: the thing. `{bundle}`, `{folder}`,
    /// `{root}` and `{id}` stand for the container's.
    names: &'static [&'static str],
    /// What it has of ours: the cause, and the mend where there is one to tell.
    explains: &'static [&'static str],
}

/// What is looked for in the error.
#[derive(Clone, Copy)]
enum Check {
    Names,
    Explains,
}

/// What of the container must be there after the call.
#[derive(Clone, Copy)]
enum Afterwards {
    Nothing,
    /// The container that was there before, which may have stopped.
    TheContainer,
}

/// Tries all rows and fails with all that are not as they should be.
fn check(rows: &[Row], check: Check, afterwards: Afterwards) {
    let failures: Vec<&str> = rows
        .iter()
        .filter(|row| std::panic::catch_unwind(|| row.check(check, afterwards)).is_err())
        .map(|row| row.what)
        .collect();
    assert!(failures.is_empty(), "rows that are wrong: {failures:#?}");
}

impl Row {
    fn check(&self, check: Check, afterwards: Afterwards) {
        let container = Container::new();
        let finished = (self.call)(&container);
        let texts = match check {
            Check::Names => self.names,
            Check::Explains => self.explains,
        };
        let error = finished.error();
        for text in texts {
            let text = self.filled(text, &container);
            assert!(error.contains(&text), "{}: {text:?} was expected in {error:?}", self.what);
        }
        let unknown = self.names.contains(&crate::finished::UNKNOWN);
        assert_eq!(error.contains(crate::finished::UNKNOWN), unknown, "{}: {error}", self.what);
        assert!(!error.contains('\n'), "{}: {error}", self.what);
        if matches!(afterwards, Afterwards::Nothing) {
            container.left_nothing();
            assert!(!container.pid_file().exists(), "{}: a pid file is left", self.what);
        }
    }

    fn filled(&self, text: &str, container: &Container) -> String {
        let folder = container.beside("");
        text.replace("{bundle}", container.text())
            .replace("{folder}", folder.to_str().unwrap().trim_end_matches('/'))
            .replace("{root}", container.root().to_str().unwrap())
            .replace("{id}", &container.id)
    }
}
