//! Recording each deploy, for `balena-extension-manager logs` and `status`: which hooks ran, and what they and
//! the runtime said. An engine throws away what a create printed that failed, and does not know whether an
//! image has hooks. A record that cannot be written stops nothing.

use super::{Context, Error, Outcome};
use crate::host::{clock, deploy};
use crate::model::cause::chain;
use crate::model::container_id::ContainerId;
use crate::model::deploy::{Record, Step};
use crate::model::lifecycle::Refused;
use crate::model::refusal::Refusal;
use std::path::Path;

/// Adds what `verb` did and said to the record of the container. A call that was refused did nothing to the
/// container; a delete that has nothing to say tells nothing that its start did not.
pub(super) fn step(
    context: &Context<'_>,
    verb: &str,
    id: &ContainerId,
    told: &Outcome,
    refusal: Option<&Refusal>,
) {
    if told.as_ref().is_err_and(|error| is_refusal(&**error)) {
        return;
    }
    let step = Step {
        verb: verb.to_owned(),
        time: clock::now(),
        error: told.as_ref().err().map(|error| chain(&**error)),
        refused: refusal.map(ToString::to_string),
        warnings: context.log.take_warnings(),
        hooks: context.heard.take(),
    };
    let folder = Path::new(deploy::FOLDER);
    if verb == "delete" && !step.says_something() {
        return;
    }
    // One that cannot be read is begun anew.
    let known = deploy::load(folder, id).ok().flatten();
    let written = deploy::save(folder, id, &Record::after(known, id.as_str(), step));
    if let Err(error) = written {
        let told = || format!("nothing is recorded of this {verb}: {}", chain(&error));
        context.log.debug(told);
    }
}

/// Whether nothing was done to the container.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let common = error.downcast_ref::<Error>();
    error.is::<Refused>() || matches!(common, Some(Error::Unknown { .. } | Error::Busy { .. }))
}
