//! Which state root a call works in. A root login has an `XDG_RUNTIME_DIR`, and an engine's calls have none: so
//! what is not found below that directory is looked for below `/run` too.

use super::Error;
use crate::host::container::state_dir::{Loaded, StateRoot};
use crate::host::os::log::Log;
use crate::model::container::id::ContainerId;
use crate::model::text::cause::chain;
use std::ffi::OsString;
use std::path::PathBuf;

const DEFAULT: &str = "/run";
const NAME: &str = "balena-extension-runtime";

/// What the caller says about the state root.
pub(super) struct Roots {
    /// `--root`.
    pub(super) given: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(super) runtime_dir: Option<OsString>,
}

impl Roots {
    /// The root of a new container.
    ///
    /// # Errors
    /// An `XDG_RUNTIME_DIR` cannot be looked at.
    pub(super) fn of_new(&self, log: &Log) -> Result<StateRoot, Error> {
        self.all(log).map(|(first, _)| first)
    }

    /// The root that has the container; the first one if none has it.
    ///
    /// # Errors
    /// One that may have it cannot be read, or is not trusted.
    pub(super) fn of_existing(&self, log: &Log, id: &ContainerId) -> Result<StateRoot, Error> {
        let (first, second) = self.all(log)?;
        let Some(second) = second else { return Ok(first) };
        if !matches!(first.load(id)?, Loaded::Unknown) {
            return Ok(first);
        }
        // A folder without a state may be that of a create that has just begun.
        let is_first = first.has_folder(id)? && matches!(second.load(id)?, Loaded::Unknown);
        Ok(if is_first { first } else { second })
    }

    /// All roots, the one for new containers first.
    ///
    /// # Errors
    /// An `XDG_RUNTIME_DIR` cannot be looked at.
    pub(super) fn all(&self, log: &Log) -> Result<(StateRoot, Option<StateRoot>), Error> {
        if let Some(given) = &self.given {
            return Ok((StateRoot::new(given.clone()), None));
        }
        let default = PathBuf::from(DEFAULT).join(NAME);
        let Some(base) = self.runtime_dir.as_ref().filter(|path| !path.is_empty()) else {
            return Ok((StateRoot::new(default), None));
        };
        let below = PathBuf::from(base).join(NAME);
        let ignore = |why: &str| log.warn(&format!("XDG_RUNTIME_DIR is ignored: {why}"));
        if !below.is_absolute() {
            ignore(&format!("{base:?} is not an absolute path"));
        } else if below != default {
            let root = StateRoot::new(below);
            match root.check() {
                Ok(()) => return Ok((root, Some(StateRoot::new(default)))),
                Err(error) if error.is_of_the_path() => ignore(&chain(&error)),
                Err(error) => return Err(root.refused(error).into()),
            }
        }
        Ok((StateRoot::new(default), None))
    }
}
