//! Recording what a call and its hooks said, for `balena-extension-manager logs` and `status`: an engine
//! throws away what a create printed that failed. A record that cannot be written stops nothing.

use super::{Context, Error, Outcome};
use crate::host::{clock, deploy};
use crate::model::cause::chain;
use crate::model::container_id::ContainerId;
use crate::model::deploy::{Record, Step};
use std::path::Path;

/// Adds what `verb` said to the record of the container. A call that has nothing to say leaves no
/// trace: a create that went well without a word takes the record of an earlier one away.
pub(super) fn step(context: &Context<'_>, verb: &str, id: &ContainerId, told: &Outcome) {
    let error = told.as_ref().err().and_then(|error| error.downcast_ref::<Error>());
    if matches!(error, Some(Error::Unknown { .. })) {
        return;
    }
    let step = Step {
        verb: verb.to_owned(),
        time: clock::now(),
        error: told.as_ref().err().map(|error| chain(&**error)),
        warnings: context.log.take_warnings(),
        hooks: context.heard.take(),
    };
    let folder = Path::new(deploy::FOLDER);
    if !step.says_something() {
        if verb == "create" {
            deploy::remove(folder, id);
        }
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
