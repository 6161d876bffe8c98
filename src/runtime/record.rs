//! The record of a deploy, for `balena-extension-manager logs` and `status`: which hooks ran, and what they and
//! the runtime reported. An engine discards the output of a create that failed, and does not know whether an
//! image has hooks. If the record cannot be written, the call succeeds all the same.

use super::error::Error;
use super::journal::{Journal, Outcome};
use crate::host::container::deploy_record;
use crate::host::os::clock;
use crate::model::container::deploy_record::{DeployRecord, RecordedCall};
use crate::model::container::id::ContainerId;
use crate::model::text::cause::chain;
use std::path::Path;

/// Adds a call of `verb` to the record of the container, and returns its result.
pub(super) fn recorded(
    journal: &mut Journal,
    verb: &str,
    id: &ContainerId,
    result: Result<Outcome, Error>,
) -> Result<Outcome, Error> {
    if result.as_ref().is_err_and(is_of_no_deploy) {
        return result;
    }
    let (warnings, hooks) = journal.unrecorded();
    let call = RecordedCall {
        verb: verb.to_owned(),
        time: clock::now(),
        error: result.as_ref().err().map(|error| chain(error)),
        refused: match &result {
            Ok(Outcome::Refused(refusal)) => Some(refusal.to_string()),
            Ok(Outcome::Answered | Outcome::Did(_)) | Err(_) => None,
        },
        warnings,
        hooks,
    };
    // The start of the container has been recorded; a silent delete adds nothing to that.
    if verb == "delete" && !call.says_something() {
        return result;
    }
    let directory = Path::new(deploy_record::FOLDER);
    // A record that cannot be read is replaced.
    let known = deploy_record::load(directory, id).ok().flatten();
    let record = DeployRecord::after(known, id.as_str(), call);
    if let Err(error) = deploy_record::save(directory, id, &record) {
        journal.debug(|| format!("this {verb} is not recorded: {}", chain(&error)));
    }
    result
}

/// Whether a call failed before it did anything to the container, or the container is not its own.
fn is_of_no_deploy(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused(_) | Error::Unknown { .. } | Error::Busy { .. } | Error::NotReserved(_)
    ) || matches!(error, Error::State(error) if error.is_of_another())
}
