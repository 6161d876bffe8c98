//! The table of bad input. Each row makes one thing wrong and calls the runtime. The call must fail with one
//! error, on standard error and in the log, that names the thing, the cause and the fix, without phrases that
//! engines react to. Nothing half-done may be left.
//!
//! Bad command lines are in `command_line.rs`, bad stores in `labels.rs`, hooks that hang for a minute in
//! `aborted_after_timeout.rs`, and hooks that print or leave children and *succeed* in `hook_output.rs`.

mod bundle;
mod caller_and_paths;
mod config;
mod hook;
mod state;

use crate::container::Container;
use crate::finished::Finished;

/// One bad input.
struct Row {
    what: &'static str,
    /// Makes something wrong in a valid container that is not created yet, and calls the runtime.
    call: fn(&Container) -> Finished,
    /// The texts that every runtime must have in its error: the name of the thing. `{bundle}`, `{folder}`,
    /// `{root}` and `{id}` are replaced by the container's.
    names: &'static [&'static str],
    /// The texts of this runtime: the cause, and the fix if there is one.
    explains: &'static [&'static str],
}

/// The texts that the error must have.
#[derive(Clone, Copy)]
enum Check {
    Names,
    Explains,
}

/// The container that must exist after the call.
#[derive(Clone, Copy)]
enum Afterwards {
    Nothing,
    /// The container that existed before, which may have stopped.
    TheContainer,
}

/// Tries all rows, and fails with the names of all bad ones.
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
