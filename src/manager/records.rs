//! The runtime's records of deploys.

use crate::host::container::deploy_record;
use crate::host::os::host_root::{HostRoot, is_absence};
use crate::model::container::deploy_record::DeployRecord;
use crate::model::container::id::ContainerId;
use crate::model::text::cause::{chain, in_words};
use std::path::{Path, PathBuf};

/// The directory of the records; `None` if nothing was deployed since the host booted.
pub(super) struct Records(Result<Option<PathBuf>, String>);

impl Records {
    pub(super) fn find(host: &HostRoot) -> Self {
        Self(match host.find(deploy_record::FOLDER) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => {
                let path = host.display_path(deploy_record::FOLDER);
                Err(format!("cannot open {path:?}: {}", in_words(&error)))
            }
        })
    }

    pub(super) fn directory(&self) -> Result<Option<&Path>, String> {
        self.0.as_ref().map(Option::as_deref).map_err(Clone::clone)
    }

    /// The record of a container.
    pub(super) fn of(&self, id: &str) -> Result<Option<DeployRecord>, String> {
        match (self.directory()?, ContainerId::parse(id)) {
            (Some(directory), Ok(id)) => {
                deploy_record::load(directory, &id).map_err(|error| chain(&error))
            }
            // An invalid id has no record.
            (None, _) | (_, Err(_)) => Ok(None),
        }
    }

    /// The error of a recorded deploy that failed.
    pub(super) fn failure(&self, id: &str) -> Result<Option<String>, String> {
        let record = self.of(id)?;
        let failed = record.as_ref().and_then(DeployRecord::last_error);
        Ok(failed.map(|(verb, error)| format!("{verb}: {error}")))
    }

    /// Removes the record of a removed container.
    pub(super) fn remove(&self, id: &str) {
        if let (Ok(Some(directory)), Ok(id)) = (self.directory(), ContainerId::parse(id)) {
            deploy_record::remove(directory, &id);
        }
    }
}
