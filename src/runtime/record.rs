//! Recording each deploy, for `balena-extension-manager logs` and `status`: which hooks ran, and what they and
//! the runtime said. An engine throws away what a create printed that failed, and does not know whether an
//! image has hooks. A record that cannot be written stops nothing.

use super::{Context, Error, Outcome};
use crate::host::container::deploy_record;
use crate::host::os::clock;
use crate::model::container::deploy_record::{Record, Step};
use crate::model::container::id::ContainerId;
use crate::model::container::lifecycle::Refused;
use crate::model::container::refusal::Refusal;
use crate::model::text::cause::chain;
use std::path::Path;

type Cause = dyn std::error::Error + 'static;

/// Whether a verb succeeded, without its sentence.
pub(super) fn outcome(told: &Outcome) -> Result<(), &Cause> {
    told.as_ref().map(drop).map_err(|error| &**error)
}

/// Adds what `verb` did and said to the record of the container. A call that was refused did nothing to the
/// container; a delete that has nothing to say tells nothing that its start did not.
pub(super) fn step(
    context: &Context<'_>,
    verb: &str,
    id: &ContainerId,
    told: Result<(), &Cause>,
    refusal: Option<&Refusal>,
) {
    if told.is_err_and(is_refusal) {
        return;
    }
    let step = Step {
        verb: verb.to_owned(),
        time: clock::now(),
        error: told.err().map(chain),
        refused: refusal.map(ToString::to_string),
        warnings: context.log.take_warnings(),
        hooks: context.heard.take(),
    };
    let folder = Path::new(deploy_record::FOLDER);
    if verb == "delete" && !step.says_something() {
        return;
    }
    // One that cannot be read is begun anew.
    let known = deploy_record::load(folder, id).ok().flatten();
    let written = deploy_record::save(folder, id, &Record::after(known, id.as_str(), step));
    if let Err(error) = written {
        let told = || format!("nothing is recorded of this {verb}: {}", chain(&error));
        context.log.debug(told);
    }
}

/// Whether nothing was done to the container, or it is another's.
fn is_refusal(error: &Cause) -> bool {
    let is_common = |error: &Error| {
        matches!(error, Error::Unknown { .. } | Error::Busy { .. })
            || matches!(error, Error::State(error) if error.is_of_another())
    };
    error.is::<Refused>() || error.downcast_ref().is_some_and(is_common)
}
