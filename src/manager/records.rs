//! The runtime's records of deploys, for whoever judges containers by them.

use crate::host::container::deploy_record;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::container::deploy_record::Record;
use crate::model::container::id::ContainerId;
use crate::model::text::cause::{chain, in_words};
use std::path::{Path, PathBuf};

/// Where the records are; `None` while nothing was deployed since the host booted.
pub(super) struct Records(Result<Option<PathBuf>, String>);

impl Records {
    pub(super) fn find(host: &HostRoot) -> Self {
        Self(match host.find(deploy_record::FOLDER) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(format!(
                "look into {:?}: {}",
                host.shown(deploy_record::FOLDER),
                in_words(&error)
            )),
        })
    }

    pub(super) fn folder(&self) -> Result<Option<&Path>, String> {
        self.0.as_ref().map(Option::as_deref).map_err(Clone::clone)
    }

    /// The record of a container.
    ///
    /// # Errors
    /// A sentence that says what cannot be read.
    pub(super) fn of(&self, id: &str) -> Result<Option<Record>, String> {
        match (self.folder()?, ContainerId::parse(id)) {
            (Some(folder), Ok(id)) => {
                deploy_record::load(folder, &id).map_err(|error| chain(&error))
            }
            // No container has such an id, so there is no such record.
            (None, _) | (_, Err(_)) => Ok(None),
        }
    }

    /// What is recorded of a deploy that failed.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(super) fn failure(&self, id: &str) -> Result<Option<String>, String> {
        let record = self.of(id)?;
        let failed = record.as_ref().and_then(Record::last_error);
        Ok(failed.map(|(verb, error)| format!("{verb}: {error}")))
    }

    /// Removes the record of a container that is gone.
    pub(super) fn remove(&self, id: &str) {
        if let (Ok(Some(folder)), Ok(id)) = (self.folder(), ContainerId::parse(id)) {
            deploy_record::remove(folder, &id);
        }
    }
}
