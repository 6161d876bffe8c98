//! Which state root a call works in. A root login has an `XDG_RUNTIME_DIR`, and an engine's calls have none: so
//! a container that is not below that directory is looked for below `/run` too.

use super::error::Error;
use super::journal::Journal;
use crate::host::container::state_dir::{self, Loaded, StateRoot};
use crate::model::container::id::ContainerId;
use crate::model::text::cause::chain;
use std::ffi::OsString;
use std::path::PathBuf;

const DEFAULT: &str = "/run";
const NAME: &str = "balena-extension-runtime";

/// The caller's words about the state root.
pub(super) struct Roots {
    /// `--root`.
    pub(super) given: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(super) runtime_dir: Option<OsString>,
}

impl Roots {
    /// The root of a new container.
    pub(super) fn of_new(&self, journal: &mut Journal) -> Result<StateRoot, Error> {
        self.all(journal).map(|(first, _)| first)
    }

    /// The root that has the container; the first one if none has it.
    pub(super) fn of_existing(
        &self,
        journal: &mut Journal,
        id: &ContainerId,
    ) -> Result<StateRoot, Error> {
        let (first, second) = self.all(journal)?;
        let Some(second) = second else { return Ok(first) };
        if !matches!(first.load(id)?, Loaded::Unknown) {
            return Ok(first);
        }
        // A directory without a state may be that of a create that has just begun.
        let is_first = first.has_directory(id)? && matches!(second.load(id)?, Loaded::Unknown);
        Ok(if is_first { first } else { second })
    }

    /// All roots, the one for new containers first.
    pub(super) fn all(
        &self,
        journal: &mut Journal,
    ) -> Result<(StateRoot, Option<StateRoot>), Error> {
        if let Some(given) = &self.given {
            return Ok((StateRoot::new(given.clone()), None));
        }
        let default = PathBuf::from(DEFAULT).join(NAME);
        let Some(base) = self.runtime_dir.as_ref().filter(|path| !path.is_empty()) else {
            return Ok((StateRoot::new(default), None));
        };
        let below = PathBuf::from(base).join(NAME);
        let mut ignore = |why: &str| journal.warn(&format!("XDG_RUNTIME_DIR is ignored: {why}"));
        if !below.is_absolute() {
            ignore(&format!("{base:?} is not an absolute path"));
        } else if below != default {
            let root = StateRoot::new(below);
            match root.check() {
                Ok(()) => return Ok((root, Some(StateRoot::new(default)))),
                Err(state_dir::Error::Root { source, .. }) if source.is_of_the_path() => {
                    ignore(&chain(&source));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((StateRoot::new(default), None))
    }
}
